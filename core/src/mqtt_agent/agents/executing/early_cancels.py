"""Bounds the cancels that are kept because their tasks have not arrived, as anybody may cancel any number of names."""

from __future__ import annotations

import math
import time
from collections import Counter, deque

__all__ = ["EarlyCancels"]

_KEPT_FOR = 3600.0
"""Seconds for which such a cancel is kept."""
_MOST_OF_ONE, _MOST_OF_ALL = 10_000, 50_000
"""How many such cancels are kept, of one requester and in all. A requester sends it again until it is answered."""


class EarlyCancels:
    """Counts the cancels of the last hour whose tasks had not arrived.

    Args:
        retention: How many seconds a finished task is kept; None or infinity means for ever.
    """

    def __init__(self, retention: float | None) -> None:
        self._retention = math.inf if retention is None else retention
        self._kept: deque[tuple[float, str]] = deque()
        self._by_requester: Counter[str] = Counter()

    def admit(self, requester: str | None) -> bool:
        """Count one more cancel of a requester. Returns False when no more are kept."""
        now, name = time.monotonic(), requester or ""
        while self._kept and self._kept[0][0] < now - _KEPT_FOR:
            _, earlier = self._kept.popleft()
            self._by_requester[earlier] -= 1
            if not self._by_requester[earlier]:
                del self._by_requester[earlier]
        if self._by_requester[name] >= _MOST_OF_ONE or len(self._kept) >= _MOST_OF_ALL:
            return False
        self._kept.append((now, name))
        self._by_requester[name] += 1
        return True

    @property
    def ended_at(self) -> float:
        """The end of such a task in the store, Unix seconds: so long ago that the store keeps it for an hour only."""
        return time.time() - max(0.0, self._retention - _KEPT_FOR) if math.isfinite(self._retention) else time.time()
