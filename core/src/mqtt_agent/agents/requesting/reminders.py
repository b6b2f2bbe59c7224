"""Decides when an open task is sent again: after 10 s without a message about the task, then at growing intervals."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from dataclasses import dataclass

__all__ = ["Reminders"]

_FIRST, _MAX = 10.0, 300.0
"""Seconds until a task is sent again: the first interval, and the longest."""
_SOON, _MOST_SOON = 1.0, 20
"""Seconds until a task is sent again that the broker has probably lost, and how often at most."""
_EXPIRY_GRACE = 5.0
"""Seconds to wait for the peer's own result after a task has expired."""


@dataclass
class _Entry:
    """One open task.

    Attributes:
        peer: The agent that the task was given to.
        due: When the task is to be sent again, in loop time.
        queued: The time of the task's valid item in the queue. Items of the task with other times are outdated.
        interval: How long to wait after ``due`` until the task is sent once more, in seconds.
        expires_at: When the task expires, Unix seconds; None for never.
        soon: How often the task has been made due soon.
    """

    peer: str
    due: float
    queued: float
    interval: float
    expires_at: float | None
    soon: int = 0


class Reminders:
    """The open tasks of a requester, each with the time at which it is sent again.

    A task is due after 10 s, then after intervals that double up to 300 s. A message about the task restarts the
    present interval.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._queue: list[tuple[float, str]] = []
        self._woken = asyncio.Event()
        self._wakes_at = math.inf

    def add(self, task_id: str, peer: str, expires_at: float | None, *, at_once: bool = False) -> None:
        """Add a task, or restart its intervals.

        Args:
            task_id: The task's id.
            peer: The agent that the task was given to.
            expires_at: When the task expires, Unix seconds; None for never.
            at_once: Whether the task is due now, and not after 10 s.
        """
        now = asyncio.get_running_loop().time()
        due = now if at_once else now + _FIRST
        self._entries[task_id] = entry = _Entry(peer, due, due, _FIRST, expires_at)
        self._enqueue(task_id, entry)

    def drop(self, task_id: str) -> None:
        """Remove a task, because it is over."""
        self._entries.pop(task_id, None)

    def clear(self) -> None:
        """Remove all tasks."""
        self._entries.clear()
        self._queue.clear()

    def put_off(self, task_id: str) -> None:
        """Restart the present interval of a task, because its peer has sent a message about the task.

        The interval does not grow, because the message with the result may still get lost: brokers drop messages when
        a queue is full.
        """
        entry = self._entries.get(task_id)
        if entry is not None:
            entry.due = asyncio.get_running_loop().time() + entry.interval

    def soon(self, task_id: str) -> None:
        """Make a task due in one second, at most 20 times, because the broker has probably lost it or its result."""
        entry = self._entries.get(task_id)
        if entry is not None and entry.soon < _MOST_SOON:
            entry.soon += 1
            entry.due, entry.interval = asyncio.get_running_loop().time() + _SOON, _FIRST
            self._enqueue(task_id, entry)

    def peer_of(self, task_id: str) -> str:
        """The agent that an open task was given to; empty when the task is not open any more."""
        entry = self._entries.get(task_id)
        return "" if entry is None else entry.peer

    def hurry(self, peer: str | None = None) -> None:
        """Make all tasks of a peer due within 0.1 s; with None, all tasks."""
        now = asyncio.get_running_loop().time()
        for task_id, entry in self._entries.items():
            if peer in (None, entry.peer):
                entry.due, entry.interval = now + random.uniform(0, 0.1), _FIRST
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
        """Wait until tasks are due or have expired.

        Args:
            limit: How many tasks are returned at most.

        Returns:
            The ids of the tasks that are due; and the ids and peers of the tasks that have expired, which are removed.
        """
        while True:
            due, expired = self._pop_due(limit)
            if due or expired:
                return due, expired
            await self._wait()

    def _pop_due(self, limit: int) -> tuple[list[str], list[tuple[str, str]]]:
        now = asyncio.get_running_loop().time()
        due: list[str] = []
        expired: list[tuple[str, str]] = []
        while self._queue and self._queue[0][0] <= now and len(due) + len(expired) < limit:
            queued, task_id = heapq.heappop(self._queue)
            entry = self._entries.get(task_id)
            if entry is None or entry.queued != queued:
                continue
            if entry.expires_at is not None and entry.expires_at + _EXPIRY_GRACE <= time.time() + 0.01:
                expired.append((task_id, entry.peer))
                del self._entries[task_id]
                continue
            if entry.due <= now:
                due.append(task_id)
                entry.due, entry.interval = now + entry.interval, min(_MAX, entry.interval * 2)
            self._enqueue(task_id, entry)
        return due, expired

    async def _wait(self) -> None:
        """Wait until the first entry of the queue is due, or until an earlier entry is added."""
        self._wakes_at = self._queue[0][0] if self._queue else math.inf
        self._woken.clear()
        left = None if self._wakes_at == math.inf else self._wakes_at - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(self._woken.wait(), left)
        except asyncio.TimeoutError:
            return
        finally:
            self._wakes_at = -math.inf
