"""nats-py's request-reply, on both sides: JSON in both directions, and nothing else.

python -m peers.nats_core serve|call nats://host:port
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator

import nats
from nats.aio.msg import Msg

from peers import load

SUBJECT, GROUP = "bench.echo", "bench-servers"


async def serve(url: str) -> None:
    connection = await nats.connect(url)

    async def answer(message: Msg) -> None:
        await message.respond(json.dumps({"text": json.loads(message.data)["text"]}).encode())

    await connection.subscribe(SUBJECT, queue=GROUP, cb=answer)
    await connection.flush()
    load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    await connection.drain()


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[load.AsyncCall]:
    connection = await nats.connect(url)

    async def call(text: str) -> str:
        answer = await connection.request(SUBJECT, json.dumps({"text": text}).encode(), timeout=load.LONGEST_CALL)
        return json.loads(answer.data)["text"]

    yield call
    await connection.drain()


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        asyncio.run(serve(url))
    else:
        load.run_async(client(url))
