"""Recognizes that two processes with the same client id disconnect each other, at a broker that does not say so."""

from __future__ import annotations

from collections import deque

__all__ = ["Takeovers"]

_COUNT = 20  # fewer may be a proxy that closes each connection for a while: then the client must go on
_WITHIN = 120.0  # seconds
_LONGEST = 6.0
"""Seconds that most links live at most in such a fight, because the other process reconnects after a short wait.

Links of about the same, longer life have another cause: a proxy that closes idle connections.
"""
_STABLE_AFTER = 20.0  # seconds; such a link ends the suspicion


class Takeovers:
    """Counts the links that ended as they end when another process connects with the same client id.

    A broker that tells nothing just closes the connection, and keeps the session. So do these links end: shortly after
    they were opened, without an error of the network, and while the broker owed no answer. A network that breaks, a
    broker that restarts, and a broker that does not like a message look different.

    Of two processes, only the process that was there first reaches the limit. The other process is then connected, and
    is left alone, as at a broker that tells the first process of the takeover.
    """

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=_COUNT)

    def clear(self) -> None:
        """Forget the links that ended, because another cause was found."""
        self._ends.clear()

    def note(self, now: float, lived: float, *, quietly: bool, session_present: bool) -> bool:
        """Note the end of a link.

        Args:
            now: Loop time.
            lived: Seconds that the link was open.
            quietly: Whether the broker closed the connection without a word, and owed no answer.
            session_present: Whether the broker had the session when the link was opened.

        Returns:
            Whether another process uses the client id.
        """
        first = not self._ends  # the first link that is taken over may be old, or may have a new session
        if not first and (lived > _STABLE_AFTER or not session_present):
            self._ends.clear()
        elif quietly and (first or lived < _LONGEST):
            self._ends.append(now)
        return len(self._ends) == _COUNT and now - self._ends[0] < _WITHIN
