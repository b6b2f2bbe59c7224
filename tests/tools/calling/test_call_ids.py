"""Call ids: the same call twice shares one execution and one result; another call with the id is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import ToolContext, ToolServer
from mqtt_agent.errors import CallCanceled, CallTimeout, InvalidArguments
from mqtt_agent.tools import CallQuestion
from support import soon, until

from ..conftest import MakeClient, MakeServer

RUN_ON = [Mosquitto]


class Gate:
    """A server with two tools that count their runs and wait for the gate."""

    def __init__(self, server: ToolServer) -> None:
        self.ran: list[Any] = []
        self.canceled = 0
        self.open = asyncio.Event()
        schema = {"type": "object"}
        server.add_tool("one", self._handle, input_schema=schema)
        server.add_tool("two", lambda arguments: {"two": arguments}, input_schema=schema)

    async def _handle(self, arguments: Any) -> Any:
        self.ran.append(arguments)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        return {"one": arguments}


@pytest.fixture
async def gate(make_server: MakeServer) -> Gate:
    server = make_server()
    made = Gate(server)
    await soon(server.start())
    return made


@pytest.mark.rule("CALL-17")
async def test_an_id_in_use_is_refused_for_another_tool_or_other_arguments(gate: Gate, make_client: MakeClient) -> None:
    client = await make_client()
    first = await soon(client.submit("one", {"a": [1, {"b": 2}]}, call_id="x"))
    for tool, arguments, why in (
        ("two", {"a": [1, {"b": 2}]}, "another tool"),
        ("one", {"a": [1, {"b": 3}]}, "the arguments differ"),
        ("one", {"a": [True, {"b": 2}]}, "the arguments differ"),
        ("one", {"a": [1.0, {"b": 2}]}, "the arguments differ"),
        ("one", None, "the arguments differ"),
    ):
        with pytest.raises(InvalidArguments, match=f"call id 'x'.*{why}.*choose another"):
            await soon(client.call(tool, arguments, call_id="x"))
    gate.open.set()
    assert await soon(first.result()) == {"one": {"a": [1, {"b": 2}]}}
    assert len(gate.ran) == 1


@pytest.mark.rule("CALL-10")
async def test_the_same_call_shares_the_result_and_each_caller_has_its_own_timeout(
    gate: Gate, make_client: MakeClient
) -> None:
    client = await make_client()
    long = asyncio.ensure_future(client.call("one", {"a": 1, "b": 2}, call_id="x", timeout=20))
    await until(lambda: gate.ran)
    with pytest.raises(CallTimeout, match=r"0\.05 s"):
        await soon(client.call("one", {"b": 2, "a": 1}, call_id="x", timeout=0.05))
    third = await soon(client.submit("one", {"a": 1, "b": 2}, call_id="x"))
    gate.open.set()
    assert await soon(long) == {"one": {"a": 1, "b": 2}}
    assert await soon(third.result()) == {"one": {"a": 1, "b": 2}}
    assert len(gate.ran) == 1
    assert gate.canceled == 0


async def test_the_first_caller_may_time_out_while_the_second_waits(gate: Gate, make_client: MakeClient) -> None:
    client = await make_client()
    first = asyncio.ensure_future(client.call("one", call_id="x", timeout=0.5))
    await until(lambda: gate.ran)
    second = await soon(client.submit("one", call_id="x"))
    with pytest.raises(CallTimeout):
        await soon(first)
    assert not second.done
    gate.open.set()
    assert await soon(second.result()) == {"one": {}}


async def test_a_call_that_its_servers_dropped_is_sent_again_for_the_caller_that_waits_longer(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    servers = [make_server("server", replica=replica, max_concurrency=1) for replica in "ab"]
    gates = [Gate(server) for server in servers]
    for server in servers:
        await soon(server.start())
    client = await make_client()
    before = [await soon(client.submit("one", {"n": number})) for number in range(10)]
    await until(lambda: all(gate.ran for gate in gates))
    first = asyncio.ensure_future(client.call("one", {"n": 10}, call_id="x", timeout=0.5))
    await until(lambda: len(client._calls.under_way()) == 11)  # pyright: ignore[reportPrivateUsage]
    second = await soon(client.submit("one", {"n": 10}, call_id="x", timeout=20))
    with pytest.raises(CallTimeout):
        await soon(first)
    await until(lambda: sum(server.active_calls for server in servers) == 10)
    for gate in gates:
        gate.open.set()
    assert await soon(second.result()) == {"one": {"n": 10}}
    for handle in before:
        await soon(handle.result())
    assert [ran["n"] for gate in gates for ran in gate.ran].count(10) == 1


async def test_a_call_that_runs_is_not_sent_again_when_its_first_caller_stops_waiting(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    servers = [make_server("server", replica=replica) for replica in "ab"]
    gates = [Gate(server) for server in servers]
    for server in servers:
        await soon(server.start())
    client = await make_client()
    first = asyncio.ensure_future(client.call("one", call_id="x", timeout=1))
    await until(lambda: gates[0].ran or gates[1].ran)
    second = await soon(client.submit("one", call_id="x", timeout=20))
    (pending,) = client._calls.under_way()  # pyright: ignore[reportPrivateUsage]
    sent = pending.confirmed
    with pytest.raises(CallTimeout):
        await soon(first)
    await until(lambda: pending.expiry is None)
    await soon(client.list_tools())
    for gate in gates:
        gate.open.set()
    assert await soon(second.result()) == {"one": {}}
    assert pending.confirmed is sent
    assert sum(len(gate.ran) for gate in gates) == 1


@pytest.mark.parametrize("canceled", [0, 1])
async def test_canceling_one_caller_does_not_cancel_the_other(
    canceled: int, gate: Gate, make_client: MakeClient
) -> None:
    client = await make_client()
    callers = [asyncio.ensure_future(client.call("one", call_id="x")) for _ in range(2)]
    await until(lambda: gate.ran)
    callers[canceled].cancel()
    await asyncio.wait([callers[canceled]])
    gate.open.set()
    assert await soon(callers[1 - canceled]) == {"one": {}}
    assert (len(gate.ran), gate.canceled) == (1, 0)


async def test_the_last_caller_that_cancels_cancels_the_call(gate: Gate, make_client: MakeClient) -> None:
    client = await make_client()
    handles = [await soon(client.submit("one", call_id="x")) for _ in range(3)]
    await until(lambda: gate.ran)
    for handle in handles:
        assert gate.canceled == 0
        await handle.cancel()
        with pytest.raises(CallCanceled):
            await soon(handle.result())
    await until(lambda: gate.canceled)
    assert client._calls.under_way() == []  # pyright: ignore[reportPrivateUsage]


@pytest.mark.rule("CALL-17")
@pytest.mark.parametrize("text", ["short", "long" * 1000])
async def test_a_server_refuses_an_id_that_its_caller_has_used_for_another_call(
    text: str, gate: Gate, make_client: MakeClient
) -> None:
    one, again, stranger = await make_client("same"), await make_client("same"), await make_client("stranger")
    gate.open.set()
    asked = {"a": 1, "b": text}
    assert await soon(one.call("one", asked, call_id="x")) == {"one": asked}
    for client in (one, again):
        assert await soon(client.call("one", {"b": text, "a": 1}, call_id="x")) == {"one": asked}
        for tool, arguments in (("two", asked), ("one", asked | {"a": 2}), ("one", asked | {"a": True})):
            with pytest.raises(InvalidArguments, match="call id 'x' for another tool or for other arguments"):
                await soon(client.call(tool, arguments, call_id="x"))
    assert await soon(stranger.call("two", {"a": 3}, call_id="x")) == {"two": {"a": 3}}
    assert gate.ran == [asked]


async def test_a_running_call_goes_on_when_its_id_is_used_by_another_process(
    gate: Gate, make_client: MakeClient
) -> None:
    one, again = await make_client("same"), await make_client("same")
    first = asyncio.ensure_future(one.call("one", {"a": 1}, call_id="x"))
    await until(lambda: gate.ran)
    joined = asyncio.ensure_future(again.call("one", {"a": 1}, call_id="x"))
    gate.open.set()
    assert await soon(asyncio.gather(first, joined)) == [{"one": {"a": 1}}] * 2
    assert gate.ran == [{"a": 1}]


async def test_a_caller_that_joins_a_call_is_asked_what_its_tool_has_asked_before(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, asked = make_server("server"), asyncio.Event()

    @server.tool
    async def paint(ctx: ToolContext) -> str:
        return await ctx.ask("Which color?")

    async def think(question: CallQuestion) -> None:
        asked.set()
        await asyncio.Event().wait()

    await soon(server.start())
    client = await make_client()
    first = await soon(client.submit("paint", call_id="x", wait_online=True, on_question=think))
    await soon(asked.wait())
    second = await soon(client.submit("paint", call_id="x", on_question=lambda question: f"{question.prompt} Red."))
    assert await soon(second.result()) == await soon(first.result()) == "Which color? Red."
