"""Bounds the cancels that are kept because their tasks have not arrived, as anybody may cancel any number of names."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass

from mqtt_agent.agents.retention import checked_retention

__all__ = ["EarlyCancel", "EarlyCancels"]

_KEPT_FOR = 3600.0
"""Seconds for which such a cancel is kept."""
_MOST_OF_ONE, _MOST_OF_ALL = 10_000, 50_000
"""How many such cancels are kept, of one requester and in all. A requester sends it again until it is answered."""


@dataclass(slots=True, eq=False)
class EarlyCancel:
    """A cancel: when it came, in monotonic time; who sent it; and whether it counts."""

    at: float
    requester: str
    counts: bool = True


class EarlyCancels:
    """Counts the cancels of the last hour whose tasks had not arrived.

    Args:
        retention: How many seconds a finished task is kept; None or infinity means for ever.
    """

    def __init__(self, retention: float | None) -> None:
        self._retention = checked_retention(retention)
        self._kept: deque[EarlyCancel] = deque()
        self._by_requester: Counter[str] = Counter()
        self._total = 0

    def admit(self, requester: str | None) -> EarlyCancel | None:
        """Count one more cancel of a requester. Returns None when no more are kept."""
        now, name = time.monotonic(), requester or ""
        while self._kept and self._kept[0].at < now - _KEPT_FOR:
            self.withdraw(self._kept.popleft())
        if self._by_requester[name] >= _MOST_OF_ONE or self._total >= _MOST_OF_ALL:
            return None
        early = EarlyCancel(now, name)
        self._kept.append(early)
        self._by_requester[name] += 1
        self._total += 1
        return early

    def withdraw(self, early: EarlyCancel) -> None:
        """Count a cancel no more: the store has not taken it."""
        if early.counts:
            early.counts = False
            self._total -= 1
            self._by_requester[early.requester] -= 1
            if not self._by_requester[early.requester]:
                del self._by_requester[early.requester]
        while self._kept and not self._kept[-1].counts:
            self._kept.pop()

    @property
    def ended_at(self) -> float:
        """The end of such a task in the store, Unix seconds: so long ago that the store keeps it for an hour only."""
        return time.time() - max(0.0, self._retention - _KEPT_FOR)
