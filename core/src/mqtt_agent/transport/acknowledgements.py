"""The PUBACKs that we owe the broker: in the order of arrival, and early when its window runs out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Acknowledgements", "Owed"]

_RELIEF_AFTER = 0.025  # seconds: quick work gets done, and acknowledged in time, before relief is needed


class Acknowledgements:
    """What one link has received at QoS 1 and not acknowledged yet.

    Args:
        send: Sends the PUBACK with this packet identifier.
        max_unacknowledged: When more messages than this stay unacknowledged, the oldest whose work has started are
            acknowledged before it is done, so that long work never uses up the broker's window.
    """

    def __init__(self, send: Callable[[int], None], max_unacknowledged: int) -> None:
        self.on_arrival = False
        """Whether each message is acknowledged as soon as its handlers have it."""
        self._send = send
        self._max_unacknowledged = max_unacknowledged
        self._loop = asyncio.get_running_loop()
        self._owed: deque[Owed] = deque()  # in the order of arrival
        self._relief: asyncio.TimerHandle | None = None

    def owe(self, mid: int) -> Owed:
        """A message came; it is acknowledged when its handlers say so."""
        entry = Owed(self, mid)
        self._owed.append(entry)
        if self.on_arrival:
            self._loop.call_soon(entry.acknowledge_on_arrival)  # its handlers have it by then
        return entry

    def owe_now(self, mid: int) -> None:
        """A message came that no handler gets."""
        entry = Owed(self, mid)
        self._owed.append(entry)
        self._loop.call_soon(entry.acknowledge)  # not under paho-mqtt's locks

    def close(self) -> None:
        """The link is gone, and nothing is owed any more: the next one brings what is unacknowledged again."""
        if self._relief is not None:
            self._relief.cancel()
        self._owed.clear()

    def send_due(self) -> None:
        """Send what is due."""
        # MQTT wants them in the order of arrival, and some brokers cut the connection otherwise.
        while self._owed and self._owed[0].done:
            self._send(self._owed.popleft().mid)

    def check_window(self) -> None:
        """See to it that long work does not use up the broker's window."""
        if len(self._owed) > self._max_unacknowledged and self._relief is None:
            self._relief = self._loop.call_later(_RELIEF_AFTER, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        excess = len(self._owed) - self._max_unacknowledged // 2
        for entry in list(self._owed)[: max(0, excess)]:
            if not entry.started and not entry.done:
                break
            entry.done = True
        self.send_due()


class Owed:
    """The PUBACK of one message."""

    __slots__ = ("_all", "done", "held", "mid", "started")

    def __init__(self, acknowledgements: Acknowledgements, mid: int) -> None:
        self._all = acknowledgements
        self.mid: int = mid
        self.done: bool = False
        self.started: bool = False
        self.held: bool = False

    def acknowledge_on_arrival(self) -> None:
        """Its handlers have it."""
        if not self.held:
            self.acknowledge()

    def hold(self) -> None:
        """It is about to be stored, and is not to be acknowledged before."""
        self.held = True

    def acknowledge(self) -> None:
        """The work is done."""
        self.done = True
        self._all.send_due()
        self._all.check_window()

    def work_started(self) -> None:
        """The work has started: from now on, it may be acknowledged early."""
        self.started = True
        self._all.check_window()
