"""Running CrewAI on a loop of its own: much of it blocks, and MQTT has to stay awake meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mqtt_agent.aio.handlers import run_in_thread

__all__ = ["run_apart"]

T = TypeVar("T")


async def run_apart(function: Callable[[], Coroutine[Any, Any, T]], name: str, on_cancel: Callable[[], None]) -> T:
    """Run a coroutine function in a thread, on a loop of its own. Canceling this cancels it there.

    It does not wait for the thread then: what blocks in it cannot be stopped, only left.

    Args:
        function: Called in the thread.
        name: The thread's name.
        on_cancel: Called here, before it is canceled there.
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

    thread = run_in_thread(lambda: asyncio.run(main()), name)
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        canceled = True
        on_cancel()
        thread.add_done_callback(lambda late: late.cancelled() or late.exception())
        for loop, task in running:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        raise
