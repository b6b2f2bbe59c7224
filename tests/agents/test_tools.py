"""An agent that calls and serves tools over its own connection."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from mqtt_agent import Agent, TaskContext, ToolClient, ToolServer
from mqtt_agent.errors import ConnectionLost, ToolUnavailable
from support import soon, until

from .conftest import MakeAgent

PROGRAM = Path(__file__).parents[1] / "programs" / "tool_agent.py"

RUN_ON = ALL_BROKERS


def make_toolbox(namespace: str, **options: str) -> ToolServer:
    server = ToolServer("toolbox", namespace=namespace, **options)  # type: ignore[arg-type]
    server.add_tool("add", lambda a, b: a + b, input_schema={"properties": {"a": {}, "b": {}}})
    return server


async def test_an_agent_serves_tools_before_and_after_its_start(
    make_agent: MakeAgent, namespace: str, broker: Broker
) -> None:
    host = make_agent("host")
    await soon(host.serve_tools(make_toolbox(namespace)))
    await soon(host.start())
    late = ToolServer("late", namespace=namespace)
    late.add_tool("one", lambda: 1)
    await soon(host.serve_tools(late))
    async with ToolClient("caller", broker=broker.url, namespace=namespace) as client:
        assert await soon(client.call("add", {"a": 1, "b": 2}, wait_online=True)) == 3
        assert await soon(client.call("one", wait_online=True)) == 1
        assert {card.agent for card in await client.list_servers()} == {"host"}
        await soon(host.stop())
        await until(lambda: not client._catalog.is_online("add"))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ToolUnavailable):
            await soon(client.call("add", {"a": 1, "b": 2}))


async def test_an_agent_calls_tools_under_its_own_name_over_its_own_socket(
    make_agent: MakeAgent, namespace: str
) -> None:
    host, planner = make_agent("host"), make_agent("planner")
    await soon(host.serve_tools(make_toolbox(namespace)))
    with pytest.raises(ConnectionLost, match="not started"):
        await planner.tool_client.call("add", {"a": 1, "b": 2})
    await soon(host.start())
    await soon(planner.start())
    assert planner.tool_client.agent_id == "planner"
    assert planner.tool_client.connection is planner.connection
    assert await soon(planner.tool_client.call("add", {"a": 1, "b": 2}, wait_online=True)) == 3

    @host.on_task
    async def handle(task: TaskContext) -> object:
        return await host.tool_client.call("add", {"a": 3, "b": 4})

    assert await soon(planner.request("host")) == 7
    await soon(planner.stop())
    await soon(planner.start())
    assert await soon(planner.tool_client.call("add", {"a": 5, "b": 6}, wait_online=True)) == 11


@pytest.mark.rule("SCARD-4")
async def test_the_tools_of_a_killed_agent_are_offline_when_its_status_is(broker: Broker, namespace: str) -> None:
    process = subprocess.Popen([sys.executable, str(PROGRAM), broker.url, namespace, "1"])
    try:
        async with ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            changes = client.watch_tools()

            async def becomes(kind: str) -> None:
                async for change in changes:
                    if change.kind == kind:
                        return

            assert await soon(client.call("pid", wait_online=True)) == process.pid
            process.send_signal(signal.SIGKILL)
            await soon(becomes("offline"), 20)
            with pytest.raises(ToolUnavailable, match="offline"):
                await soon(client.call("pid"))
        async with ToolClient("other", broker=broker.url, namespace=namespace) as client:
            assert await soon(client.list_tools()) == []
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, 10)


async def test_a_server_can_move_to_an_agent_only_before_it_starts(
    make_agent: MakeAgent, namespace: str, mosquitto: Mosquitto
) -> None:
    agent: Agent = make_agent("host")
    async with ToolServer("busy", broker=mosquitto.url, namespace=namespace) as busy:
        with pytest.raises(RuntimeError, match="started already"):
            await agent.serve_tools(busy)
    with pytest.raises(ValueError, match="namespace"):
        await agent.serve_tools(ToolServer("other", namespace="other/v1"))
