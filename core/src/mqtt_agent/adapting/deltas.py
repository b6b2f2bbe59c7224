"""The difference between two JSON values, small when a long list has grown or a few keys have changed.

The state of an agent grows with its conversation. With the difference to the state before, the states after all turns
take as much room as the conversation, and not as much as its square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

__all__ = ["changed", "difference"]

_VALUE, _KEYS, _TAIL = "value", "keys", "tail"


def difference(old: Any, new: Any) -> list[Any]:
    """The change that makes ``new`` from ``old``, as a JSON value for :func:`changed`.

    Args:
        old: Any JSON value.
        new: Any JSON value. Parts of it may become parts of the change.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _difference_of_objects(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", new))
    if isinstance(old, list) and isinstance(new, list):
        return _difference_of_lists(cast("list[Any]", old), cast("list[Any]", new))
    return [_VALUE, new]


def _difference_of_objects(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Any]:
    changes = {key: difference(old[key], new[key]) for key in new if key in old and not _same(old[key], new[key])}
    added = {key: [_VALUE, new[key]] for key in new if key not in old}
    return [_KEYS, {**changes, **added}, [key for key in old if key not in new]]


def _difference_of_lists(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    same = 0
    while same < min(len(old), len(new)) and _same(old[same], new[same]):
        same += 1
    return [_TAIL, same, list(new[same:])]


def _same(old: Any, new: Any) -> bool:
    """Whether two values are the same JSON: for Python, True equals 1 and 1 equals 1.0."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        one, other = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(old, list):
        items, others = cast("list[Any]", old), cast("list[Any]", new)
        return len(items) == len(others) and all(map(_same, items, others))
    return bool(old == new)


def changed(old: Any, change: Sequence[Any]) -> Any:
    """Apply a change.

    Args:
        old: The value from which the change was made. It is not changed.
        change: The change, from :func:`difference`.

    Returns:
        The new value, which may share parts with ``old`` and ``change``.
    """
    kind = change[0]
    if kind == _TAIL:
        return [*old[: change[1]], *change[2]]
    if kind == _KEYS:
        kept = {key: value for key, value in old.items() if key not in change[2]}
        return {**kept, **{key: changed(old.get(key), each) for key, each in change[1].items()}}
    return change[1]
