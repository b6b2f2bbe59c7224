"""Makes calls and tasks that succeed, fail and wait, loses its broker once, and prints what was measured as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from mqtt_agent import Agent, EmbeddedBroker, MemoryStore, TaskContext, ToolClient, ToolServer
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()


def collected() -> dict[str, list[dict[str, Any]]]:
    """The unit and the points of each metric."""
    found: dict[str, list[dict[str, Any]]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    histogram = hasattr(point, "bucket_counts")
                    found.setdefault(metric.name, []).append(
                        {
                            "unit": metric.unit,
                            "attributes": dict(point.attributes or {}),
                            "value": point.count if histogram else point.value,  # type: ignore[union-attr]
                            "sum": point.sum if histogram else None,  # type: ignore[union-attr]
                            "bounds": list(point.explicit_bounds) if histogram else None,  # type: ignore[union-attr]
                        }
                    )
    return found


def waiting() -> int:
    """How many calls and tasks wait for a free handler."""
    points = [each for name in ("server.calls", "agent.tasks") for each in collected()[f"mqtt_agent.{name}"]]
    return sum(each["value"] for each in points if each["attributes"]["mqtt_agent.state"] == "waiting")


def make(url: str) -> tuple[ToolServer, Agent, asyncio.Event, asyncio.Event]:
    server = ToolServer("weather", broker=url, max_concurrency=1)
    agent = Agent("writer", broker=url, store=MemoryStore(), max_concurrency=1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    @server.tool
    async def forecast() -> int:
        return 18

    @server.tool
    async def broken() -> None:
        raise ValueError("on purpose")

    @server.tool
    async def slow() -> None:
        begun.set()
        await go_on.wait()

    @agent.on_task
    async def write(task: TaskContext) -> str:
        if task.prompt == "fail":
            raise ValueError("on purpose")
        if task.prompt == "slow":
            begun.set()
            await go_on.wait()
        return "done"

    return server, agent, begun, go_on


async def main(provider: bool) -> None:
    broker = EmbeddedBroker()
    broker.start()
    server, agent, begun, go_on = make(broker.url)
    client = ToolClient("planner", broker=broker.url)
    requester = Agent("planner", broker=broker.url, store=MemoryStore())
    async with server, agent, client, requester:
        await client.call("forecast")  # before a provider is set, nothing is measured
        if provider:
            metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
        for _ in range(3):
            await client.call("forecast")
        for tool in ("broken", "nobody_has_it"):
            with contextlib.suppress(Exception):
                await client.call(tool)
        for prompt in ("a", "fail"):
            with contextlib.suppress(Exception):
                await requester.request("writer", prompt)
        calls = [await client.submit("slow") for _ in range(3)]
        await begun.wait()
        begun.clear()
        tasks = [await requester.delegate("writer", "slow") for _ in range(3)]
        await begun.wait()
        while provider and waiting() < 4:
            await asyncio.sleep(0.01)
        print(json.dumps(collected()))
        go_on.set()
        for handle in (*calls, *tasks):
            await handle.result()
        port = int(broker.url.rpartition(":")[2])
        broker.stop()
        back: asyncio.Event = asyncio.Event()

        async def on_reconnected(_: bool) -> None:
            back.set()

        client.connection.on_reconnected.append(on_reconnected)
        broker = EmbeddedBroker(port)
        broker.start()
        await back.wait()
        print(json.dumps(collected()))
    broker.stop()


asyncio.run(main(sys.argv[1] == "provider"))
