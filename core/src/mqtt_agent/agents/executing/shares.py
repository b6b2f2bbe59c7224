"""How much of the room for waiting tasks each requester uses, so that none can use up the room of all others."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter

from mqtt_agent.agents.scope import Scope
from mqtt_agent.wire import TaskState

__all__ = ["Shares"]

_COUNTED_EVERY = 2.0 / 100_000
"""Seconds between two counts in the store, for each task that may wait. Between them, the tasks that this process has
added are counted, also those that have begun since, and a small room would soon be full of them."""


class Shares:
    """Says which requesters may add to the tasks that wait.

    A requester may add tasks as long as it has no more waiting tasks than there is room for. So a single requester gets
    half of the room, and there is always some room left for a requester that comes later.

    Args:
        scope: The agent's shared values.
        most: How many tasks may wait.
    """

    def __init__(self, scope: Scope, most: int) -> None:
        self._scope = scope
        self._most = most
        self._every = min(2.0, most * _COUNTED_EVERY)
        self._waiting: Counter[str | None] = Counter()
        self._counted_at = -math.inf
        self._counting = asyncio.Lock()

    async def has_room(self, requester: str | None, waiting: int) -> bool:
        """Whether a requester may add a task.

        Args:
            requester: The requester; None for a requester without a name.
            waiting: How many tasks wait.
        """
        left = self._most - waiting
        if waiting <= left:  # then no requester has more than what is left
            return left > 0
        if left <= 0:
            return False
        async with self._counting:
            if time.monotonic() - self._counted_at >= self._every:
                states = (TaskState.SUBMITTED,)
                self._waiting = Counter(await self._scope.store.count_by_peer(self._scope.owner, "received", states))
                self._counted_at = time.monotonic()
            if self._waiting[requester] > left:
                return False
            self._waiting[requester] += 1
            return True
