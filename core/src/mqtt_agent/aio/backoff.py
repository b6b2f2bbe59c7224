"""Waits longer and longer before a failed operation is tried again."""

from __future__ import annotations

import asyncio
import random

__all__ = ["Backoff"]

_MAX_DOUBLINGS = 20


class Backoff:
    """Waits between attempts, each time twice as long as before.

    Each wait is shortened by a random share of up to one half. So many clients of one broker do not reconnect at the
    same moment.

    Args:
        first: The first wait in seconds, before it is shortened.
        longest: The longest wait in seconds, before it is shortened.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._doublings = 0

    def reset(self) -> None:
        """Begin again with the first wait."""
        self._doublings = 0

    def next_wait(self) -> float:
        """Choose the wait before the next attempt, in seconds."""
        longest = min(self._longest, self._first * 2**self._doublings)
        self._doublings = min(self._doublings + 1, _MAX_DOUBLINGS)
        return random.uniform(0.5, 1) * longest

    async def wait(self) -> None:
        """Sleep until the next attempt is due."""
        await asyncio.sleep(self.next_wait())
