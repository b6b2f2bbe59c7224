"""Ends the tasks that expire before a handler begins, at the moment when they expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mqtt_agent.agents.store import Outline, TaskKey, TaskRecord

__all__ = ["ExpiryTimers"]


class ExpiryTimers:
    """One timer for each task that waits for a slot and has an ``expires_at``.

    A timer keeps the key of the task's record, and not the record. So the memory that a waiting task takes does not
    depend on the size of its prompt.

    Args:
        on_expired: Called with the key of each task whose time is over.
    """

    def __init__(self, on_expired: Callable[[TaskKey], None]) -> None:
        self._on_expired = on_expired
        self._timers: dict[TaskKey, asyncio.TimerHandle] = {}

    def watch(self, record: TaskRecord | Outline) -> None:
        """Set the timer of a task. Nothing happens when the task never expires."""
        self.forget(record.key)
        if record.expires_at is not None:
            left = max(0.0, record.expires_at - time.time())
            self._timers[record.key] = asyncio.get_running_loop().call_later(left, self._expire, record.key)

    def forget(self, key: TaskKey) -> None:
        """Stop the timer of a task, because a handler begins or the task is over."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def stop(self) -> None:
        """Stop all timers."""
        for key in tuple(self._timers):
            self.forget(key)

    def _expire(self, key: TaskKey) -> None:
        del self._timers[key]
        self._on_expired(key)
