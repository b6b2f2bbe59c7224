"""Our endpoints, and independent peers that follow only docs/wire-format.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from brokers import Broker
from packets import PacketProxy
from support import soon

from ..agents.conftest import make_agent
from ..tools.conftest import make_client, make_server
from .stranger import Stranger, StrangeServer

__all__ = ["make_agent", "make_client", "make_server"]

StartStrangeServer = Callable[..., Awaitable[StrangeServer]]


@pytest.fixture
async def stranger(broker: Broker, namespace: str) -> AsyncIterator[Stranger]:
    """A caller that does not use our code."""
    peer = Stranger(broker.url, namespace, "stranger")
    await soon(peer.start())
    yield peer
    await soon(peer.stop())


@pytest.fixture
async def strange_server(broker: Broker, namespace: str) -> AsyncIterator[StrangeServer]:
    """A tool server without our code, with the tool ``strange``; the test publishes its cards and answers its calls."""
    server = StrangeServer(broker.url, namespace, "odd")
    await soon(server.start())
    yield server
    await soon(server.stop())


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[PacketProxy]:
    """The network of our endpoint. The peers, which do not use our code, connect to the broker directly."""
    async with PacketProxy(broker.url) as proxy:
        yield proxy
