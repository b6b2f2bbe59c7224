"""A tool server that can run as any number of replicas: python pricing.py, with $MQTT_AGENT_BROKER set."""

from __future__ import annotations

import asyncio
import os

from mqtt_agent import ToolServer

server = ToolServer("pricing")


@server.tool(read_only=True)
async def quote(item: str) -> dict:
    """The price of an item, and the process that found it."""
    await asyncio.sleep(0.01)  # simulates a database query
    return {"item": item, "price": 10 * len(item), "pid": os.getpid()}


if __name__ == "__main__":
    server.run()
