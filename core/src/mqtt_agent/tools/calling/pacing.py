"""Sends calls that a broker has lost again, no faster than the servers take them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.waiting import within
from mqtt_agent.tools.calling.pending import PendingCall

__all__ = ["PacedCalls"]

_FIRST_WINDOW = 16 * 1024
"""Bytes of the calls that are sent at first, before the servers are asked whether the calls have arrived."""
_LARGEST_WINDOW = 4 * 1024 * 1024
_OVERHEAD = 256
"""Bytes that a call counts in addition to its payload, because brokers limit the number of messages too."""
_QUIET = 10.0
"""Seconds after the latest loss for which the calls of the tool are sent in this way."""


class PacedCalls:
    """The calls of one tool, after the broker has lost some of them.

    A broker keeps only so many messages and bytes for one receiver, and may confirm a message and drop it. So calls are
    sent in groups, and after each group the servers are asked which calls they have. The group grows while all calls
    arrive, and shrinks when some are lost again.

    Args:
        send: Sends a call.
        find_lost: Asks the servers for calls that were sent; returns the calls that nobody has.
    """

    def __init__(
        self,
        send: Callable[[PendingCall], None],
        find_lost: Callable[[list[PendingCall]], Awaitable[list[PendingCall]]],
    ) -> None:
        self._send = send
        self._find_lost = find_lost
        self._queue: dict[PendingCall, None] = {}
        self._window = _FIRST_WINDOW
        self._news = asyncio.Event()

    def add(self, pending: PendingCall) -> None:
        """Send a call when the calls before it have arrived."""
        self._queue[pending] = None
        pending.resend = _Place(self._queue, pending)
        self._news.set()

    async def run(self) -> None:
        """Send all calls, until no call was lost for ten seconds."""
        loop = asyncio.get_running_loop()
        lost_at = loop.time()
        while self._queue or loop.time() - lost_at < _QUIET:
            if not self._queue:
                self._news.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._news.wait(), lost_at + _QUIET - loop.time())
                continue
            group = self._take()
            for pending in group:
                self._send(pending)
            confirmed = [each.confirmed for each in group if each.confirmed is not None]
            if confirmed:
                await asyncio.wait(confirmed)
            lost = await self._find_lost(group)
            if lost:
                lost_at, self._window = loop.time(), max(1, self._window // 2)
                for pending in lost:
                    self.add(pending)
            else:
                self._window = min(_LARGEST_WINDOW, self._window * 2)

    def _take(self) -> list[PendingCall]:
        """Remove the next group from the queue: at least one call."""
        group: list[PendingCall] = []
        size = 0
        for pending in list(self._queue):
            size += len(pending.payload) + _OVERHEAD
            if group and size > self._window:
                break
            del self._queue[pending]
            group.append(pending)
        return group


class _Place:
    """A call's place in a queue. While it has one, no server has the call."""

    def __init__(self, queue: dict[PendingCall, None], pending: PendingCall) -> None:
        self._queue = queue
        self._pending = pending

    def cancel(self) -> None:
        """Leave the queue."""
        self._queue.pop(self._pending, None)
