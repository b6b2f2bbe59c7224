"""Peers that use the reference implementation, together with ours, on Mosquitto."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import ToolClient, ToolServer
from node import Node
from support import soon

from .reference import HERE, Peer, ReferenceClient, ReferenceServer

MakeReferenceServer = Callable[..., ReferenceServer]
StartReferenceServer = Callable[..., Awaitable[ReferenceServer]]
StartReferenceClient = Callable[..., Awaitable[ReferenceClient]]
MakeServer = Callable[..., ToolServer]
StartClient = Callable[..., Awaitable[ToolClient]]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if missing := Node.missing():
        terminalreporter.write_line(f"Left out: the tests with the reference peer, {missing} is not installed.")


@pytest.fixture(scope="session")
def _installed() -> None:
    Node.require(HERE, "the reference peer")


@pytest.fixture
async def _peers(_installed: None) -> AsyncIterator[list[Peer]]:
    started: list[Peer] = []
    yield started
    for peer in started:
        await peer.kill()


@pytest.fixture
def make_reference_server(mosquitto: Mosquitto, namespace: str, _peers: list[Peer]) -> MakeReferenceServer:
    """Makes tool servers that use the reference SDK; the test starts them."""

    def make(name: str = "reference", *tools: str, namespace: str = namespace) -> ReferenceServer:
        server = ReferenceServer(mosquitto.url, namespace, name, *tools)
        _peers.append(server)
        return server

    return make


@pytest.fixture
def start_reference_server(make_reference_server: MakeReferenceServer) -> StartReferenceServer:
    """Starts tool servers that use the reference SDK, and waits until they are ready."""

    async def start(*args: Any, **options: Any) -> ReferenceServer:
        server = make_reference_server(*args, **options)
        await server.start()
        return server

    return start


@pytest.fixture
def start_reference_client(mosquitto: Mosquitto, namespace: str, _peers: list[Peer]) -> StartReferenceClient:
    """Starts clients that use the reference SDK."""

    async def start(name: str = "node-client", *, namespace: str = namespace) -> ReferenceClient:
        client = ReferenceClient(mosquitto.url, namespace, name)
        _peers.append(client)
        await client.start()
        return client

    return start


@pytest.fixture
async def make_server(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[MakeServer]:
    """Makes our servers; the test starts them, and the fixture stops them."""
    made: list[ToolServer] = []

    def make(name: str = "ours", **options: Any) -> ToolServer:
        server = ToolServer(name, broker=mosquitto.url, namespace=namespace, will_delay=1, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        await soon(server.stop(), 20)


@pytest.fixture
async def start_client(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[StartClient]:
    """Starts our clients."""
    made: list[ToolClient] = []

    async def start(name: str | None = None) -> ToolClient:
        client = ToolClient(name, broker=mosquitto.url, namespace=namespace)
        made.append(client)
        await soon(client.start())
        return client

    yield start
    for client in made:
        await soon(client.stop(), 20)
