"""An agent that serves a tool over its own connection: tool_agent.py URL NAMESPACE WILL_DELAY."""

from __future__ import annotations

import asyncio
import os
import sys

from mqtt_agent import Agent, MemoryStore, ToolServer

url, namespace, will_delay = sys.argv[1:4]


async def main() -> None:
    agent = Agent("host", broker=url, namespace=namespace, will_delay=int(will_delay), store=MemoryStore())
    server = ToolServer("toolbox", namespace=namespace, replica="one")
    server.add_tool("pid", os.getpid)
    await agent.serve_tools(server)
    await agent.serve_forever()


asyncio.run(main())
