"""Follows work that runs on another event loop than the framework's: its events, then its result or error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Emit", "stream"]

T = TypeVar("T")

Emit = Callable[[Any], None]
"""A function that reports an event of the work. It may be called in any thread."""


async def stream(
    work: Callable[[Emit], Coroutine[Any, Any, T]],
    on_cancel: Callable[[Callable[[], None]], object] | None = None,
) -> AsyncGenerator[Any | asyncio.Future[T], None]:
    """Run ``work``, and yield each item at once when the work emits it. The last item is a future that is done.

    This generator never raises by itself: the future has the result or the error. The future is canceled when the work
    or the caller's own task was canceled. Closing the generator cancels the work.

    Example:
        >>> async with aclosing(stream(work)) as events:  # doctest: +SKIP
        ...     async for event in events:
        ...         print(event.result() if isinstance(event, asyncio.Future) else event)

    Args:
        work: A coroutine function that gets a function to emit with.
        on_cancel: Called once with a function that cancels the work, for a framework with a cancellation token of its
            own. The token may call the function in any thread.
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

    running = asyncio.ensure_future(work(lambda each: soon(queue.put_nowait, each)))
    running.add_done_callback(on_done)
    if on_cancel is not None:
        on_cancel(lambda: soon(running.cancel))  # tokens may hold a lock while they call back, so this must not wait
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
