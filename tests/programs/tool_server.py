"""A tool server in its own process: tool_server.py URL NAMESPACE REPLICA WILL_DELAY."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from mqtt_agent import ToolContext, ToolServer

url, namespace, replica, will_delay = sys.argv[1:5]
server = ToolServer("remote", broker=url, namespace=namespace, replica=replica or None, will_delay=int(will_delay))


@server.tool
async def who() -> dict[str, object]:
    return {"replica": server.replica, "pid": os.getpid()}


async def hang(ctx: ToolContext) -> str:
    await ctx.stream({"pid": os.getpid()})
    await asyncio.Event().wait()
    return "never"


async def slow(seconds: float, ctx: ToolContext) -> int:
    await ctx.stream({"pid": os.getpid()})
    await asyncio.sleep(seconds)  # simulates work
    return os.getpid()


async def gated(gate: str, ctx: ToolContext) -> int:
    await ctx.stream({"pid": os.getpid()})
    while not Path(gate).exists():
        await asyncio.sleep(0.01)  # the test opens the gate by making a file
    return os.getpid()


server.add_tool("hang", hang)
server.add_tool("slow", slow)
server.add_tool("slow_but_repeatable", slow, read_only=True)
server.add_tool("gated", gated, read_only=True)


def die_with_parent() -> None:
    os.read(0, 1)
    os._exit(0)


threading.Thread(target=die_with_parent, daemon=True).start()
server.run()
