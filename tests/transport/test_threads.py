"""A program whose blocking code has taken every thread of the event loop still connects and reconnects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from brokers import Embedded
from mqtt_agent import Connection, ToolServer, sync
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.transport import BrokerSettings
from proxy import Proxy
from support import soon


@pytest.fixture
async def no_free_thread() -> AsyncIterator[threading.Event]:
    """Blocks all threads of the loop's default executor until the event is set."""
    go_on, blocked = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))

    def block() -> None:
        loop.call_soon_threadsafe(blocked.set)
        go_on.wait(60)

    blocking = loop.run_in_executor(None, block)
    await soon(blocked.wait())
    yield go_on
    assert not blocking.done()  # else the test has shown nothing
    go_on.set()
    await soon(blocking)


async def test_a_connection_starts_and_comes_back(embedded: Embedded, no_free_thread: threading.Event) -> None:
    back = asyncio.Event()

    async def on_reconnected(session_present: bool) -> None:
        back.set()

    async with Proxy(embedded.url) as proxy:
        connection = Connection(proxy.url)
        connection.on_reconnected.append(on_reconnected)
        await soon(connection.start())
        proxy.drop()
        await soon(back.wait())
        await soon(connection.stop())


async def test_a_blocking_client_starts_at_its_first_use(
    embedded: Embedded, namespace: str, no_free_thread: threading.Event
) -> None:
    async def names(client: Any) -> list[str]:
        return [card.tool for card in await client.list_tools()]

    server = ToolServer("server", broker=embedded.url, namespace=namespace)
    server.add_tool("one", lambda: 1)
    client = sync.ToolClient(broker=embedded.url, namespace=namespace)
    try:
        async with server:
            assert await soon(client.await_on_loop(names)) == ["one"]
    finally:
        await soon(asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), client.stop))


async def test_a_requester_closes(embedded: Embedded, namespace: str, no_free_thread: threading.Event) -> None:
    async def connected(agent: Any) -> bool:
        return agent.connection.connected

    requester = Requester(RequesterSettings(BrokerSettings(embedded.url, namespace)))
    assert await soon(requester.await_on_loop(connected))
    await soon(requester.aclose())
