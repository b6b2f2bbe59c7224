"""Following work that runs on another event loop than AutoGen's: what the work tells, and then how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from autogen_core import CancellationToken

__all__ = ["Emit", "stream"]

T = TypeVar("T")

Emit = Callable[[Any], None]
"""Tells something that happens during the work. The function may be called in any thread."""


async def stream(
    work: Callable[[Emit], Coroutine[Any, Any, T]], token: CancellationToken | None
) -> AsyncGenerator[Any | asyncio.Future[T], None]:
    """Run ``work`` and give what the work emits, as it comes. The last item is a future that is done.

    This generator never raises by itself: the future has the result or the error. The future is canceled when the token
    or the caller's own task was canceled. The token cancels the work, and so does closing the generator.

    Args:
        work: A coroutine function that gets a function to emit with.
        token: AutoGen's token of the run, if there is one.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()

    def soon(callback: Callable[..., object], *arguments: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback, *arguments)

    def on_done(done: asyncio.Future[T]) -> None:
        if not done.cancelled():
            done.exception()  # tells asyncio that an error need not be logged when nobody follows the work any more
        queue.put_nowait(done)

    running = asyncio.create_task(work(lambda each: soon(queue.put_nowait, each)))
    running.add_done_callback(on_done)
    if token is not None:
        # A token calls back in the thread that cancels it, and holds its lock meanwhile.
        token.add_callback(lambda: soon(running.cancel))
    try:
        while True:
            try:
                each = await queue.get()
            except asyncio.CancelledError:
                running.cancel()
                each = loop.create_future()
                each.cancel()
            yield each
            if isinstance(each, asyncio.Future):
                return
    finally:
        running.cancel()
