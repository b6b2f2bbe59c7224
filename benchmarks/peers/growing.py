"""MQTT.Agent with large arguments, more replicas, more tools or more clients.

python -m peers.growing serve|call|tools|clients|cards mqtt://host:port [number]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from mqtt_agent import Connection, ToolClient, ToolServer
from mqtt_agent.wire import ServerCard, ToolCard, Topics, encode

from peers import load

WORK_SECONDS, WORK_AT_ONCE = 0.02, 4
MAX_PAYLOAD = 4 * 1024 * 1024


async def _serve(server: ToolServer) -> None:
    async with server:
        load.ready()
        await asyncio.to_thread(load.wait_for_the_end)


def serve(url: str) -> None:
    """Serve ``echo``."""
    server = ToolServer("bench", broker=url, max_payload=MAX_PAYLOAD)

    @server.tool
    async def echo(text: str) -> dict:
        return {"text": text}

    asyncio.run(_serve(server))


def serve_work(url: str) -> None:
    """Serve an ``echo`` that waits, so that one replica has a limited number of calls/s."""
    server = ToolServer("bench", broker=url, max_concurrency=WORK_AT_ONCE)

    @server.tool
    async def echo(text: str) -> dict:
        await asyncio.sleep(WORK_SECONDS)
        return {"text": text}

    asyncio.run(_serve(server))


async def _cards(url: str, count: int) -> None:
    """Publish the cards of this number of tools, with a hundred tools for each server, and exit."""
    topics = Topics()
    connection = Connection(url)
    await connection.start()
    publications = []
    for number in range(count):
        card = ToolCard(
            tool=f"tool-{number:05}",
            server=f"many-{number // 100}",
            description=f"Tool number {number}: finds what lies in drawer {number}, and tells how much of it is left.",
            input_schema={
                "type": "object",
                "properties": {"drawer": {"type": "string", "description": "Which."}, "limit": {"type": "integer"}},
                "required": ["drawer"],
            },
        )
        publications.append((topics.tool_card(card.tool), encode(card)))
    for first in range(0, count, 100):
        tools = [f"tool-{number:05}" for number in range(first, min(first + 100, count))]
        server = f"many-{first // 100}"
        publications.append((topics.server_card(server), encode(ServerCard(server=server, tools=tools))))
    for first in range(0, len(publications), 1000):
        part = publications[first : first + 1000]
        await asyncio.gather(*(connection.publish_soon(topic, payload, retain=True) for topic, payload in part))
    await connection.stop(end_session=True)
    print(json.dumps({"ready": True}), flush=True)


async def _call(url: str) -> None:
    async with ToolClient("bench-client", broker=url, max_payload=MAX_PAYLOAD) as client:

        async def call(text: str) -> str:
            return (await client.call("echo", {"text": text}, timeout=load.LONGEST_CALL))["text"]

        await load.serve_commands(call)


async def _tools(url: str, count: int) -> None:
    """Like ``_call``, but first print a line with the seconds of the first and the second listing."""
    async with ToolClient("bench-client", broker=url) as client:
        began = time.perf_counter()
        cards = await client.list_tools()
        first = time.perf_counter() - began
        began = time.perf_counter()
        again = await client.list_tools()
        second = time.perf_counter() - began
        assert len(cards) == len(again) == count + 1, (len(cards), len(again))
        print(json.dumps({"first": first, "second": second}), flush=True)

        async def call(text: str) -> str:
            return (await client.call("echo", {"text": text}))["text"]

        await load.serve_commands(call)


async def _clients(url: str, count: int) -> None:
    """Make the calls with this number of clients in turn, each with its own connection."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [ToolClient(f"bench-{number}", broker=url) for number in range(count)]
        for first in range(0, count, 20):
            await asyncio.gather(*(stack.enter_async_context(client) for client in clients[first : first + 20]))

        def call_of(client: ToolClient) -> load.AsyncCall:
            async def call(text: str) -> str:
                return (await client.call("echo", {"text": text}))["text"]

            return call

        await load.serve_commands(*(call_of(client) for client in clients))


if __name__ == "__main__":
    role, *numbers, url = sys.argv[1:]
    if role in ("serve", "work"):
        {"serve": serve, "work": serve_work}[role](url)
    elif role == "call":
        asyncio.run(_call(url))
    else:
        asyncio.run({"tools": _tools, "clients": _clients, "cards": _cards}[role](url, int(numbers[0])))
