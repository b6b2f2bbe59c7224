"""The sequence of the demo, from the first card to the last card."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import models
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_mqtt_agent import MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from mqtt_agent import ToolClient
from replicas import Replica, running
from screen import Screen
from server import NAME, TOOLS

T = TypeVar("T")

PATIENCE = 15.0


class DemoError(Exception):
    """The demo failed; the message names the expected event that did not happen."""


async def tell(broker: str, folder: Path, model_name: str | None) -> None:
    """Run the demo: start two replicas, ask a question, kill a replica, ask another question, stop the other replica.

    Args:
        broker: URL of an MQTT 5 broker.
        folder: The folder that the tools read.
        model_name: LangChain's name of a language model; None for the stand-in.
    """
    model = models.choose(model_name)
    began = time.monotonic()
    screen = Screen()
    scripted = model_name is None
    async with ToolClient("demo-watcher", broker=broker) as client:
        screen.opening(str(client.connection.url), folder, model_name)
        async with running("replica-1", folder, broker) as first, running("replica-2", folder, broker) as second:
            both = [first, second]
            await all_online(client, both)
            screen.tools(await client.list_tools(server=NAME), await client.list_servers(), both)

            async with MQTTToolkit(broker=broker, agent_id="demo-agent", tools=sorted(TOOLS)) as toolkit:
                agent = create_agent(
                    model, await toolkit.aget_tools(), system_prompt=models.INSTRUCTIONS, checkpointer=InMemorySaver()
                )
                served = await ask(agent, models.QUESTIONS[0], screen)
                if scripted and len(served) < 3:
                    raise DemoError(f"the agent made {len(served)} tool calls instead of three or more")

                victim, other = (second, first) if second.server_id in served[-1:] else (first, second)
                screen.section(f"SIGKILL to {victim.server_id}, pid {victim.pid}")
                ms = await until_offline(client, victim, victim.kill)
                screen.event(f"its card went offline after {ms:,.0f} ms: the broker published its will")

                served = await ask(agent, models.QUESTIONS[1], screen)
                if set(served) != {other.server_id} and (served or scripted):
                    raise DemoError(f"{other.server_id} should have answered, not {', '.join(served) or 'nobody'}")

            screen.section(f"SIGTERM to {other.server_id}, pid {other.pid}")
            ms = await until_offline(client, other, other.stop)
            screen.event(f"its card went offline after {ms:,.0f} ms: the replica published this itself")
    screen.closing(f"Done in {time.monotonic() - began:.1f} s.")


async def ask(agent: Any, question: str, screen: Screen) -> list[str]:
    """Ask the agent a question, and show its steps live.

    Returns:
        For each answered tool call, the replica that answered.
    """
    screen.question(question)
    served: list[str] = []
    steps = agent.astream(
        {"messages": [HumanMessage(question)]},
        {"configurable": {"thread_id": "demo"}},  # the agent remembers the conversation
        stream_mode=["updates", "custom"],  # each finished step of the agent, and the partials of its tools
    )
    with screen:
        async for mode, data in steps:
            if mode == "custom":
                screen.partial(data)
                continue
            for message in [message for update in data.values() for message in (update or {}).get("messages", [])]:
                screen.message(message)
                if isinstance(message, ToolMessage) and message.status == "success":
                    served.append(message.artifact["server"])
    return served


async def all_online(client: ToolClient, both: Sequence[Replica]) -> None:
    """Wait until every replica is online, or fail as soon as a replica has ended."""
    wanted = {replica.server_id for replica in both}

    async def follow() -> None:
        changes = client.watch_tools()
        while not (
            {card.server for card in await client.list_servers()} >= wanted
            and {card.tool for card in await client.list_tools(server=NAME)} >= TOOLS
        ):
            await changes.__anext__()

    online = asyncio.create_task(follow())
    ends = [asyncio.create_task(replica.died()) for replica in both]
    try:
        await soon(asyncio.wait([online, *ends], return_when=asyncio.FIRST_COMPLETED), "both replicas online")
        for end in ends:
            if end.done():
                raise DemoError(await end)
        await online
    finally:
        for task in (online, *ends):
            task.cancel()


async def until_offline(client: ToolClient, replica: Replica, action: Callable[[], None]) -> float:
    """Run an action that ends a replica, and wait until the replica's card says that it is offline.

    Returns:
        The milliseconds from the action to the offline card.
    """

    async def follow() -> None:
        async for _ in changes:
            cards = await client.list_servers(online_only=False)
            if any(card.server == replica.server_id and card.status == "offline" for card in cards):
                return

    changes = client.watch_tools()  # watch before the action, to miss no change
    began = time.monotonic()
    action()
    await soon(follow(), f"the card of {replica.server_id} offline")
    return 1000 * (time.monotonic() - began)


async def soon(awaitable: Awaitable[T], what: str) -> T:
    """Await something that should take a short time, and raise a ``DemoError`` if it does not end."""
    try:
        return await asyncio.wait_for(awaitable, PATIENCE)
    except asyncio.TimeoutError:
        raise DemoError(f"{what}: not seen within {PATIENCE:g} s") from None
