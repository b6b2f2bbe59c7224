"""The slots for handlers. An agent has ``max_concurrency`` slots, and each running handler holds a slot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Slot", "Slots"]


class Slot:
    """The right to run one handler. :meth:`Slots.take_now` makes a slot, which is held from then on.

    Attributes:
        decided: A future. It is done when a handler has begun in this slot, or when no handler will begin in this slot.
    """

    def __init__(self, slots: Slots) -> None:
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots = slots
        self._held = True

    def decide(self) -> None:
        """Resolve :attr:`decided`. A second call does nothing."""
        if not self.decided.done():
            self.decided.set_result(None)

    def release(self) -> None:
        """Give the slot back. Nothing happens when the slot is not held."""
        if self._held:
            self._held = False
            self._slots.give_back()

    def release_when_done(self, future: asyncio.Future[Any]) -> None:
        """Give the slot back when the future is done, and not before: :meth:`release` does nothing from now on."""
        if self._held:
            self._held = False
            future.add_done_callback(lambda _: self._slots.give_back())

    async def take_again(self) -> None:
        """Wait until the slot is held again. A handler that continues gets a slot before a new task does."""
        await self._slots.wait()
        self._held = True


class Slots:
    """The slots of one agent.

    Args:
        count: How many slots there are.
        on_free: Called when a slot is free and no handler waits to take its slot again.
    """

    def __init__(self, count: int, on_free: Callable[[], None]) -> None:
        self._free = count
        self._on_free = on_free
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_now(self) -> Slot | None:
        """Take a slot for a new task; None when no slot is free."""
        return Slot(self) if self._take() else None

    def _take(self) -> bool:
        if self._free == 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Wait until a slot is free, and take the slot. For :meth:`Slot.take_again`."""
        if self._take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Take a slot back. For :meth:`Slot.release`."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
        self._on_free()
