"""Watches the deadlines of many things with one timer of the event loop."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

__all__ = ["Deadlines"]

_MOST_OVER = 100


class Ending(Protocol):
    """Something that may end before its deadline."""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        ...


T = TypeVar("T", bound=Ending)


class Deadlines(Generic[T]):
    """Calls a function with each thing that has not ended at its deadline.

    Most things end long before their deadlines. A timer of the event loop for each of them would cost ten times as
    much.

    Args:
        on_over: Called with a thing whose deadline has come, and with the timeout that was given with it. The thing may
            have ended in the same moment.
    """

    def __init__(self, on_over: Callable[[T, float], None]) -> None:
        self._on_over = on_over
        self._heap: list[tuple[float, int, T, float]] = []
        self._numbers = itertools.count()
        self._ended = 0
        """How many things in the heap have ended."""
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        """When the timer fires, in loop time."""

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline: float, thing: T, timeout: float) -> None:
        """Watch a deadline.

        Args:
            deadline: Loop time.
            thing: What may end before. When it ends, call :meth:`note_end`.
            timeout: Given back to ``on_over``, in seconds.
        """
        heapq.heappush(self._heap, (deadline, next(self._numbers), thing, timeout))
        if self._timer is None or deadline < self._next:
            self._set_timer(deadline)

    def note_end(self) -> None:
        """Note that one of the things has ended, so that it can be forgotten."""
        self._ended += 1
        if self._ended > _MOST_OVER and self._ended * 2 > len(self._heap):
            self._heap = [each for each in self._heap if not each[2].done]
            heapq.heapify(self._heap)
            self._ended = 0

    def close(self) -> None:
        """Watch no deadline any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = asyncio.get_running_loop().call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        due: list[tuple[float, int, T, float]] = []
        while self._heap and (self._heap[0][0] <= self._next or self._heap[0][2].done):
            due.append(heapq.heappop(self._heap))
        if self._heap:
            self._set_timer(self._heap[0][0])
        for _, _, thing, timeout in due:
            if thing.done:
                self._ended = max(0, self._ended - 1)
            else:  # an error in one call of the function does not stop the others
                asyncio.get_running_loop().call_soon(self._on_over, thing, timeout)
