"""The cost of calls in large numbers, counted and not timed."""

from __future__ import annotations

import asyncio
import contextlib

from brokers import Mosquitto
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.errors import CallCanceled
from support import soon, until

COUNT = 500


async def test_a_client_that_stops_with_many_calls_lets_the_event_loop_turn(
    mosquitto: Mosquitto, namespace: str
) -> None:
    loop, ended, turns, begun = asyncio.get_running_loop(), 0, list[int](), 0

    async def wait(number: int) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with ToolServer("server", broker=mosquitto.url, namespace=namespace, max_concurrency=COUNT) as server:
        server.add_tool("wait", wait)
        client = ToolClient("client", broker=mosquitto.url, namespace=namespace)
        await soon(client.start())

        async def call(number: int) -> None:
            nonlocal ended
            with contextlib.suppress(CallCanceled):
                await client.call("wait", {"number": number}, timeout=None)
            ended += 1

        calls = asyncio.gather(*(call(number) for number in range(COUNT)))
        await until(lambda: begun == COUNT, 60)

        def count_turn() -> None:
            turns.append(ended)
            if ended < COUNT:
                loop.call_soon(count_turn)

        loop.call_soon(count_turn)
        await soon(client.stop(), 60)
        await soon(calls)
    assert max(after - before for before, after in zip(turns, [*turns[1:], ended], strict=True)) <= 100
