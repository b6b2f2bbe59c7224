"""What it costs an endpoint to keep the cards of many others: memory, and how long its event loop does nothing else."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest
from brokers import Mosquitto
from crowd import SKILLS
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import AgentCard, AgentStatus, ServerCard, ToolCard, Topics, encode
from simulated import SimulatedBroker
from support import soon

CARDS = 250
MEMORY = 20_000
"""Bytes for each card at most."""
AT_ONCE = 64
"""Messages that are handled before the event loop does other work, at most."""
TOPICS = Topics("ns")
SCHEMA = {"type": "object", "properties": {f"field_{n}": {"type": "string", "title": "Field"} for n in range(5)}}


@pytest.fixture
async def many_cards() -> AsyncIterator[SimulatedBroker]:
    """A broker with many cards of usual size."""
    broker = SimulatedBroker()
    writer = broker.connection("writer")
    await writer.start()
    text = "Reads and writes reports about the documents of its department. " * 4
    for number in range(CARDS):
        name = f"agent-{number:05}"
        card = AgentCard(name=name, description=text, capabilities=["reports"], skills=SKILLS)  # type: ignore[arg-type]
        tool = ToolCard(tool=name, server=name, description=text, input_schema=SCHEMA, replicas=[f"{name}:a"])
        server = ServerCard(server=f"{name}:a", name=name, tools=[name])
        for topic, message in (
            (TOPICS.agent_card(name), card),
            (TOPICS.agent_status(name), AgentStatus(name=name, status="online")),
            (TOPICS.tool_card(name), tool),
            (TOPICS.server_card(server.server), server),
        ):
            await writer.publish(topic, encode(message), retain=True)
    yield broker
    await writer.stop()


async def grows_by(work: Awaitable[Sequence[object]]) -> float:
    """The bytes by which the process grows for each of the cards."""
    gc.collect()
    tracemalloc.start()
    try:
        assert len(await soon(work)) == CARDS
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / CARDS
    finally:
        tracemalloc.stop()


async def test_a_card_takes_little_memory(many_cards: SimulatedBroker) -> None:
    agent = Agent("agent", connection=many_cards.connection("agent"), namespace="ns", store=MemoryStore())
    client = ToolClient("client", connection=many_cards.connection("client"), namespace="ns")
    async with agent, client:
        assert await grows_by(agent.peers()) <= MEMORY
        assert await grows_by(client.list_tools()) <= MEMORY


async def turns(work: Awaitable[Sequence[object]]) -> int:
    """How often the event loop can do other work."""
    working = asyncio.ensure_future(work)
    count = 0
    while not working.done():
        count += 1
        await asyncio.sleep(0)
    assert len(working.result()) == CARDS
    return count


async def test_the_event_loop_does_other_work_while_many_cards_are_listed(
    many_cards: SimulatedBroker,
) -> None:
    agent = Agent("agent", connection=many_cards.connection("agent"), namespace="ns", store=MemoryStore())
    client = ToolClient("client", connection=many_cards.connection("client"), namespace="ns")
    async with agent, client:
        first = await agent.peers()
        assert await turns(agent.peers()) > CARDS / 100
        assert all(again is card for again, card in zip(await agent.peers(), first, strict=True))
        await client.list_servers()
        assert await turns(client.list_servers()) > CARDS / 100


async def test_the_event_loop_does_other_work_while_many_messages_arrive(mosquitto: Mosquitto, namespace: str) -> None:
    writer, reader = Connection(mosquitto.url), Connection(mosquitto.url)
    await soon(writer.start())
    topics = [f"{namespace}/{number}" for number in range(CARDS)]
    await soon(asyncio.gather(*(writer.publish(topic, b"x" * 100, retain=True) for topic in topics)))
    turn, arrived = 0, Counter[int]()

    def note(message: InboundMessage) -> None:
        arrived[turn] += 1

    await soon(reader.start())
    subscribing = asyncio.ensure_future(reader.subscribe(f"{namespace}/+", note, qos=0, snapshot=True))
    while sum(arrived.values()) < CARDS:
        turn += 1
        await asyncio.sleep(0)
    await soon(subscribing)
    assert max(arrived.values()) <= AT_ONCE
    await soon(asyncio.gather(*(writer.publish(topic, b"", retain=True) for topic in topics)))
    await soon(reader.stop())
    await soon(writer.stop())
