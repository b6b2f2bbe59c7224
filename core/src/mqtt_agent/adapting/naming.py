"""What a language model calls a tool."""

from __future__ import annotations

import re

__all__ = ["legal_name"]

_MAX_NAME = 64


def legal_name(name: str, taken: set[str]) -> str:
    """A name that language models accept, ``[a-zA-Z0-9_-]{1,64}``, and that is not taken; it is taken then."""
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME] or "_"
    unique, number = legal, 1
    while unique in taken:
        number += 1
        suffix = f"_{number}"
        unique = legal[: _MAX_NAME - len(suffix)] + suffix
    taken.add(unique)
    return unique
