"""Publishes an endpoint's own retained messages again when somebody else has overwritten them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mqtt_agent.aio.backoff import Backoff

__all__ = ["Corrections"]

_FIRST, _LONGEST = 1.0, 60.0
"""Seconds until a correction: at first, and at most."""
_QUIET = 120.0
"""Seconds without a foreign message after which the waits begin anew."""
_REMEMBERED = 50
"""How many of its own messages an endpoint recognizes."""


class Corrections:
    """Knows what an endpoint has published, and corrects what others have published in its place.

    The first correction is made after up to one second, and each further correction after twice the time, up to one
    minute. So two clients that overwrite each other's messages do not flood the broker.

    Args:
        correct: Publishes the endpoint's messages again.
    """

    def __init__(self, correct: Callable[[], None]) -> None:
        self._correct = correct
        self._own: deque[int] = deque(maxlen=_REMEMBERED)
        self._backoff = Backoff(_FIRST, _LONGEST)
        self._latest = 0.0  # loop time of the latest foreign message
        self._timer: asyncio.TimerHandle | None = None

    def note(self, payload: bytes) -> bytes:
        """Remember a message that the endpoint is about to publish. Returns the message."""
        self._own.append(hash(payload))
        return payload

    def is_own(self, payload: bytes) -> bool:
        """Whether the endpoint itself has published this message."""
        return hash(payload) in self._own

    def soon(self) -> None:
        """Correct a foreign message, unless a correction is due already."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._latest > _QUIET:
            self._backoff.reset()
        self._latest = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._backoff.next_wait(), self._due)

    def stop(self) -> None:
        """Correct nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._correct()
