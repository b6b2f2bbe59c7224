"""Puts names into the order in which they came."""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["first_come"]


def first_come(came: Iterable[str], names: Collection[str]) -> list[str]:
    """Put those names first that have come, as they came, and then the other names, sorted.

    Args:
        came: The names that have come, the first one first, each only once. Other names are ignored.
        names: The names to put in order.

    Example:
        >>> first_come(["web", "files", "old"], {"a", "files", "web", "b"})
        ['web', 'files', 'a', 'b']
    """
    known = [name for name in came if name in names]
    return known + sorted(set(names).difference(known))
