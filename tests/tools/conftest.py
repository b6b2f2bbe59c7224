"""Servers and clients for tests of tools."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import ToolClient, ToolServer
from support import kill, soon

PROGRAM = Path(__file__).parents[1] / "programs" / "tool_server.py"
NAMED_PROGRAM = PROGRAM.with_name("named_server.py")
MakeServer = Callable[..., ToolServer]
MakeClient = Callable[..., Awaitable[ToolClient]]
Process = subprocess.Popen[bytes]
Spawn = Callable[..., Process]
SpawnNamed = Callable[..., Process]


@pytest.fixture
async def make_server(broker: Broker, namespace: str) -> AsyncIterator[MakeServer]:
    """Makes servers in the test's namespace; the test starts them, the fixture stops them."""
    made: list[ToolServer] = []

    def make(name: str = "server", **options: Any) -> ToolServer:
        server = ToolServer(name, **{"broker": broker.url, "namespace": namespace, "will_delay": 1, **options})
        made.append(server)
        return server

    yield make
    for server in made:
        await soon(server.stop(), 20)


@pytest.fixture
async def make_client(broker: Broker, namespace: str) -> AsyncIterator[MakeClient]:
    """Makes started clients in the test's namespace."""
    made: list[ToolClient] = []

    async def make(name: str | None = None, **options: Any) -> ToolClient:
        client = ToolClient(name, **{"broker": broker.url, "namespace": namespace, **options})
        made.append(client)
        await soon(client.start())
        return client

    yield make
    for client in made:
        await soon(client.stop(), 20)


@pytest.fixture
def spawn(broker: Broker, namespace: str) -> Iterator[Spawn]:
    """Starts servers in their own processes; see programs/tool_server.py."""
    started: list[subprocess.Popen[bytes]] = []

    def start(replica: str = "", will_delay: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROGRAM), broker.url, namespace, replica, str(will_delay)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        kill(process)


@pytest.fixture
def spawn_named(broker: Broker, namespace: str) -> Iterator[SpawnNamed]:
    """Starts servers in their own processes; see programs/named_server.py."""
    started: list[Process] = []

    def start(name: str, *tools: str, on_conflict: str = "standby", schema: str = "any") -> Process:
        command = [sys.executable, str(NAMED_PROGRAM), broker.url, namespace, name, on_conflict, schema, *tools]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        kill(process)
