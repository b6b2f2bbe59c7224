"""Decides when the peer of an open task is asked again: after 10 s without a message, then at growing intervals."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections import deque
from dataclasses import dataclass

from mqtt_agent.aio.waiting import within
from mqtt_agent.wire import TaskState

__all__ = ["OpenTask", "Reminders"]

_FIRST, _MAX = 10.0, 300.0
"""Seconds until a task is sent again: the first interval, and the longest."""
_SOON, _MOST_SOON = 1.0, 20
"""Seconds until a task is sent again that the broker has probably lost, and how often at most."""
_MOST_LOOKED_AT = 10_000
"""How many items of the queues are looked at in one turn of the event loop. Many of them may be outdated."""
_EXPIRY_GRACE = 5.0
"""Seconds to wait for the peer's own result after a task has expired."""


@dataclass(slots=True)
class OpenTask:
    """What a requester must know of an open task to ask for it, without reading its record.

    Attributes:
        peer: The agent that the task was given to.
        bound: Whether the task was given on a sender-bound topic.
        state: The latest state that the requester knows.
        whole: Whether the whole task is always sent again, because it is as small as a question.
        canceled: Whether the user has canceled the task. Then the cancel is sent again.
        expires_at: When the task expires, Unix seconds; None for never.
        unknown: Whether the peer has said that it does not know the task, and has not spoken of the task since.
        due: When the peer is to be asked again, in loop time.
        queued: The time of the task's valid item in the queues. Items of the task with other times are outdated.
        interval: How long to wait after ``due`` until the peer is asked once more, in seconds.
        soon: How often the task has been made due soon.
    """

    peer: str
    bound: bool
    state: TaskState
    whole: bool
    canceled: bool
    expires_at: float | None
    unknown: bool = False
    due: float = math.inf
    queued: float = math.inf
    interval: float = 0.0
    soon: int = 0


class Reminders:
    """The open tasks of a requester, each with the time at which its peer is asked again.

    A task is due after 10 s, then after intervals that double up to 300 s. A message about the task restarts the
    present interval.
    """

    def __init__(self) -> None:
        self._entries: dict[str, OpenTask] = {}
        self._queue: list[tuple[float, str]] = []  # a heap
        self._hurried: deque[tuple[float, str]] = deque()  # the tasks that are due at once, in order
        self._woken = asyncio.Event()
        self._wakes_at = math.inf

    def add(
        self,
        task_id: str,
        peer: str,
        expires_at: float | None,
        *,
        at_once: bool = False,
        bound: bool = False,
        state: TaskState = TaskState.SUBMITTED,
        whole: bool = False,
        canceled: bool = False,
    ) -> None:
        """Add a task, or restart its intervals.

        Args:
            task_id: The task's id.
            peer: The agent that the task was given to.
            expires_at: When the task expires, Unix seconds; None for never.
            at_once: Whether the task is due now, and not after 10 s.
            bound: Whether the task was given on a sender-bound topic.
            state: The latest state that the requester knows.
            whole: Whether the whole task is always sent again; see :class:`OpenTask`.
            canceled: Whether the user has canceled the task. A task that was canceled stays canceled.
        """
        known = self._entries.get(task_id)
        self._entries[task_id] = entry = OpenTask(peer, bound, state, whole, canceled, expires_at)
        if known is not None:  # the caller may have read the record before the user has canceled the task
            entry.due, entry.queued, entry.canceled = known.due, known.queued, canceled or known.canceled
        now = asyncio.get_running_loop().time()
        if at_once:
            self._hurry(task_id, entry, now)
            self._wake(now)
        else:
            entry.due, entry.interval = now + _FIRST, _FIRST
            self._enqueue(task_id, entry)

    def get(self, task_id: str) -> OpenTask | None:
        """An open task for which this process asks; None when there is none with this id."""
        return self._entries.get(task_id)

    def drop(self, task_id: str) -> None:
        """Remove a task, because it is over."""
        self._entries.pop(task_id, None)

    def clear(self) -> None:
        """Remove all tasks."""
        self._entries.clear()
        self._queue.clear()
        self._hurried.clear()

    def put_off(self, task_id: str) -> None:
        """Restart the present interval of a task, because its peer has sent a message about the task.

        The interval does not grow, because the message with the result may still get lost: brokers drop messages when
        a queue is full.
        """
        entry = self._entries.get(task_id)
        if entry is not None:
            entry.unknown = False
            entry.due = asyncio.get_running_loop().time() + entry.interval

    def soon(self, task_id: str, seconds: float | None = None) -> None:
        """Make a task due in one second, at most 20 times, because the broker has probably lost it or its result.

        Args:
            task_id: The task's id.
            seconds: How many seconds to wait in place of one.
        """
        entry = self._entries.get(task_id)
        if entry is not None and entry.soon < _MOST_SOON:
            entry.soon += 1
            wait = _SOON if seconds is None else seconds
            entry.due, entry.interval = asyncio.get_running_loop().time() + wait, _FIRST
            self._enqueue(task_id, entry)

    def send_whole(self, task_id: str) -> None:
        """Make a task due whose peer does not know it. At a second time, the task waits as in :meth:`soon`."""
        entry = self._entries.get(task_id)
        if entry is not None:
            again, entry.unknown = entry.unknown, True
            self.soon(task_id, None if again else 0.0)

    def hurry(self, peer: str | None = None) -> None:
        """Make all tasks of a peer due within 0.1 s; with None, all tasks."""
        at = asyncio.get_running_loop().time() + random.uniform(0, 0.1)
        if self._hurried:
            at = max(at, self._hurried[-1][0])
        for task_id, entry in self._entries.items():
            if peer in (None, entry.peer):
                self._hurry(task_id, entry, at)
        self._wake(at)

    def _hurry(self, task_id: str, entry: OpenTask, at: float) -> None:
        entry.interval = _FIRST
        if entry.due > at or entry.queued > at:  # else the task waits in a queue already, and is due
            entry.due = entry.queued = at
            self._hurried.append((at, task_id))

    def _enqueue(self, task_id: str, entry: OpenTask) -> None:
        if entry.expires_at is not None:
            loop_minus_wall = asyncio.get_running_loop().time() - time.time()
            entry.due = min(entry.due, entry.expires_at + _EXPIRY_GRACE + loop_minus_wall)
        entry.queued = entry.due
        heapq.heappush(self._queue, (entry.queued, task_id))
        self._wake(entry.queued)

    def _wake(self, at: float) -> None:
        if at < self._wakes_at:
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
        for _ in range(_MOST_LOOKED_AT):
            if self._first() > now or len(due) + len(expired) >= limit:
                break
            queued, task_id = self._pop_first()
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

    def _first(self) -> float:
        """The time of the first item of both queues."""
        hurried = self._hurried[0][0] if self._hurried else math.inf
        return min(hurried, self._queue[0][0]) if self._queue else hurried

    def _pop_first(self) -> tuple[float, str]:
        if self._hurried and (not self._queue or self._hurried[0] <= self._queue[0]):
            return self._hurried.popleft()
        return heapq.heappop(self._queue)

    async def _wait(self) -> None:
        """Wait until the first task is due, or until an earlier task is added."""
        self._wakes_at = self._first()
        self._woken.clear()
        left = None if self._wakes_at == math.inf else self._wakes_at - asyncio.get_running_loop().time()
        try:
            await within(self._woken.wait(), left)
        except asyncio.TimeoutError:
            return
        finally:
            self._wakes_at = -math.inf
