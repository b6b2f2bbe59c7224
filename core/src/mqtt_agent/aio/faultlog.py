"""Refuses and logs faulty messages of peers. A repeated fault gives one warning only."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Protocol

from mqtt_agent.logs import printable

__all__ = ["FaultLog", "Refusable"]

_REMEMBERED = 1000
_LONGEST = 300


class Refusable(Protocol):
    """A message that can be refused, such as :class:`mqtt_agent.transport.InboundMessage`."""

    topic: str

    def refuse(self, reason: str, code: str = "") -> None:
        """Note that the message is not acted upon."""


class FaultLog:
    """Logs faults of peers: the first time as a warning, each repeat at debug level only.

    Args:
        logger: The logger to write to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def refuse(self, message: Refusable, kind: str, detail: object) -> None:
        """Note on a message that it is not acted upon, and log why; see :meth:`tell`."""
        message.refuse(f"{kind}: {printable(str(detail), _LONGEST)}")
        self.tell(message.topic, kind, detail)

    def tell(self, topic: str, kind: str, detail: object) -> None:
        """Log a fault.

        Args:
            topic: The topic of the faulty message.
            kind: The kind of fault, a short constant text. A fault with the same topic and kind is a repeat.
            detail: What exactly is wrong. Peers can influence this text, so it is cut at 300 characters.
        """
        key = (topic[:300], kind)
        level = logging.DEBUG if key in self._told else logging.WARNING
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self._logger.log(level, "%s on %s: %s", kind, printable(topic, _LONGEST), printable(str(detail), _LONGEST))
