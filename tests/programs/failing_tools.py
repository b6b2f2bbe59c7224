"""A tool server, an agent and their caller in one process, without logging: failing_tools.py URL NAMESPACE."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from mqtt_agent import Agent, MemoryStore, TaskContext, TaskRejected, ToolError, ToolServer
from mqtt_agent.errors import CallError, TaskError

url, namespace = sys.argv[1:3]
server = ToolServer("weather", broker=url, namespace=namespace)
writer = Agent("writer", broker=url, namespace=namespace, store=MemoryStore())
planner = Agent("planner", broker=url, namespace=namespace, store=MemoryStore())


@server.tool
async def broken(city: str) -> Any:
    known: dict[str, Any] = {}
    return known[city]  # fails at this line


@server.tool
def broken_in_a_thread() -> None:
    raise ValueError("the first line\nthe second line")


@server.tool
def leaves() -> None:
    raise SystemExit("good bye")


@server.tool
async def unsendable() -> object:
    return object()


@server.tool(timeout=0.05)
async def hangs() -> None:
    await asyncio.Event().wait()


@server.tool
async def chooses() -> None:
    raise ToolError("the database is away", code="E_DB")


@writer.on_task("write")
async def write(task: TaskContext) -> None:
    raise RuntimeError("no ink")


@writer.on_task("reject")
async def reject(task: TaskContext) -> None:
    raise TaskRejected("not my job")


async def main() -> None:
    async with server, writer, planner:
        tools = ("broken", "broken_in_a_thread", "leaves", "unsendable", "hangs", "chooses")
        for tool in tools:
            with contextlib.suppress(CallError):
                await planner.tool_client.call(tool, {"city": "Oslo"} if tool == "broken" else {})
        with contextlib.suppress(CallError):
            await planner.tool_client.call("broken", {"town": "Oslo"})
        for kind in ("write", "reject"):
            with contextlib.suppress(TaskError):
                await planner.request("writer", "please", type=kind)


asyncio.run(main())
