"""The promises of docs/guarantees.md that the fault tests do not check."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker, Mosquitto
from brokers.rough import NETWORKS, networks_of, rows
from mqtt_agent import CallHandle, Connection, ToolClient
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.transport.packets import PUBLISH
from packets import Packet, PacketProxy
from proxy import Proxy
from support import kill, soon, until

from ..tools.conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "programs" / "tool_server.py"
MANY = 30  # more than the 16 that may stay unacknowledged
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(namespace: str) -> Iterator[Spawn]:
    """Starts servers in their own processes."""
    started: list[subprocess.Popen[bytes]] = []

    def start(url: str, replica: str = "", will_delay: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROGRAM), url, namespace, replica, str(will_delay)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        kill(process)


async def submitted(client: ToolClient, tool: str, count: int, **arguments: Any) -> list[CallHandle]:
    """Make calls that have begun, and that run, by default, for longer than any test."""
    arguments = arguments or {"seconds": 3600}
    changes = client.watch_tools()
    while tool not in [card.tool for card in await soon(client.list_tools())]:
        await soon(anext(changes), 20)  # the server card alone does not say that the tool streams
    handles = [await soon(client.submit(tool, arguments, timeout=600)) for _ in range(count)]
    for handle in handles:
        await soon(anext(handle.partials()))
    return handles


async def acknowledged_early(proxy: PacketProxy, tool: str) -> None:
    """Wait until the server behind a proxy has acknowledged the oldest calls, of which it has answered none."""

    def count() -> int:
        packets = [each for each in proxy.passed if isinstance(each, Packet) and each.kind == PUBLISH]
        calls = [each for each in packets if not each.up and f"/tools/{tool}/call" in each.topic]
        return len({each.mid for each in calls if proxy.puback(each)})

    await until(lambda: count() >= MANY - 16, 20)


async def lost(handles: list[CallHandle], broker: Broker) -> None:
    """The calls end when their server's Last Will comes, which is at the end of its session.

    A caller that has just reconnected waits up to 15 s longer, because the server may come back too.
    """
    seconds = 20 if broker.ends_sessions else 40
    for handle in handles:
        with pytest.raises(ToolUnavailable) as caught:
            await soon(handle.result(), seconds)
        assert caught.value.maybe_executed


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_each_row_of_the_page_has_a_test_behind_each_bad_network() -> None:
    """tests/conftest.py runs the tests that the page names behind the networks of tests/brokers/rough.py."""
    found = rows()
    assert len(found) > 35
    assert [row for row, tests in found.items() if not tests] == []
    behind = {row: {*itertools.chain.from_iterable(map(networks_of, tests))} for row, tests in found.items()}
    assert {row: networks for row, networks in behind.items() if networks != {*NETWORKS}} == {}


async def test_the_only_replica_is_killed(broker: Broker, spawn: Spawn, make_client: MakeClient) -> None:
    process = spawn(broker.url)
    client = await make_client()
    handles = [*await submitted(client, "slow", 1), *await submitted(client, "slow_but_repeatable", 1)]
    process.kill()
    await lost(handles, broker)


async def test_the_callers_network_is_away_for_longer_than_its_session(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    go_on = asyncio.Event()
    runs: list[str] = []

    async def work(n: str) -> str:
        runs.append(n)
        await go_on.wait()
        return n

    server.add_tool("once", work)
    server.add_tool("repeatable", work, idempotent=True)
    await soon(server.start())
    async with Proxy(broker.url) as proxy:
        client = await make_client(connection=Connection(proxy.url, session_expiry=1, will_delay=0))
        sessions: list[bool] = []

        async def on_reconnected(session_present: bool) -> None:
            sessions.append(session_present)

        client.connection.on_reconnected.append(on_reconnected)
        handles = [await soon(client.submit(tool, {"n": tool})) for tool in ("once", "repeatable")]
        await until(lambda: len(runs) == 2)
        await proxy.cut()
        go_on.set()
        await asyncio.sleep(2.5)  # the session ends, and no event announces this
        await proxy.mend()
        assert [await soon(handle.result(), 20) for handle in handles] == ["once", "repeatable"]
        await until(lambda: sessions)
        assert sessions == [False] or not broker.ends_sessions
        await soon(client.stop())
    assert sorted(runs) == ["once", "repeatable"]


async def test_calls_acknowledged_early_survive_a_cut_network(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    go_on = asyncio.Event()
    runs: list[int] = []

    async def work(n: int) -> int:
        runs.append(n)
        await go_on.wait()
        return n

    async with PacketProxy(broker.url) as proxy:
        server = make_server(broker=proxy.url, will_delay=20)
        server.add_tool("work", work)
        await soon(server.start())
        client = await make_client()
        handles = [await soon(client.submit("work", {"n": n})) for n in range(MANY)]
        await until(lambda: len(runs) == MANY)
        await acknowledged_early(proxy, "work")
        epoch = server.connection.epoch
        proxy.drop()
        await until(lambda: server.connection.epoch > epoch and server.connection.connected)
        go_on.set()
        assert [await soon(handle.result(), 20) for handle in handles] == list(range(MANY))
        assert len(runs) == MANY
        await soon(server.stop(), 20)


@pytest.mark.rule("CALL-14")
async def test_calls_acknowledged_early_are_lost_with_their_process(
    broker: Broker, spawn: Spawn, make_client: MakeClient
) -> None:
    async with PacketProxy(broker.url) as proxy:
        process = spawn(proxy.url)
        client = await make_client()
        handles = await submitted(client, "slow", MANY)
        await acknowledged_early(proxy, "slow")
        process.kill()
        await lost(handles, broker)


@pytest.mark.rule("LATE-6")
async def test_a_named_replica_that_comes_back_at_once_has_its_early_calls_told(
    mosquitto: Mosquitto, spawn: Spawn, namespace: str
) -> None:
    async with PacketProxy(mosquitto.url) as proxy, ToolClient(broker=mosquitto.url, namespace=namespace) as client:
        first = spawn(proxy.url, "fixed", will_delay=60)
        handles = await submitted(client, "slow", MANY)
        await acknowledged_early(proxy, "slow")
        first.kill()
        first.wait(10)
        spawn(mosquitto.url, "fixed", will_delay=60)
        await lost(handles[: MANY - 16], mosquitto)
        for handle in handles[-8:]:  # at least these calls were not acknowledged, and run again
            assert not handle.done


@pytest.mark.rule("LATE-6")
async def test_repeatable_calls_that_were_acknowledged_early_are_sent_to_the_new_process(
    mosquitto: Mosquitto, spawn: Spawn, namespace: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with PacketProxy(mosquitto.url) as proxy, ToolClient(broker=mosquitto.url, namespace=namespace) as client:
        first = spawn(proxy.url, "fixed", will_delay=60)
        handles = await submitted(client, "gated", MANY, gate=str(gate))
        await acknowledged_early(proxy, "gated")
        first.kill()
        first.wait(10)
        gate.touch()
        second = spawn(mosquitto.url, "fixed", will_delay=60)
        assert {await soon(handle.result(), 20) for handle in handles} == {second.pid}
