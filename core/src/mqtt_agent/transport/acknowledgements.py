"""Acknowledges messages to the broker (PUBACK): in order of arrival, and early when many are unacknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Acknowledgements", "PendingPuback"]

_RELIEF_AFTER = 0.025
"""Seconds before messages are acknowledged early. Short work ends within this time and needs no early PUBACK."""


class Acknowledgements:
    """The QoS 1 messages that one link has received and not acknowledged yet.

    Args:
        send: Sends the PUBACK with a packet identifier.
        max_unacknowledged: When more messages than this stay unacknowledged, the oldest whose work has started are
            acknowledged before the work is done. Otherwise a broker, which sends only a limited number of messages
            without acknowledgement, would stop sending during long work.

    Attributes:
        on_arrival: Whether each message is acknowledged as soon as its handlers have been called.
    """

    def __init__(self, send: Callable[[int], None], max_unacknowledged: int) -> None:
        self.on_arrival: bool = False
        self._send = send
        self._max_unacknowledged = max_unacknowledged
        self._loop = asyncio.get_running_loop()
        self._pending: deque[PendingPuback] = deque()  # in order of arrival
        self._relief: asyncio.TimerHandle | None = None

    def add(self, mid: int) -> PendingPuback:
        """Add a message that its handlers will acknowledge.

        Args:
            mid: The packet identifier of the message.
        """
        entry = PendingPuback(self, mid)
        self._pending.append(entry)
        if self.on_arrival:
            self._loop.call_soon(entry.acknowledge_on_arrival)  # the handlers are called first
        return entry

    def add_unhandled(self, mid: int) -> None:
        """Add a message that no handler gets, and acknowledge it.

        Args:
            mid: The packet identifier of the message.
        """
        entry = PendingPuback(self, mid)
        self._pending.append(entry)
        self._loop.call_soon(entry.acknowledge)

    def close(self) -> None:
        """Acknowledge nothing more, because the link is lost. The broker sends unacknowledged messages again."""
        if self._relief is not None:
            self._relief.cancel()
        self._pending.clear()

    def send_due(self) -> None:
        """Send the PUBACKs of finished messages, up to the first message that is not finished."""
        # MQTT requires the order of arrival, and some brokers close the connection otherwise.
        pending = self._pending
        while pending and pending[0].done:
            self._send(pending.popleft().mid)

    def check_window(self) -> None:
        """Schedule an early acknowledgement when too many messages are unacknowledged."""
        if len(self._pending) > self._max_unacknowledged and self._relief is None:
            self._relief = self._loop.call_later(_RELIEF_AFTER, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        excess = len(self._pending) - self._max_unacknowledged // 2
        for entry in list(self._pending)[: max(0, excess)]:
            if not entry.started and not entry.done:
                break
            entry.done = True
        self.send_due()


class PendingPuback:
    """The PUBACK of one message, from the arrival of the message until the PUBACK is sent."""

    __slots__ = ("_all", "done", "held", "mid", "started")

    def __init__(self, acknowledgements: Acknowledgements, mid: int) -> None:
        self._all = acknowledgements
        self.mid: int = mid
        self.done: bool = False
        self.started: bool = False
        self.held: bool = False

    def acknowledge_on_arrival(self) -> None:
        """Acknowledge after the handlers have been called, unless one of them holds the message."""
        if not self.held:
            self.acknowledge()

    def hold(self) -> None:
        """See :meth:`InboundMessage.hold`."""
        self.held = True

    def acknowledge(self) -> None:
        """See :meth:`InboundMessage.acknowledge`."""
        self.done = True
        self._all.send_due()
        self._all.check_window()

    def work_started(self) -> None:
        """See :meth:`InboundMessage.work_started`."""
        self.started = True
        self._all.check_window()
