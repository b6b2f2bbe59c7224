"""News for whoever wants to iterate over it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

__all__ = ["Feed"]

_MAX_WAITING = 1000

T = TypeVar("T")


class Feed(AsyncIterator[T], Generic[T]):
    """Iterates over what is put in, until it is closed; of what nobody has read, the latest 1,000 are kept.

    Attributes:
        dropped: How many were dropped because nobody read them.
    """

    def __init__(self) -> None:
        self.dropped: int = 0
        self._waiting: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def put(self, item: T) -> None:
        """One more."""
        if self._closed:
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(item)
        self._arrived.set()

    def close(self) -> None:
        """End the iteration after what is there already."""
        self._closed = True
        self._arrived.set()

    async def aclose(self) -> None:
        """The same, as generators have it."""
        self.close()

    async def __anext__(self) -> T:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()
