"""A tool server, and AutoGen objects that are connected to it."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from autogen_mqtt_agent import MQTTWorkbench
from brokers import Embedded, Mosquitto
from mqtt_agent import ToolContext, ToolError, ToolResult, ToolServer
from PIL import Image as PILImage
from support import soon

from .processes import HostProcess


class Toolbox(ToolServer):
    """A tool server with the tools of all tests."""

    def __init__(self, broker: str, namespace: str) -> None:
        super().__init__("toolbox", broker=broker, namespace=namespace, replica="only", will_delay=1)
        self.canceled: list[str] = []
        self.running = asyncio.Event()
        for handler in (self.add, self.greet, self.count, self.fail, self.hang, self.picture, self.enlarge):
            tags = ["numbers"] if handler in (self.add, self.count) else []
            self.add_tool(handler.__name__, handler, meta={"tags": tags})
        self.add_tool("dotted.name", self.greet, input_schema={"type": "object"})

    async def add(self, a: int, b: int | None = None) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + (b or 0)}

    async def greet(self, name: str = "you") -> str:
        """Say hello."""
        return f"Hello {name}"

    async def count(self, to: int, ctx: ToolContext) -> int:
        """Count up."""
        for number in range(1, to + 1):
            await ctx.stream(str(number))
        return to

    async def fail(self) -> None:
        """Never works."""
        raise ToolError("no luck today", code="E_LUCK")

    async def hang(self, ctx: ToolContext) -> None:
        """Never ends."""
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.canceled.append(ctx.call_id)
            raise

    async def picture(self) -> dict[str, Any]:
        """A text and a picture, in MCP's form."""
        image = {"type": "image", "data": red_dot(), "mimeType": "image/png"}
        return {"content": [{"type": "text", "text": "a dot"}, image]}

    async def enlarge(self, picture: str, by: int) -> ToolResult:
        """The same picture, larger: its size for programs, and the picture for a model."""
        with PILImage.open(io.BytesIO(base64.b64decode(picture))) as image:
            size = (image.width * by, image.height * by)
        enlarged = {"type": "image", "data": red_dot(*size), "mimeType": "image/png"}
        note = {"type": "resource", "resource": {"uri": "note://1", "text": "enlarged"}}
        return ToolResult({"size": size}, [note, enlarged, {"type": "resource_link", "uri": "file:///x", "name": "x"}])


def red_dot(width: int = 1, height: int = 1) -> str:
    """A PNG image as base64, of one pixel by default."""
    buffer = io.BytesIO()
    PILImage.new("RGB", (width, height), (255, 0, 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
async def toolbox(embedded: Embedded, namespace: str) -> AsyncIterator[Toolbox]:
    server = Toolbox(embedded.url, namespace)
    async with server:
        yield server


@pytest.fixture
async def workbench(embedded: Embedded, namespace: str, toolbox: Toolbox) -> AsyncIterator[MQTTWorkbench]:
    bench = MQTTWorkbench(embedded.url, "agent-a", namespace=namespace, timeout=5)
    yield bench
    await soon(bench.stop())


@pytest.fixture
def bookings(tmp_path: Path) -> Path:
    """A file with a line for each turn that the clerk has taken: the name of the turn's conversation."""
    return tmp_path / "bookings"


@pytest.fixture
def clerk(mosquitto: Mosquitto, namespace: str, tmp_path: Path, bookings: Path) -> Iterator[HostProcess]:
    """A host whose turns wait at a gate in the test's folder, and are written to ``bookings``."""
    more = {"GATE": str(tmp_path), "BOOKINGS": str(bookings)}
    with HostProcess("make_clerk", "clerk", mosquitto.url, namespace, tmp_path, **more) as host:
        yield host
