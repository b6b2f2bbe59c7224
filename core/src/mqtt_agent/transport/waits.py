"""Chooses how long a connection waits before each attempt to connect again."""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost

__all__ = ["ReconnectWaits"]

_FIRST = 0.2  # seconds
_LONGEST_AFTER_BREAK = 5.0  # seconds
_LONGEST_UNREACHABLE = 10.0
"""Seconds. Peers wait 15 s for each other, when a broker comes back without its state. An attempt takes time too."""
_LONGEST_REFUSED = 30.0  # seconds
_STABLE_AFTER = 5.0  # seconds; after a link that lived longer, the waits after breaks begin with the shortest again


class ReconnectWaits:
    """Waits before each attempt to connect again, longer and longer while the same kind of fault lasts.

    - The broker has accepted the client, and the link broke. The next attempt will probably be accepted too. The wait
      is at most half of the will delay, so the client is back before the broker publishes the Last Will, however often
      the link breaks. It grows nevertheless, because the client itself may be why the link breaks.
    - The broker is not reachable. The wait is at most 10 s.
    - The broker refuses the client. Somebody must change a right, and the wait is at most 30 s.

    Args:
        will_delay: Seconds that the broker waits before it publishes the Last Will. With 0, nothing prevents that, and
            the wait after a break is at most 5 s.
    """

    def __init__(self, will_delay: float) -> None:
        after_break = min(_LONGEST_AFTER_BREAK, will_delay / 2) if will_delay else _LONGEST_AFTER_BREAK
        self._after_break = Backoff(_FIRST, after_break)
        self._unreachable = Backoff(_FIRST, _LONGEST_UNREACHABLE)
        self._refused = Backoff(_FIRST, _LONGEST_REFUSED)
        self._next = self._after_break

    def note_break(self, lived: float) -> None:
        """Note that a link broke that the broker had accepted.

        Args:
            lived: Seconds that the link was open.
        """
        if lived > _STABLE_AFTER:
            self._after_break.reset()
        self._unreachable.reset()
        self._refused.reset()
        self._next = self._after_break

    def note_failure(self, errors: Sequence[Exception]) -> None:
        """Note that an attempt has failed.

        Args:
            errors: Why, at each of the brokers.
        """
        if any(isinstance(error, ConnectionLost) for error in errors):  # it broke while the client subscribed
            self.note_break(0)
        elif any(isinstance(error, BrokerUnreachable) for error in errors):
            self._next = self._unreachable
        else:
            self._next = self._refused

    def next_wait(self) -> float:
        """Choose the wait before the next attempt, in seconds."""
        return self._next.next_wait()
