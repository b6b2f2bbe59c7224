"""The main loop of every client process of the benchmark: make calls on command, and report the time of each call.

A command is a line of JSON on the standard input, ``{"at_once": 64, "seconds": 1.0, "text": "..."}``. The answer is a
line of JSON on the standard output, ``{"milliseconds": [...], "seconds": 1.003}``. Clients in other languages use the
same format.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

AsyncCall = Callable[[str], Awaitable[Any]]
SyncCall = Callable[[str], Any]
"""Calls the tool ``echo`` with a text, and returns the text of its answer."""

LONGEST_CALL = 60.0


def ready() -> None:
    """Tell the benchmark that this process is ready."""
    print(json.dumps({"ready": True}), flush=True)


def wait_for_the_end() -> None:
    """Block until the benchmark closes the standard input."""
    sys.stdin.read()


async def _run(calls: list[AsyncCall], at_once: int, seconds: float, text: str) -> dict[str, Any]:
    milliseconds: list[float] = []
    began = time.perf_counter()
    ends = began + seconds

    async def worker(call: AsyncCall) -> None:
        now = time.perf_counter()
        while now < ends:
            answer = await call(text)
            then, now = now, time.perf_counter()
            milliseconds.append((now - then) * 1000)
            if answer != text:
                raise AssertionError(f"a wrong answer: {answer!r:.200}")

    await asyncio.gather(*(worker(calls[number % len(calls)]) for number in range(at_once)))
    return {"milliseconds": milliseconds, "seconds": time.perf_counter() - began}


async def serve_commands(*calls: AsyncCall) -> None:
    """Execute commands until the standard input is closed; several ``calls`` share the work in turn."""
    loop = asyncio.get_running_loop()
    ready()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        told = await _run(list(calls), command["at_once"], command["seconds"], command["text"])
        print(json.dumps(told), flush=True)


def run_async(client: AbstractAsyncContextManager[AsyncCall]) -> None:
    """The main function of an asyncio client."""

    async def main() -> None:
        async with client as call:
            await serve_commands(call)

    asyncio.run(main())


def run_threads(client: AbstractContextManager[SyncCall]) -> None:
    """The main function of a blocking client, with one thread for each concurrent call."""
    with client as call, ThreadPoolExecutor(128) as threads:
        ready()
        for line in sys.stdin:
            command = json.loads(line)
            text, milliseconds = command["text"], []
            began = time.perf_counter()
            ends = began + command["seconds"]

            def worker() -> None:
                now = time.perf_counter()
                while now < ends:  # noqa: B023
                    answer = call(text)  # noqa: B023
                    then, now = now, time.perf_counter()
                    milliseconds.append((now - then) * 1000)  # noqa: B023
                    if answer != text:  # noqa: B023
                        raise AssertionError(f"a wrong answer: {answer!r:.200}")

            for future in [threads.submit(worker) for _ in range(command["at_once"])]:
                future.result()
            print(json.dumps({"milliseconds": milliseconds, "seconds": time.perf_counter() - began}), flush=True)
