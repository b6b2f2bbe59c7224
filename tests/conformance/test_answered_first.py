"""No call is acknowledged before the broker has its answer: the packets come in this order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import ToolError, ToolServer
from mqtt_agent.transport import PublishProperties
from packets import Packet, PacketProxy
from support import soon

from ..tools.conftest import MakeServer
from .stranger import Stranger


class Tool:
    """A tool that waits until the test lets it go, then returns or raises."""

    def __init__(self) -> None:
        self.began, self.go = asyncio.Event(), asyncio.Event()
        self.runs: list[int] = []

    async def run(self, n: int) -> int:
        self.runs.append(n)
        self.began.set()
        await self.go.wait()
        if n < 0:
            raise ToolError("too small")
        return n


@pytest.fixture
def tool() -> Tool:
    return Tool()


@pytest.fixture
async def server(make_server: MakeServer, proxy: PacketProxy, tool: Tool) -> ToolServer:
    server = make_server(broker=proxy.url, drain_timeout=0)
    server.add_tool("work", tool.run)
    await soon(server.start())
    return server


def call_topic(server: ToolServer) -> str:
    return f"{server.namespace}/mcp/tools/work/call"


async def in_promised_order(proxy: PacketProxy, call: Packet, answer: Packet) -> None:
    confirmed, acknowledged = await proxy.acknowledged(answer), await proxy.acknowledged(call)
    assert proxy.in_order(call, answer, confirmed, acknowledged)


@pytest.mark.rule("CALL-13")
@pytest.mark.parametrize("n", [1, -1], ids=["a result", "an error"])
async def test_a_call_is_acknowledged_when_the_broker_has_its_answer_and_not_before(
    n: int, server: ToolServer, tool: Tool, proxy: PacketProxy, stranger: Stranger
) -> None:
    await stranger.call("work", "c-1", arguments={"n": n})
    call = await proxy.publish(call_topic(server), up=False)
    await soon(tool.began.wait())
    await soon(server.connection.publish(f"{server.namespace}/nobody", b""))
    assert proxy.puback(call) is None, "acknowledged before it was answered"
    proxy.hold(up=False)
    tool.go.set()
    answer = await proxy.publish(stranger.inbox, up=True)
    assert await stranger.answer("c-1")
    assert proxy.puback(call) is None, "acknowledged before the broker has confirmed the answer"
    proxy.release()
    await in_promised_order(proxy, call, answer)


REFUSED: list[dict[str, Any]] = [
    {"arguments": {"n": "text"}},
    {"arguments": 7},
    {"client": "a/b"},
    {"response_topic": "elsewhere"},
]


@pytest.mark.rule("CALL-13", "HOST-3")
@pytest.mark.parametrize("fields", REFUSED)
async def test_a_call_that_is_refused_is_acknowledged_after_its_answer_too(
    fields: dict[str, Any], server: ToolServer, tool: Tool, proxy: PacketProxy, stranger: Stranger
) -> None:
    tool.go.set()
    await stranger.call("work", "c-1", **{"arguments": {"n": 1}, **fields})
    call = await proxy.publish(call_topic(server), up=False)
    if "response_topic" in fields:  # the property, which is the caller's inbox, counts
        assert (await stranger.answer("c-1"))["status"] == "ok"
    else:
        assert (await stranger.answer("c-1"))["error"]["type"] == "invalid_arguments"
    await in_promised_order(proxy, call, await proxy.publish(stranger.inbox, up=True))


@pytest.mark.rule("CALL-11", "CALL-13")
async def test_a_repeated_call_gets_its_stored_answer_before_it_is_acknowledged(
    server: ToolServer, tool: Tool, proxy: PacketProxy, stranger: Stranger
) -> None:
    tool.go.set()
    for count in (1, 2):
        await stranger.call("work", "c-1", arguments={"n": 1})
        call = await proxy.publish(call_topic(server), up=False, count=count)
        await in_promised_order(proxy, call, await proxy.publish(stranger.inbox, up=True, count=count))
    assert tool.runs == [1]
    assert [answer["result"] for answer in stranger.answers("c-1")] == [1, 1]


@pytest.mark.rule("CALL-10", "CALL-13")
async def test_a_call_that_arrives_twice_while_it_runs_is_acknowledged_twice_after_its_one_answer(
    server: ToolServer, tool: Tool, proxy: PacketProxy, stranger: Stranger
) -> None:
    calls: list[Packet] = []
    for count in (1, 2):
        await stranger.call("work", "c-1", arguments={"n": 1})
        calls.append(await proxy.publish(call_topic(server), up=False, count=count))
    await soon(server.connection.publish(f"{server.namespace}/nobody", b""))
    assert [proxy.puback(call) for call in calls] == [None, None]
    tool.go.set()
    answer = await proxy.publish(stranger.inbox, up=True)
    for call in calls:
        await in_promised_order(proxy, call, answer)
    assert tool.runs == [1]


@pytest.mark.rule("CALL-10")
async def test_calls_of_two_callers_with_one_id_are_two_calls(
    server: ToolServer, tool: Tool, proxy: PacketProxy, stranger: Stranger
) -> None:
    tool.go.set()
    other = f"{server.namespace}/mcp/clients/other/responses"
    await stranger.call("work", "c-1", arguments={"n": 1})
    await soon(stranger.answer("c-1"))
    call = {"call_id": "c-1", "arguments": {"n": 2}, "client": "other"}
    await stranger.tell("tools/work/call", call, PublishProperties(response_topic=other))
    assert b'"result":2' in (await proxy.publish(other, up=True)).payload
    assert tool.runs == [1, 2]
