"""A tool server, and a toolkit connected to the same broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from brokers import Broker
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import ToolContext, ToolError
from mqtt_agent.sync import ToolServer


class Toolbox(ToolServer):
    """A tool server with the tools of all tests."""

    def __init__(self, broker: str, namespace: str) -> None:
        super().__init__("toolbox", broker=broker, namespace=namespace, replica="only", will_delay=1)
        self.canceled: list[str] = []
        for handler in (self.add, self.greet, self.count, self.fail, self.hang, self.slow):
            self.add_tool(handler.__name__, handler)
        schema = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in AWKWARD_NAMES},
            "required": list(AWKWARD_NAMES),
        }
        self.add_tool("awkward", self.awkward, description="Takes whatever it is called", input_schema=schema)
        self.add_tool("no_schema", self.awkward, description="Takes anything", input_schema={"type": "object"})

    async def add(self, a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        return {"sum": a + b}

    def greet(self, name: str) -> str:
        """Say hello."""
        return f"Hello {name}"

    async def count(self, to: int, ctx: ToolContext) -> dict[str, int]:
        """Count up."""
        for number in range(1, to + 1):
            await ctx.progress(number, total=to)
        return {"counted": to}

    async def fail(self) -> None:
        """Never works."""
        raise ToolError("no luck today", code="E_LUCK")

    async def slow(self, seconds: float) -> str:
        """Take a while."""
        await asyncio.sleep(seconds)  # simulates work
        return "slept"

    async def hang(self, ctx: ToolContext) -> None:
        """Never ends."""
        await ctx.stream("running")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.canceled.append(ctx.call_id)
            raise

    async def awkward(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Give back what it got."""
        return arguments


AWKWARD_NAMES = ("config", "run_manager", "callbacks", "self", "runtime", "args", "kwargs", "tool_call_id")


@pytest.fixture
def toolbox(broker: Broker, namespace: str) -> Iterator[Toolbox]:
    with Toolbox(broker.url, namespace) as server:
        yield server


@pytest.fixture
def toolkit(broker: Broker, namespace: str, toolbox: Toolbox) -> Iterator[MQTTToolkit]:
    with MQTTToolkit(broker=broker.url, namespace=namespace, agent_id="agent-a", timeout=10) as toolkit:
        yield toolkit
