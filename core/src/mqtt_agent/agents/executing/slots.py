"""Places for running handlers, of which an agent has so many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Slots"]


class Slots:
    """Places for running handlers.

    Args:
        count: How many there are.
        on_free: Called when one is free and nobody waits for it.
    """

    def __init__(self, count: int, on_free: Callable[[], None]) -> None:
        self._free = count
        self._on_free = on_free
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> bool:
        """Take one, if one is free."""
        if self._free == 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def take(self) -> None:
        """Wait for one: before any new task."""
        if self.take_now():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give one back."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
        self._on_free()
