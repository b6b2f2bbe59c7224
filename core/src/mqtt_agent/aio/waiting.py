"""Futures on which one asyncio task waits, and which other code releases."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

__all__ = ["Patience", "release"]

T = TypeVar("T")


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
