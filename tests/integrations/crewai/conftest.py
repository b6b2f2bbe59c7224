"""The environment of a crew: no telemetry, its own home folder, a tool server and a toolkit at the same broker."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from brokers import Embedded
from mqtt_agent import ToolContext, ToolError
from mqtt_agent.sync import ToolServer

if TYPE_CHECKING:
    from crewai_mqtt_agent import MQTTToolkit

_home = tempfile.TemporaryDirectory(prefix="mqtt-agent-crewai-")
QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_STORAGE_DIR": _home.name,
    "CREWAI_TRACING_ENABLED": "false",
    "HOME": _home.name,
    "OTEL_SDK_DISABLED": "true",
}
os.environ.update(QUIET)  # before anything imports crewai

REFUSED: list[Any] = []
"""The addresses on other machines that code of the test tried to reach."""


def refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no socket of this process can reach another machine, whichever code or thread opens it."""
    if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        return
    address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    if event != "socket.getaddrinfo" and not isinstance(address, tuple):
        return  # a Unix socket
    if host in (None, "", b"", "localhost", "::1") or str(host).startswith("127."):
        return
    REFUSED.append(address)
    raise ConnectionRefusedError(f"tests reach no other machine, and so not {address}")


sys.addaudithook(refuse_the_network)


@pytest.fixture(autouse=True)
def offline() -> Iterator[None]:
    """Fails a test in which any code tried to reach another machine."""
    REFUSED.clear()
    yield
    assert REFUSED == []


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:crewai")


class Toolbox(ToolServer):
    """A tool server with the tools of all tests."""

    def __init__(self, broker: str, namespace: str) -> None:
        super().__init__("toolbox", broker=broker, namespace=namespace, replica="only", will_delay=1)
        self.seen: list[dict[str, Any]] = []
        self.counted = 0
        self.add_tool("add", self.add, read_only=True)
        self.add_tool("greet", self.greet)
        self.add_tool("count", self.count)
        self.add_tool("fail", self.fail)
        self.add_tool("hang", self.hang)
        self.add_tool("echo", self.echo, description="Gives back what it got", input_schema=ECHO)
        for name in ("getForecast", "get forecast", "get_forecast"):
            self.add_tool(name, self.greet)

    async def add(self, a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        self.counted += 1
        return {"sum": a + b}

    def greet(self, name: str) -> str:
        """Say hello."""
        self.counted += 1
        return f"Hello {name}"

    async def count(self, to: int, ctx: ToolContext) -> dict[str, int]:
        """Count up."""
        for number in range(1, to + 1):
            await ctx.progress(number, total=to)
        return {"counted": to}

    async def fail(self, retryable: bool = False) -> None:
        """Never works."""
        raise ToolError("no luck today", code="E_LUCK", retryable=retryable)

    async def hang(self) -> None:
        """Never ends."""
        await asyncio.Event().wait()

    async def echo(self, everything: dict[str, Any]) -> dict[str, Any]:
        """Give back what it got."""
        self.seen.append(everything)
        return everything


AWKWARD = (
    *("_id", "self", "class", "copy", "model_config", "content-type", "args", "kwargs", "arguments", "name", "tool"),
    *("caller", "client", "timeout", "on_partial", "card", "call_id", "told_schema", "nullable", "model_json_schema"),
)
"""Names that parameters and attributes on the way to a tool have too."""
ECHO: dict[str, Any] = {
    "type": "object",
    "properties": {
        "must": {"type": "string", "description": "always given"},
        "day": {"type": "string", "format": "date", "default": date(2026, 1, 2).isoformat()},
        "limit": {"type": "integer", "default": 5},
        "note": {"type": ["string", "null"]},
        "place": {"$ref": "#/definitions/place"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "text": {"type": "string"},
        **{name: {"type": "string"} for name in AWKWARD},
    },
    "required": ["must"],
    "definitions": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
    "additionalProperties": False,
}


@pytest.fixture
def toolbox(embedded: Embedded, namespace: str) -> Iterator[Toolbox]:
    with Toolbox(embedded.url, namespace) as server:
        yield server


@pytest.fixture
def toolkit(embedded: Embedded, namespace: str, toolbox: Toolbox) -> Iterator[MQTTToolkit]:
    from crewai_mqtt_agent import MQTTToolkit

    with MQTTToolkit(embedded.url, namespace=namespace, agent_id="agent-a", timeout=10) as toolkit:
        yield toolkit
