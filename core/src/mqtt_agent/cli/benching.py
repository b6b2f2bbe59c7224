"""The verb ``bench``: how fast calls go through a broker, with a server and a client in this process."""

from __future__ import annotations

import asyncio
import statistics
import time
import uuid
from typing import Annotated

import typer

from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.tools import ToolClient, ToolServer
from mqtt_agent.wire import Topics

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``bench``."""
    verb(app, "bench")(bench)


async def bench(
    session: Session,
    calls: Annotated[int, typer.Option(help="How many calls to make in each turn.", min=1)] = 1000,
    at_once: Annotated[list[int] | None, typer.Option(help="How many calls are under way at once.", min=1)] = None,
    size: Annotated[int, typer.Option(help="The size of the argument and of the result, in bytes.", min=0)] = 20,
) -> None:
    """Measure calls through the broker: a tool server and a client in this process, on two connections."""
    tool = f"bench-{uuid.uuid4().hex[:8]}"
    topics = Topics(session.settings.place.namespace)
    server = ToolServer(tool, **session.settings.place.as_arguments())

    async def echo(text: str) -> str:
        """Return the text."""
        return text

    server.tool(name=tool)(echo)
    async with session.client() as client:
        async with server:
            await _turn(client, tool, min(calls, 100), 1, size)  # warms up
            rows = [await _measured(session, client, tool, calls, each, size) for each in at_once or [1, 64]]
        for card in (topics.tool_card(tool), topics.server_card(server.server_id)):
            await client.connection.publish(card, b"", retain=True)  # nobody will look for this server again
    if not session.out.machine:
        session.out.table(("at once", "calls/s", "p50 ms", "p99 ms"), rows, "")


async def _measured(
    session: Session, client: ToolClient, tool: str, calls: int, at_once: int, size: int
) -> tuple[str, ...]:
    elapsed, times = await _turn(client, tool, calls, at_once, size)
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    facts = {
        "at_once": at_once,
        "calls_per_second": round(len(times) / elapsed, 1),
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(p99 * 1000, 2),
    }
    if session.out.machine:
        session.out.json(facts)
    return tuple(str(each) for each in facts.values())


async def _turn(client: ToolClient, tool: str, calls: int, at_once: int, size: int) -> tuple[float, list[float]]:
    """Make calls, and return the seconds of the whole turn and of each call."""
    times: list[float] = []
    text = "x" * size

    async def work(number: int) -> None:
        for _ in range(number):
            begun = time.perf_counter()
            await client.call(tool, {"text": text})
            times.append(time.perf_counter() - begun)

    shares = [calls // at_once + (each < calls % at_once) for each in range(at_once)]
    begun = time.perf_counter()
    await asyncio.gather(*(work(each) for each in shares))
    return time.perf_counter() - begun, times
