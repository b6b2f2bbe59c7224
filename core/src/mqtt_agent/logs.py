"""Loggers whose records stay one line each, whatever a peer has written into a name, an id or an error.

A record that a peer could break into several lines, or fill with escape sequences, would tell lies: a forged line looks
like a line of this program, and a terminal obeys what it is shown.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Any

__all__ = ["logger_of", "printable", "traceback_of"]

_LONGEST = 2000
"""How many characters of one value a record has. A peer may write a megabyte."""
_LONGEST_PART = 10_000
"""How many characters of one message a traceback has."""
_BETWEEN = (
    "\nThe above exception was the direct cause of the following exception:\n\n",
    "\nDuring handling of the above exception, another exception occurred:\n\n",
)
"""What Python writes between the tracebacks of two exceptions."""


def logger_of(name: str) -> logging.Logger:
    """The logger of a module. Values are cleaned only in records that are written.

    Args:
        name: The name of the module.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_clean)
    return logger


def printable(text: str, longest: int = _LONGEST) -> str:
    r"""The text in one line, with control characters escaped, because a terminal would obey them.

    Example:
        >>> printable("forecast\nERROR all is lost")
        'forecast\\nERROR all is lost'
    """
    cut = text[:longest]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
    return cut if len(text) <= longest else f"{cut}…"


class _Shown:
    """A value whose own text would break the line."""

    def __init__(self, text: str, described: str) -> None:
        self._text = text
        self._described = described

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._described


def _clean(record: logging.LogRecord) -> bool:
    if isinstance(record.args, Mapping):
        record.args = {key: _cleaned(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(map(_cleaned, record.args))
    else:
        record.msg = _cleaned(record.msg)
    if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
        record.exc_text = _traceback(record.exc_info[1])
    return True


def _cleaned(value: Any) -> Any:
    """The value itself where its text is one short line, so that handlers that look at values find them."""
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        return printable(value)
    try:
        text, described = str(value), repr(value)
    except Exception as error:  # the text of somebody else's exception: a log must not end the work that it tells of
        text = f"<{type(value).__name__} without a text: {type(error).__name__}>"
        return _Shown(text, text)
    shown = _Shown(printable(text), printable(described))
    return value if (str(shown), repr(shown)) == (text, described) else shown


def _traceback(error: BaseException) -> str | None:
    """The traceback with messages that cannot be taken for other lines; None where the ordinary one is as good."""
    try:
        parts = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:  # the logging of Python tells it when it makes the traceback itself
        return None
    shown = _shown(parts)
    return None if shown == "".join(parts) else shown.rstrip("\n")


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, with messages that cannot be taken for other lines."""
    return _shown(traceback.format_exception(type(error), error, error.__traceback__))


def _shown(parts: list[str]) -> str:
    shown: list[str] = []
    told = False  # whether the message of this exception was told, so that the lines that follow are its notes
    for part in parts:
        if part in _BETWEEN:
            told = False
            shown.append(part)
            continue
        lines = part.rstrip("\n")[:_LONGEST_PART].split("\n")
        for number, line in enumerate(lines):
            # The lines of a traceback itself are indented, except its head and the first line of its message.
            indent = "" if line.startswith(" ") or (number == 0 and not told) else "    "
            shown.append(printable(indent + line, _LONGEST_PART) + "\n")
        told = told or not part.startswith((" ", "Traceback "))
    return "".join(shown)
