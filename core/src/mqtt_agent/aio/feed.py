"""An async iterator over items that other code adds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from mqtt_agent.aio.latest import Latest

__all__ = ["Feed"]

T = TypeVar("T")


class Feed(AsyncIterator[T], Generic[T]):
    """Iterates over the items that other code adds, until the feed is closed.

    It keeps the latest 1,000 unread items, and of these no more than take 64 MiB.
    """

    def __init__(self) -> None:
        self._waiting: Latest[T] = Latest()
        self._arrived = asyncio.Event()
        self._closed = False

    @property
    def dropped(self) -> int:
        """How many items were dropped because they were not read in time."""
        return self._waiting.dropped

    @property
    def closed(self) -> bool:
        """Whether no further items are added."""
        return self._closed

    def put(self, item: T, size: int = 0) -> None:
        """Add an item. A closed feed ignores new items.

        Args:
            item: The item.
            size: About how many bytes of memory the item takes.
        """
        if self._closed:
            return
        self._waiting.put(item, size)
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
        return self._waiting.take()
