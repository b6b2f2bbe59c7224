"""Finds the line of a TOML file at which a table or a key stands, for error messages."""

from __future__ import annotations

import re

__all__ = ["line_of"]

_HEADER = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))\s*[.=]""")


def line_of(text: str, table: tuple[str, ...] = (), key: str | None = None) -> int | None:
    """The number of the line, from 1, at which a key of a table stands; the table's own line when the key is missing.

    Args:
        text: The text of the file.
        table: The names of the table, from the outermost one; empty for the top of the file.
        key: The key, or None for the table itself.

    Returns:
        None when the table is written in another form than ``[a.b]``.
    """
    found: int | None = None if table else 1
    here: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            here = _names(header[1])
            if here == table:
                found = number
            continue
        word = _KEY.match(line)
        if key is not None and here == table and word is not None and key in word.groups():
            return number
    return found


def _names(header: str) -> tuple[str, ...]:
    """The names in a table's header, such as ``programs."weather.eu"``."""
    return tuple(
        a or b or c for a, b, c in re.findall(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?""", header)
    )
