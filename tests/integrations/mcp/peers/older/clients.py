"""MCP clients that use version 1 of the official SDK: python clients.py COMMAND... Prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from autogen_ext.tools.mcp import McpWorkbench, StdioServerParams
from langchain_mcp_adapters.client import MultiServerMCPClient  # pyright: ignore[reportMissingImports]
from langchain_mcp_adapters.tools import load_mcp_tools  # pyright: ignore[reportMissingImports]


async def with_langchain(command: str, args: list[str]) -> dict[str, Any]:
    env = dict(os.environ)
    about: Any = {"mqtt": {"transport": "stdio", "command": command, "args": args, "env": env}}
    async with MultiServerMCPClient(about).session("mqtt") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        echoed = await tools["echo"].ainvoke({"text": "hi"})
        return {"tools": sorted(tools), "echoed": echoed}


async def with_autogen(command: str, args: list[str]) -> dict[str, Any]:
    parameters = StdioServerParams(command=command, args=args, env=dict(os.environ), read_timeout_seconds=60)
    async with McpWorkbench(parameters) as workbench:
        names = sorted(tool["name"] for tool in await workbench.list_tools())
        result = await workbench.call_tool("echo", {"text": "hi"})
        return {"tools": names, "echoed": result.to_text(), "is_error": result.is_error}


async def main() -> None:
    """Call the same tools with each client."""
    command, *args = sys.argv[1:]
    seen = {"langchain": await with_langchain(command, args), "autogen": await with_autogen(command, args)}
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main())
