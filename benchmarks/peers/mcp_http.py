"""MCP over streamable HTTP with the official Python SDK and default settings. Client and server need no broker.

python -m peers.mcp_http serve|call http://127.0.0.1:port/mcp
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer

from peers import load

STARTED_WITHIN = 20.0


def serve(url: str) -> None:
    port = urlsplit(url).port or 80
    server = MCPServer("bench", log_level="WARNING")

    @server.tool()
    async def echo(text: str) -> dict[str, str]:
        return {"text": text}

    def say_when_ready() -> None:
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                load.ready()
                return
            time.sleep(0.05)

    threading.Thread(target=say_when_ready, daemon=True).start()
    serving = server.run_streamable_http_async(host="127.0.0.1", port=port)

    async def main() -> None:
        task = asyncio.ensure_future(serving)
        await asyncio.to_thread(load.wait_for_the_end)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[load.AsyncCall]:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    async with Client(url) as session:

        async def call(text: str) -> str:
            answer = await session.call_tool("echo", {"text": text})
            return (answer.structured_content or {})["text"]

        yield call


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        serve(url)
    else:
        load.run_async(client(url))
