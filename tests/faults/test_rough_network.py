"""Calls and tasks over a network whose faults the test chooses: single bytes, and breaks after a known byte.

The tests that docs/guarantees.md names also run behind the networks of tests/brokers/rough.py, which break at random.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent import Agent, Connection, SqliteStore, ToolClient, ToolServer
from proxy import Proxy
from support import becomes, soon, until

pytestmark = pytest.mark.long

CALLS = 60


# Calls over one network that a test breaks within a packet


class Pair:
    """A client and its only server, each behind a proxy of its own."""

    def __init__(self, client: ToolClient, near_client: Proxy, near_server: Proxy) -> None:
        self.client = client
        self.near_client = near_client
        self.near_server = near_server
        self.runs: Counter[int] = Counter()

    async def work(self, count: int) -> None:
        """Make calls, at most ten at once, and check that each has its own result."""
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                assert await self.client.call("square", {"number": number}, timeout=50) == number**2

        await soon(asyncio.gather(*(caller() for _ in range(10))), 60)
        assert self.runs == dict.fromkeys(range(count), 1)


@pytest.fixture
async def pair(broker: Broker, namespace: str) -> AsyncIterator[Pair]:
    async with Proxy(broker.url) as near_client, Proxy(broker.url) as near_server:

        def connect(url: str, name: str) -> Connection:
            return Connection(url, client_id=name, keep_alive=1, session_expiry=30, will_delay=20)

        server = ToolServer("server", namespace=namespace, connection=connect(near_server.url, "server"))
        connection = connect(near_client.url, "caller")
        client = ToolClient("caller", namespace=namespace, connection=connection)
        pair = Pair(client, near_client, near_server)

        async def square(number: int) -> int:
            pair.runs[number] += 1
            await asyncio.sleep(0)
            return number**2

        server.add_tool("square", square)
        async with server, client:
            await becomes(client.list_tools)
            yield pair


async def test_calls_arrive_byte_by_byte(pair: Pair) -> None:
    pair.near_client.piece = pair.near_server.piece = 1
    await pair.work(20)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_the_connection_is_reset_within_a_packet(pair: Pair, side: str, up: bool) -> None:
    proxy = pair.near_client if side == "client" else pair.near_server
    work = asyncio.ensure_future(pair.work(CALLS))
    for _ in range(3):
        before = proxy.connections
        proxy.reset_after(random.randint(1, 1500), up=up)
        await until(lambda: proxy.connections > before or work.done(), 30)  # noqa: B023
    await work


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("side", ["client", "server"])
async def test_everything_after_a_byte_is_lost_and_nobody_notices(pair: Pair, side: str, up: bool) -> None:
    proxy = pair.near_client if side == "client" else pair.near_server
    connection = pair.client.connection
    before = proxy.connections
    proxy.lose_after(random.randint(1, 4000), up=up)
    work = asyncio.ensure_future(pair.work(CALLS))
    await until(lambda: proxy.connections > before, 20)  # keep alive has noticed it, and a new connection is tried
    proxy.find_again()
    await work
    assert connection.connected


# Tasks


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("side", ["boss", "worker"])
async def test_tasks_over_a_network_that_resets_within_packets(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path, side: str, up: bool
) -> None:
    async with Proxy(mosquitto.url) as near_boss, Proxy(mosquitto.url) as near_worker:
        worker = Agent("worker", broker=near_worker.url, namespace=namespace, store=SqliteStore(tmp_path / "worker"))
        boss = Agent("boss", broker=near_boss.url, namespace=namespace, store=SqliteStore(tmp_path / "boss"))

        @worker.on_task
        async def work(task: Any) -> str:
            return task.prompt.upper()

        proxy = near_boss if side == "boss" else near_worker
        async with worker, boss:
            await becomes(boss.peers)
            near_boss.piece = near_worker.piece = 100
            requests = asyncio.gather(*(boss.request("worker", f"task {number}") for number in range(20)))
            for _ in range(3):
                before = proxy.connections
                proxy.reset_after(random.randint(1, 3000), up=up)
                await until(lambda: proxy.connections > before or requests.done(), 30)  # noqa: B023
            assert await soon(requests, 50) == [f"TASK {number}" for number in range(20)]
