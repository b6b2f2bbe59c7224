"""The latest items that nobody has read yet, in bounded memory."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

__all__ = ["Latest"]

_MOST = 1000
_MOST_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


class Latest(Generic[T]):
    """Keeps the latest 1,000 unread items, and of these no more than take 64 MiB. The newest item is always kept.

    Attributes:
        dropped: How many items were dropped because they were not read in time.
    """

    def __init__(self) -> None:
        self.dropped: int = 0
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int = 0) -> None:
        """Add an item, and drop the oldest ones for which there is no room any more.

        Args:
            item: The item.
            size: About how many bytes of memory the item takes.
        """
        self._items.append((item, size))
        self._bytes += size
        while len(self._items) > _MOST or (self._bytes > _MOST_BYTES and len(self._items) > 1):
            self.take()
            self.dropped += 1

    def take(self) -> T:
        """Remove and return the oldest item. There must be one."""
        item, size = self._items.popleft()
        self._bytes -= size
        return item

    def take_all(self) -> list[T]:
        """Remove and return all items, the oldest first."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self._bytes = 0
        return items
