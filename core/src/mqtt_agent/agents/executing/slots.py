"""The slots for handlers. An agent has ``max_concurrency`` slots, and each running handler holds a slot."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
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
        self._ended = False
        self._turn: asyncio.Future[None] | None = None  # while the handler waits to take the slot again

    def decide(self) -> None:
        """Resolve :attr:`decided`. A second call does nothing."""
        if not self.decided.done():
            self.decided.set_result(None)

    def release(self) -> None:
        """Give the slot back. Nothing happens when the slot is not held."""
        if not self._ended:
            self._give_back()

    def _give_back(self) -> None:
        if self._held:
            self._held = False
            self._slots.give_back()

    async def take_again(self) -> None:
        """Wait until the slot is held again. A handler that continues gets a slot before a new task does.

        This returns at once, without the slot, when the handler has ended or was canceled.
        """
        if self._ended:
            return
        if not self._slots.take():
            self._turn = self._slots.queue()
            try:
                await self._turn
            except asyncio.CancelledError:
                if not self._ended:
                    self._leave_queue()
                    raise
        if not self._ended:
            self._turn = None
            self._held = True

    def take_over_limit(self) -> None:
        """Hold the slot again at once, for a handler that must end now. No task begins until a slot is free again."""
        if not self._held and not self._ended:
            self._slots.take_over_limit()
            self._held = True

    def end(self, threads: Collection[asyncio.Future[Any]] = ()) -> None:
        """Give the slot back for good. From now on, no other method does anything.

        Args:
            threads: The futures of the threads in which code of the handler still runs. The slot is given back when all
                of them have ended, because a thread cannot be stopped.
        """
        if self._ended:
            return
        if threads:
            self.take_over_limit()
        self._ended = True
        self._leave_queue()
        if threads:
            asyncio.gather(*threads, return_exceptions=True).add_done_callback(lambda _: self._give_back())
        else:
            self._give_back()

    def _leave_queue(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.cancel() and not turn.cancelled():
            self._slots.give_back()  # the slot was given at this moment


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
        return Slot(self) if self.take() else None

    def take(self) -> bool:
        """Take a slot if a slot is free and no handler waits for a slot. For :meth:`Slot.take_again`."""
        if self._free <= 0 or self._waiting:
            return False
        self._free -= 1
        return True

    def take_over_limit(self) -> None:
        """Take a slot even when no slot is free. For :meth:`Slot.take_over_limit`."""
        self._free -= 1

    def queue(self) -> asyncio.Future[None]:
        """A future that is done when a slot was taken for its owner. For :meth:`Slot.take_again`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return turn

    def give_back(self) -> None:
        """Take a slot back. For :meth:`Slot.release`."""
        self._free += 1
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
        if self._free > 0:
            self._on_free()
