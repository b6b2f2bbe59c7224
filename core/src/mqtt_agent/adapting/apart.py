"""Runs a framework on its own event loop in a thread, so that MQTT continues while the framework blocks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from mqtt_agent.aio.handlers import run_for_handler

__all__ = ["block_apart", "run_apart"]

T = TypeVar("T")


async def run_apart(function: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
    """Run a coroutine function in a thread, on an event loop of its own.

    When the caller is canceled, the coroutine is canceled too. The caller does not wait for the thread then, because
    code that blocks in the thread cannot be stopped. A handler that called this keeps its slot until the thread ends.

    Args:
        function: Called in the thread.
        name: The thread's name.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
    canceled = False

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        if canceled:
            raise asyncio.CancelledError
        return await function()

    try:
        return await run_for_handler(lambda: asyncio.run(main()), name)
    except asyncio.CancelledError:
        canceled = True
        for loop, task in running:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        raise


def block_apart(function: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
    """Run a coroutine function on an event loop of its own, and block for the result.

    The coroutine runs in the caller's thread, or in a thread of its own where an event loop runs already, as in a
    notebook. It has the caller's context variables. When the wait is interrupted, the coroutine is canceled.

    Args:
        function: Called on the new event loop.
        name: The name of the thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(function())
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    outcome: Future[T] = Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        return await function()

    def work() -> None:
        try:
            outcome.set_result(asyncio.run(main()))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    try:
        return outcome.result()
    except BaseException:
        for loop, task in running:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(task.cancel)
        raise
