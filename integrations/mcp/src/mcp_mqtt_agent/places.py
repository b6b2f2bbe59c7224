"""Shares out a limited number of places among those who ask for them, so that nobody can use up all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Places"]

_MOST_OWNERS = 10_000

Owner = TypeVar("Owner", bound=Hashable)


class Places(Generic[Owner]):
    """Who has a place for what. Several owners can share a place.

    When all places are taken, an owner who has fewer places than another one gets one of the other's. So each owner
    can have the same part of the places, and may have more while nobody else needs them.

    Args:
        most: How many places there are.
        proven: Whether an owner is who it says. Others can take new names again and again. So they get no place of an
            owner who is proven, and such an owner gets theirs.
    """

    def __init__(self, most: int, proven: Callable[[Owner], bool] = lambda _: True) -> None:
        self._most = most
        self._proven = proven
        self._owners: dict[str, dict[Owner, None]] = {}
        """Who has each place."""
        self._keys: dict[Owner, dict[str, None]] = {}
        """What each owner has a place for, the oldest first."""

    def __contains__(self, key: str) -> bool:
        return key in self._owners

    def taken(self) -> list[str]:
        """What has a place."""
        return list(self._owners)

    def take(self, owner: Owner, key: str) -> list[str] | None:
        """Give an owner a place for something.

        Returns:
            What has lost its place, so that nobody has it now. None if the owner gets no place.
        """
        if owner in self._owners.get(key, ()):
            return []
        if owner not in self._keys and len(self._keys) >= _MOST_OWNERS:
            return None
        lost = list[str]()
        if key not in self._owners and len(self._owners) >= self._most:
            victim = self._victim(owner)
            if victim is None:
                return None
            giver, given = victim
            self.leave(giver, given)
            lost.append(given)
        self._owners.setdefault(key, {})[owner] = None
        self._keys.setdefault(owner, {})[key] = None
        return lost

    def _victim(self, owner: Owner) -> tuple[Owner, str] | None:
        """Whose place an owner gets, and what for: the oldest that another owner has for itself alone."""
        proven, has = self._proven(owner), len(self._keys.get(owner, ()))
        for each in sorted(self._keys, key=lambda other: (self._proven(other), -len(self._keys[other]))):
            weaker = proven and not self._proven(each)
            stronger = self._proven(each) and not proven
            if each == owner or stronger or not (weaker or len(self._keys[each]) > has + 1):
                continue
            alone = next((key for key in self._keys[each] if len(self._owners[key]) == 1), None)
            if alone is not None:
                return each, alone
        return None

    def leave(self, owner: Owner, key: str) -> bool:
        """Take a place away from an owner. Returns whether nobody has this place now."""
        owners = self._owners.get(key, {})
        if owner not in owners:
            return False
        del owners[owner], self._keys[owner][key]
        if not self._keys[owner]:
            del self._keys[owner]
        if not owners:
            del self._owners[key]
        return not owners

    def drop(self, key: str) -> None:
        """Take a place away from all its owners."""
        for owner in list(self._owners.get(key, ())):
            self.leave(owner, key)
