"""Another vendor's A2A over MQTT, the package a2a-over-mqtt, with default settings. It stores nothing on a disk.

python -m peers.a2a_mqtt serve|call mqtt://host:port
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from a2a_over_mqtt import A2ARequest, MqttConfig, Requester, Responder, TopicSpace, build_card

from peers import load

AT_ONCE = 64  # the same number as our agent; the default is 4
TOPICS = TopicSpace("bench")


def broker(url: str) -> MqttConfig:
    parts = urlsplit(url)
    return MqttConfig(parts.hostname or "", parts.port or 1883)


class Echo(Responder):
    async def on_request(self, request: A2ARequest, stream: object) -> str:
        return request.text


async def serve(url: str) -> None:
    card = build_card(name="echo", description="Gives back what it gets.", url=url)
    agent = Echo(agent_id="echo", mqtt=broker(url), topics=TOPICS, card=card, max_concurrent=AT_ONCE)
    running = asyncio.create_task(agent.run())
    async with asyncio.timeout(load.LONGEST_CALL):  # the server does not report when it is ready
        async for kind, _ in Requester(broker(url), TOPICS).stream("echo", A2ARequest("", "0").to_json(), "0"):
            if kind == "terminal":
                load.ready()
    await asyncio.to_thread(load.wait_for_the_end)
    running.cancel()


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[load.AsyncCall]:
    numbers = itertools.count(1)
    requester = Requester(broker(url), TOPICS)

    async def call(text: str) -> str:
        number, answer = str(next(numbers)), ""
        async for kind, content in requester.stream("echo", A2ARequest(text, number).to_json(), number):
            if kind == "artifact":
                answer += content
            elif kind in ("failed", "error", "timeout"):
                raise RuntimeError(f"{kind}: {content}")
        return answer

    yield call


if __name__ == "__main__":
    role, url = sys.argv[1:3]
    if role == "serve":
        asyncio.run(serve(url))
    else:
        load.run_async(client(url))
