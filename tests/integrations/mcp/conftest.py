"""Bridges to MCP servers, and clients that call their tools."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mcp_mqtt_agent import Bridge
from mqtt_agent import ToolClient
from support import becomes, soon

SERVERS = Path(__file__).parent / "servers"
SDK_SERVER = [sys.executable, str(SERVERS / "sdk_server.py")]
ANYTHING = {"type": "object"}
MakeBridge = Callable[..., Awaitable[Bridge]]


class OddServer:
    """The file of tools for ``odd_server.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.command = [sys.executable, str(SERVERS / "odd_server.py"), str(path)]

    def offer(self, *tools: str | dict[str, Any]) -> None:
        full = [{"name": each, "inputSchema": ANYTHING} if isinstance(each, str) else each for each in tools]
        self.path.write_text(json.dumps(full))


@pytest.fixture
def odd(tmp_path: Path) -> OddServer:
    return OddServer(tmp_path / "tools.json")


@pytest.fixture
async def client(mosquitto: Broker, namespace: str) -> AsyncIterator[ToolClient]:
    async with ToolClient("caller", broker=mosquitto.url, namespace=namespace) as client:
        yield client


@pytest.fixture
async def make_bridge(mosquitto: Broker, namespace: str) -> AsyncIterator[MakeBridge]:
    """Starts bridges in the test's namespace, and stops them."""
    made: list[Bridge] = []

    async def make(name: str, server: list[str] | str, **options: Any) -> Bridge:
        bridge = Bridge(name, server, **{"broker": mosquitto.url, "namespace": namespace, "will_delay": 1, **options})
        made.append(bridge)
        await soon(bridge.start(), 60)
        return bridge

    yield make
    for bridge in made:
        await soon(bridge.stop(), 30)


async def shows(client: ToolClient, *tools: str) -> None:
    """Wait until a client finds exactly these tools."""

    async def so() -> bool:
        return [card.tool for card in await client.list_tools()] == sorted(tools)

    await becomes(so, 20)


async def shows_some(client: ToolClient, tool: str) -> None:
    """Wait until a client finds a tool."""

    async def so() -> bool:
        return await client.get_tool(tool) is not None

    await becomes(so, 30)
