"""Waits that end: when other code releases them, or after some time."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["Patience", "release", "within"]

T = TypeVar("T")


async def within(waiting: Awaitable[T], seconds: float | None) -> T:
    """Wait for something, at most so many seconds; a cancellation always ends the wait.

    Before Python 3.12, ``asyncio.wait_for`` ignores a cancellation that comes in the same turn of the event loop as the
    result. A task that waits in a loop would then never end.

    Args:
        waiting: What to wait for. When the time is over, it is canceled.
        seconds: The time; None for no limit.

    Raises:
        asyncio.TimeoutError: The time is over.
    """
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            return await waiting
    future = asyncio.ensure_future(waiting)
    try:
        done, _ = await asyncio.wait([future], timeout=seconds)
        if not done:
            future.cancel()
            await asyncio.wait([future])
    except asyncio.CancelledError:
        future.cancel()
        raise
    try:
        return future.result()
    except asyncio.CancelledError:
        if done:
            raise
        # A future of asyncio.gather() that was canceled is not cancelled(): it has this error.
        raise asyncio.TimeoutError from None


def release(waiting: asyncio.Future[T], value: T) -> None:
    """Let the asyncio task that waits go on, unless it goes on already or was canceled."""
    if not waiting.done():
        waiting.set_result(value)


class Patience:
    """Ends each wait after a fixed time, with one timer for all of them.

    Args:
        seconds: The time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, waiting: asyncio.Future[None]) -> None:
        """Release a future when the time is over."""
        loop = waiting.get_loop()
        self._waits.append((loop.time() + self._seconds, waiting))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._end, loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        waits, now = self._waits, loop.time()
        while waits and (waits[0][1].done() or waits[0][0] <= now):
            release(waits.popleft()[1], None)
        self._timer = loop.call_at(waits[0][0], self._end, loop) if waits else None
