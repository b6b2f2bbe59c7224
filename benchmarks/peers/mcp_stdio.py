"""One MCP server over standard input, called directly with the official Python SDK, and through a bridge over MQTT.

python -m peers.mcp_stdio bridge|call mqtt://127.0.0.1:port
python -m peers.mcp_stdio nothing|direct URL
python -m peers.mcp_stdio server
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer

from peers import load

SERVER = [sys.executable, "-m", "peers.mcp_stdio", "server"]


def server() -> None:
    app = MCPServer("bench", log_level="WARNING")

    @app.tool()
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    app.run("stdio")


async def bridge(url: str) -> None:
    from mcp_mqtt_agent import Bridge

    async with Bridge("bench", SERVER, broker=url):
        load.ready()
        await asyncio.to_thread(load.wait_for_the_end)


@contextlib.asynccontextmanager
async def through_bridge(url: str) -> AsyncIterator[load.AsyncCall]:
    from mqtt_agent import ToolClient

    async with ToolClient("bench-client", broker=url) as client:

        async def call(text: str) -> str:
            return (await client.call("bench.echo", {"text": text}, wait_online=True))["text"]

        yield call


@contextlib.asynccontextmanager
async def direct(url: str) -> AsyncIterator[load.AsyncCall]:
    async with Client(StdioServerParameters(command=SERVER[0], args=SERVER[1:])) as client:

        async def call(text: str) -> str:
            return ((await client.call_tool("echo", {"text": text})).structured_content or {})["text"]

        yield call


def nothing() -> None:
    """Stand in for a server, because the client starts the MCP server itself."""
    load.ready()
    load.wait_for_the_end()


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "server":
        server()
    elif role == "nothing":
        nothing()
    elif role == "bridge":
        asyncio.run(bridge(rest[0]))
    else:
        load.run_async(direct(rest[0]) if role == "direct" else through_bridge(rest[0]))
