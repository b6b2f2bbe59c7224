"""Remembers which messages were handled, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

__all__ = ["Seen"]


class Seen:
    """The latest ids of messages that were handled. Only a hash of each id is kept, because peers may choose
    long ids.

    Args:
        most: How many ids to remember. The oldest are forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._hashes: OrderedDict[int, None] = OrderedDict()

    def add(self, key: Hashable) -> bool:
        """Remember an id. Returns whether the id is new."""
        number = hash(key)
        if number in self._hashes:
            return False
        self._hashes[number] = None
        if len(self._hashes) > self._most:
            self._hashes.popitem(last=False)
        return True

    def has(self, key: Hashable) -> bool:
        """Whether an id is remembered."""
        return hash(key) in self._hashes
