"""Texts for messages: the name that a user probably meant, and numbers with their noun."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from itertools import islice

from mqtt_agent.display.html import one_line

__all__ = ["counted", "did_you_mean", "hint_for"]

_COMPARED = 2000
_LIKE = 0.6
"""How alike two names are at least, from 0 to 1; see :func:`difflib.get_close_matches`."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for the end of an error message, for example ``; did you mean 'search'?``.

    Args:
        name: The name that was not found.
        known: The names that exist. Only the first 2,000 are compared, so that the message does not take long.

    Returns:
        The question with the most similar name. An empty text when no name is similar.
    """
    by_lower = {each.lower(): each for each in islice(known, _COMPARED)}
    near = difflib.get_close_matches(name[:255].lower(), by_lower, 1, _LIKE)
    return f"; did you mean {one_line(by_lower[near[0]])!r}?" if near else ""


def hint_for(name: str, known: Collection[str], what: str) -> str:
    """A hint for the end of an error message about a name that nobody in a namespace has.

    Args:
        name: The name that was not found.
        known: The names in the namespace.
        what: What the name would be, for example ``tool``.

    Returns:
        The question of :func:`did_you_mean`. When the namespace has no name at all, a hint at a wrong namespace.
    """
    if known:
        return did_you_mean(name, known)
    return f"; this namespace has no {what} at all: do all programs use the same broker and the same namespace?"


def counted(count: int, what: str) -> str:
    """A number with its noun, for example ``1 tool`` or ``1,200 tools``.

    Args:
        count: How many there are.
        what: The noun in the singular. Its plural has an ``s`` at the end.
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"
