"""When to ask again after tasks that have no result yet."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from dataclasses import dataclass

__all__ = ["Reminders"]

_FIRST, _MAX = 10.0, 300.0
_EXPIRY_GRACE = 5.0


@dataclass
class _Entry:
    """One open task.

    Attributes:
        peer: Who is to do it.
        due: When to ask, in loop time.
        queued: Which place in the queue counts: the one for this time.
        patience: Seconds to wait after that.
        expires_at: When it is to be given up, Unix seconds.
    """

    peer: str
    due: float
    queued: float
    patience: float
    expires_at: float | None


class Reminders:
    """The open tasks of a requester, each with the time at which to ask after it: after 10 s, then ever more seldom."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queue: list[tuple[float, str]] = []
        self._woken = asyncio.Event()
        self._wakes_at = math.inf

    def add(self, task_id: str, peer: str, expires_at: float | None, *, at_once: bool = False) -> None:
        """Remind of a task, at once or in 10 s."""
        now = asyncio.get_running_loop().time()
        due = now if at_once else now + _FIRST
        self._entries[task_id] = entry = _Entry(peer, due, due, _FIRST, expires_at)
        self._enqueue(task_id, entry)

    def drop(self, task_id: str) -> None:
        """It is over."""
        self._entries.pop(task_id, None)

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self._queue.clear()

    def put_off(self, task_id: str) -> None:
        """There was a sign that its peer has it: the time until the next question begins anew.

        It does not grow longer, for what tells of the end may get lost: brokers drop what a queue has no room for.
        """
        entry = self._entries.get(task_id)
        if entry is not None:
            entry.due = asyncio.get_running_loop().time() + entry.patience

    def hurry(self, peer: str) -> None:
        """Ask after all tasks of a peer at once."""
        now = asyncio.get_running_loop().time()
        for task_id, entry in self._entries.items():
            if entry.peer == peer:
                entry.due, entry.patience = now + random.uniform(0, 0.1), _FIRST
                self._enqueue(task_id, entry)

    def _enqueue(self, task_id: str, entry: _Entry) -> None:
        if entry.expires_at is not None:
            loop_minus_wall = asyncio.get_running_loop().time() - time.time()
            entry.due = min(entry.due, entry.expires_at + _EXPIRY_GRACE + loop_minus_wall)
        entry.queued = entry.due
        heapq.heappush(self._queue, (entry.queued, task_id))
        if entry.queued < self._wakes_at:
            self._woken.set()

    async def due(self, limit: int) -> tuple[list[str], list[tuple[str, str]]]:
        """Wait for tasks to ask after.

        Args:
            limit: At most so many at a time.

        Returns:
            Their ids; and the ids and peers of those that have expired, which are dropped.
        """
        loop = asyncio.get_running_loop()
        while True:
            due: list[str] = []
            expired: list[tuple[str, str]] = []
            while self._queue and self._queue[0][0] <= loop.time() and len(due) + len(expired) < limit:
                queued, task_id = heapq.heappop(self._queue)
                entry = self._entries.get(task_id)
                if entry is None or entry.queued != queued:
                    continue
                if entry.expires_at is not None and entry.expires_at + _EXPIRY_GRACE <= time.time() + 0.01:
                    expired.append((task_id, entry.peer))
                    del self._entries[task_id]
                    continue
                if entry.due <= loop.time():
                    due.append(task_id)
                    entry.due, entry.patience = loop.time() + entry.patience, min(_MAX, entry.patience * 2)
                self._enqueue(task_id, entry)
            if due or expired:
                return due, expired
            self._wakes_at = self._queue[0][0] if self._queue else math.inf
            self._woken.clear()
            try:
                await asyncio.wait_for(
                    self._woken.wait(), None if self._wakes_at == math.inf else self._wakes_at - loop.time()
                )
            except asyncio.TimeoutError:
                continue
            finally:
                self._wakes_at = -math.inf
