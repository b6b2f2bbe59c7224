"""Servers in their own processes that are killed while an agent works with their tools."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_mqtt_agent import MQTTLiveTools, MQTTToolkit
from mqtt_agent import ToolServer
from support import becomes, soon, until
from tools.conftest import Spawn, spawn

from .models import calls
from .test_selection import Watching

__all__ = ["spawn"]

GO: Any = {"messages": [("user", "go")]}


async def named(toolkit: MQTTToolkit, name: str) -> Any:
    """Wait until the tool's server is online, and return the tool."""
    found: list[Any] = []

    async def there() -> bool:
        found[:] = [tool for tool in await toolkit.aget_tools() if tool.name == name]
        return bool(found)

    await becomes(there)
    return found[0]


async def test_the_artifact_tells_that_a_call_ran_a_second_time(broker: Broker, namespace: str, spawn: Spawn) -> None:
    first = spawn("fixed", will_delay=30)
    async with MQTTToolkit(broker=broker.url, namespace=namespace, timeout=60) as toolkit:
        agent: Any = create_agent(calls(("slow", {"seconds": 0.5})), [await named(toolkit, "slow")])
        restarted: list[subprocess.Popen[bytes]] = []
        messages: list[ToolMessage] = []
        async for mode, data in agent.astream(GO, stream_mode=["custom", "updates"]):
            if mode == "custom" and not restarted:
                assert data["partial"] == {"pid": first.pid}
                first.kill()
                first.wait(10)
                restarted.append(spawn("fixed", will_delay=30))
            elif mode == "updates" and "tools" in data:
                messages += data["tools"]["messages"]
    [message] = messages
    if not broker.keeps_shared_messages:
        assert message.status == "error"
        return
    assert message.text == str(restarted[0].pid)
    assert message.artifact["attempt"] == 2


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_a_server_that_is_killed_in_the_middle_of_a_run_disappears_for_the_model(
    broker: Broker, namespace: str, spawn: Spawn, mode: str
) -> None:
    server = spawn("only")
    async with MQTTToolkit(broker=broker.url, namespace=namespace, tools=["who"], timeout=10) as toolkit:
        await named(toolkit, "who")

        @tool
        def kill() -> str:
            """Kill the server, and wait until the broker has reported its death."""
            os.kill(server.pid, signal.SIGKILL)
            asyncio.run(until(lambda: not toolkit.get_online_tools()))
            return "killed"

        wanted = ["who", "kill", "who"]
        turns = [AIMessage("", tool_calls=[{"name": n, "args": {}, "id": str(i)}]) for i, n in enumerate(wanted)]
        model = Watching(responses=[*turns, AIMessage("done")], offered=[])
        agent: Any = create_agent(model, [kill], middleware=[MQTTLiveTools(toolkit)])
        state = await soon(agent.ainvoke(GO) if mode == "async" else asyncio.to_thread(agent.invoke, GO), 60)
    assert model.offered == [["kill", "who"], ["kill", "who"], ["kill"], ["kill"]]
    told = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert [message.status for message in told] == ["success", "success", "error"]
    assert told[0].artifact["structured_content"]["pid"] == server.pid
    assert "offline" in told[2].text


async def test_one_killed_server_takes_no_other_tools_away(broker: Broker, namespace: str, spawn: Spawn) -> None:
    server = spawn("only")
    other = ToolServer("calculator", broker=broker.url, namespace=namespace)

    @other.tool
    async def add(a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + b}

    async with other, MQTTToolkit(broker=broker.url, namespace=namespace, timeout=10) as toolkit:
        await named(toolkit, "who")
        server.kill()

        async def gone() -> bool:
            return "who" not in {tool.name for tool in await toolkit.aget_tools()}

        await becomes(gone)
        agent: Any = create_agent(calls(("add", {"a": 1, "b": 2})), await toolkit.aget_tools())
        [added] = [each for each in (await soon(agent.ainvoke(GO)))["messages"] if isinstance(each, ToolMessage)]
    assert added.text == '{"sum": 3}'
