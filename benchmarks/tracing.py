"""Measures the cost of tracing for a call: without OpenTelemetry, with its API only, with a provider that drops spans.

    python benchmarks/tracing.py [--calls 2000]

Each variant runs in its own process, in three rounds. Each line shows microseconds per call over an embedded broker
(the fastest of ten runs), and the microseconds of the hooks alone, on the caller's and on the server's side.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

WAYS = {"none": "not installed", "api": "no provider set", "sdk": "provider set"}


async def fastest(call: Callable[[], Awaitable[Any]], times: int) -> float:
    """Microseconds for one call, in the fastest of ten runs."""
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(times):
            await call()
        best = min(best, (time.perf_counter() - started) / times * 1e6)
    return best


async def measure(way: str, calls: int) -> None:
    from mqtt_agent import EmbeddedBroker, ToolClient, ToolServer
    from mqtt_agent.tools.tracing import trace_context, traced_call, traced_handler

    handle: Any = SimpleNamespace(call_id="1", server=None, failure=lambda: None, when_over=lambda over: over())
    message = SimpleNamespace(user_properties=())
    function = SimpleNamespace(name="echo")
    execution: Any = SimpleNamespace(
        messages=[message], tool=SimpleNamespace(function=function), call=SimpleNamespace(call_id="1", client="a")
    )

    async def submit(self: None, tool: str) -> Any:
        message.user_properties = trace_context()
        return handle

    async def run(self: None, execution: Any) -> None:
        pass

    traced_submit, traced_run = traced_call(submit), traced_handler(run)
    caller = await fastest(lambda: traced_submit(None, "echo"), calls * 5)
    server = await fastest(lambda: traced_run(None, execution), calls * 5)

    with EmbeddedBroker() as broker:
        echo = ToolServer("server", broker=broker.url)
        echo.add_tool("echo", run_echo)
        async with echo, ToolClient(broker=broker.url) as client:
            call = await fastest(lambda: client.call("echo", {"n": 1}), max(1, calls // 10))
    print(f"{WAYS[way]:16} call {call:7.1f}   hooks: caller {caller:5.2f}, server {server:5.2f}", flush=True)


async def run_echo(n: int) -> int:
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is None:
        for way in [*WAYS] * 3:
            subprocess.run([sys.executable, __file__, "--way", way, "--calls", str(options.calls)], check=True)
        return
    if options.way == "none":
        sys.modules["opentelemetry"] = None  # type: ignore[assignment]
    elif options.way == "sdk":
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
    asyncio.run(measure(options.way, options.calls))


if __name__ == "__main__":
    main()
