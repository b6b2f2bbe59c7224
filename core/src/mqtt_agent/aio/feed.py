"""An async iterator over items that other code adds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

__all__ = ["Feed"]

_MAX_WAITING = 1000

T = TypeVar("T")


class Feed(AsyncIterator[T], Generic[T]):
    """Iterates over the items that other code adds, until the feed is closed. It keeps the latest 1,000 unread items.

    Attributes:
        dropped: How many items were dropped because they were not read in time.
    """

    def __init__(self) -> None:
        self.dropped: int = 0
        self._waiting: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether no further items are added."""
        return self._closed

    def put(self, item: T) -> None:
        """Add an item. When 1,000 items are unread, the oldest is dropped. A closed feed ignores new items."""
        if self._closed:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(item)
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after the items that are unread now."""
        self._closed = True
        self._arrived.set()

    async def aclose(self) -> None:
        """Call :meth:`close`. The method has the name that async generators use."""
        self.close()

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()
