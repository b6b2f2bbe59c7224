"""Calls of an earlier process that a new process with the same id makes again: a server that has a call keeps it."""

from __future__ import annotations

import pytest
from brokers import Mosquitto
from mqtt_agent import ToolContext, ToolServer
from support import becomes, soon, until

from ..conftest import MakeClient, MakeServer
from .test_call_ids import Gate

RUN_ON = [Mosquitto]
ID = "lg-1"


async def replicas(make_server: MakeServer, make_client: MakeClient) -> list[Gate]:
    """Three replicas of one tool. The broker gives each new call to another replica."""
    servers: list[ToolServer] = [make_server("gate", replica=replica) for replica in "abc"]
    gates = [Gate(server) for server in servers]
    client = await make_client("watcher")
    for server in servers:
        await soon(server.start())

    async def all_there() -> bool:
        return len(await client.list_servers()) == 3

    await becomes(all_there)
    return gates


def ran(gates: list[Gate]) -> int:
    return sum(len(gate.ran) for gate in gates)


@pytest.mark.rule("LOST-7")
async def test_a_call_that_runs_at_a_replica_is_found_and_not_sent_again(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gates = await replicas(make_server, make_client)
    before, after = await make_client("caller"), await make_client("caller")
    await soon(before.submit("one", {"n": 1}, call_id=ID))
    await until(lambda: ran(gates) == 1)
    found = await soon(after.submit("one", {"n": 1}, call_id=ID, resume=True))
    await until(lambda: found.server is not None)
    for gate in gates:
        gate.open.set()
    assert await soon(found.result()) == {"one": {"n": 1}}
    assert ran(gates) == 1


@pytest.mark.rule("LOST-7")
async def test_a_call_that_is_over_is_found_by_its_kept_answer(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    gates = await replicas(make_server, make_client)
    for gate in gates:
        gate.open.set()
    for number in range(4):  # whichever replica has run the call
        client = await make_client("caller")
        handle = await soon(client.submit("one", {"n": 1}, call_id=ID, resume=number > 0))
        assert await soon(handle.result()) == {"one": {"n": 1}}
    assert ran(gates) == 1


@pytest.mark.rule("LOST-7")
async def test_a_call_that_nobody_has_is_sent(make_server: MakeServer, make_client: MakeClient) -> None:
    gates = await replicas(make_server, make_client)
    for gate in gates:
        gate.open.set()
    client = await make_client("caller")
    handles = [await soon(client.submit("one", {"n": n}, call_id=f"{n}", resume=True)) for n in range(9)]
    assert [await soon(handle.result()) for handle in handles] == [{"one": {"n": n}} for n in range(9)]
    assert ran(gates) == 9


async def test_a_call_that_is_made_again_in_the_moment_of_its_result_gets_the_result_too(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("reader")

    @server.tool
    async def read(n: int, ctx: ToolContext) -> int:
        return n

    await soon(server.start())
    client = await make_client("caller")
    assert await soon(client.call("read", {"n": 1}, call_id=ID, wait_online=True)) == 1
    for _ in range(6):
        handle = await soon(client.submit("read", {"n": 1}, call_id=ID, resume=True))
        assert await soon(handle.result()) == 1
