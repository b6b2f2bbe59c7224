"""Telling each fault of a peer once, however often it repeats it."""

from __future__ import annotations

import logging
from collections import OrderedDict

__all__ = ["FaultLog"]

_REMEMBERED = 1000


class FaultLog:
    """Logs what peers send wrong: the first time as a warning, each repeat at debug level only.

    Args:
        logger: Where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def tell(self, topic: str, kind: str, detail: object) -> None:
        """Log a fault.

        Args:
            topic: Where the message came in.
            kind: A short constant text, the same for each repeat.
            detail: What exactly was wrong; peers choose it, so it is cut at 300 characters.
        """
        key = (topic[:300], kind)
        level = logging.DEBUG if key in self._told else logging.WARNING
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self._logger.log(level, "%s on %s: %s", kind, _printable(topic), _printable(str(detail)))


def _printable(text: str) -> str:
    """In one line, without what could command a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:300])
