"""Shares a limited room among senders, so that one of them cannot use up the room of all others."""

from __future__ import annotations

from collections import Counter

__all__ = ["Room"]


class Room:
    """Counts what the senders of messages use of a limited room, and says who may use more of it.

    A sender may use more as long as it uses no more than what is left. So a single sender gets half of the room, each
    of two senders gets a third, and there is always something left for a sender that comes later. Senders whose names
    nothing proves have a room of their own, because each of them can choose any number of names.

    Args:
        most: How much all proven senders may use together, in any unit. The other senders may use as much again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._total: Counter[bool] = Counter()
        self._used: Counter[tuple[str, bool]] = Counter()

    def take(self, sender: str, size: int, *, proven: bool) -> bool:
        """Use some of the room for a sender, if the sender may use it.

        Args:
            sender: The name of the sender.
            size: How much to use.
            proven: Whether something proves the name of the sender.

        Returns:
            Whether the sender may use it. Then :meth:`leave` must follow.
        """
        left = self._most - self._total[proven]
        if max(size, self._used[sender, proven]) > left:
            return False
        self._total[proven] += size
        self._used[sender, proven] += size
        return True

    def leave(self, sender: str, size: int, *, proven: bool) -> None:
        """Give back what :meth:`take` has taken, at once or in parts. A size of 0 changes nothing."""
        if not size:
            return
        self._total[proven] -= size
        self._used[sender, proven] -= size
        if not self._used[sender, proven]:
            del self._used[sender, proven]
