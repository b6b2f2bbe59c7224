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
        lost = list[str]()
        if owner not in self._keys and len(self._keys) >= _MOST_OWNERS:
            weaker = next((each for each in self._keys if self._proven(owner) and not self._proven(each)), None)
            if weaker is None:
                return None
            lost += [each for each in list(self._keys[weaker]) if self.leave(weaker, each) and each != key]
        if key not in self._owners and len(self._owners) >= self._most:
            given = self._given(owner)
            if given is None:
                return None
            self.drop(given)
            lost.append(given)
        self._owners.setdefault(key, {})[owner] = None
        self._keys.setdefault(owner, {})[key] = None
        return lost

    def _given(self, owner: Owner) -> str | None:
        """What loses its place to an owner: the oldest that only owners have who must give some away.

        What one owner has for itself alone goes first. But names that work together could share all places, so a place
        that several of them share goes too.
        """
        proven, has = self._proven(owner), len(self._keys.get(owner, ()))

        def gives(other: Owner) -> bool:
            if other == owner or (self._proven(other) and not proven):
                return False
            return (proven and not self._proven(other)) or len(self._keys[other]) > has + 1

        giving = {each: None for each in self._keys if gives(each)}  # in their order, so that equal ones give in turn
        shared: str | None = None
        for each in sorted(giving, key=lambda other: (self._proven(other), -len(self._keys[other]))):
            for key in self._keys[each]:
                if len(self._owners[key]) == 1:
                    return key
                if shared is None and giving.keys() >= self._owners[key].keys():
                    shared = key
        return shared

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
