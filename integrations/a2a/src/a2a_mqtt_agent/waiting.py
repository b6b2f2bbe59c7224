"""What waits for a client that reads slowly: a queue of changes of a task that has an end."""

from __future__ import annotations

import asyncio
from collections import deque

from a2a.types import a2a_pb2 as a2a

from a2a_mqtt_agent.views import Update

__all__ = ["Waiting"]


class Waiting:
    """The changes of a task that a client has not got yet.

    Args:
        most: How many changes may wait.
        most_bytes: How many bytes of changes may wait. One change may always wait.

    Attributes:
        dropped: How many changes were dropped, because too many waited.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.dropped: int = 0
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._events: deque[tuple[a2a.Task | Update, int]] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: a2a.Task | Update) -> bool:
        """Let a change wait. Returns False, and drops everything that waits, when this would be too much."""
        size = event.ByteSize()
        if self._events and (len(self._events) >= self._most or self._bytes + size > self._most_bytes):
            self.drop()
            self.dropped += 1
            return False
        self._events.append((event, size))
        self._bytes += size
        self._news.set()
        return True

    def drop(self) -> None:
        """Drop everything that waits."""
        self.dropped += len(self._events)
        self._events.clear()
        self._bytes = 0

    def end(self) -> None:
        """Nothing more comes: :meth:`get` returns None once everything was taken."""
        self._ended = True
        self._news.set()

    async def get(self) -> a2a.Task | Update | None:
        """The next change, once there is one; None at the end."""
        while not self._events:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        return event
