"""aiomqtt with default settings, on both sides: JSON in both directions, and nothing else.

python -m peers.aiomqtt_plain serve|call mqtt://host:port
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from peers import load

CALLS, ANSWERS = "bench/echo/call", "bench/client/answers"


def connection(url: str) -> aiomqtt.Client:
    parts = urlsplit(url)
    return aiomqtt.Client(parts.hostname or "", parts.port or 1883, protocol=aiomqtt.ProtocolVersion.V5)


async def serve(url: str) -> None:
    async with connection(url) as mqtt:
        await mqtt.subscribe(CALLS, qos=1)
        working: set[asyncio.Task[None]] = set()

        async def answer(message: aiomqtt.Message) -> None:
            call = json.loads(message.payload)
            result = {"call_id": call["call_id"], "status": "ok", "result": {"text": call["arguments"]["text"]}}
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = message.properties.CorrelationData
            await mqtt.publish(message.properties.ResponseTopic, json.dumps(result), qos=1, properties=properties)

        async def take() -> None:
            async for message in mqtt.messages:
                task = asyncio.create_task(answer(message))
                working.add(task)
                task.add_done_callback(working.discard)

        taking = asyncio.create_task(take())
        load.ready()
        await asyncio.to_thread(load.wait_for_the_end)
        taking.cancel()


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[load.AsyncCall]:
    numbers = itertools.count()
    waiting: dict[str, asyncio.Future[Any]] = {}
    async with connection(url) as mqtt:
        await mqtt.subscribe(ANSWERS, qos=1)

        async def take() -> None:
            async for message in mqtt.messages:
                answer = json.loads(message.payload)
                waiting.pop(answer["call_id"]).set_result(answer["result"])

        async def call(text: str) -> str:
            call_id = str(next(numbers))
            future = waiting[call_id] = asyncio.get_running_loop().create_future()
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = ANSWERS
            properties.CorrelationData = call_id.encode()
            payload = json.dumps({"call_id": call_id, "arguments": {"text": text}, "client": "bench"})
            await mqtt.publish(CALLS, payload, qos=1, properties=properties)
            return (await asyncio.wait_for(future, load.LONGEST_CALL))["text"]

        taking = asyncio.create_task(take())
        yield call
        taking.cancel()


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        asyncio.run(serve(url))
    else:
        load.run_async(client(url))
