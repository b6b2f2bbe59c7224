"""Recognizes retained messages that reach the broker only after a reconnect."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from mqtt_agent.transport import Connection

__all__ = ["LateMessages"]


class LateMessages:
    """Retained messages that were published over a connection that was lost, and were sent again over the next one.

    Such a message does not show that its publisher was online in between: it may have replaced a Last Will.

    Args:
        connection: The connection that publishes the messages.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unconfirmed = 0
        self._came = False
        """Whether the latest confirmed message was published in an earlier epoch of the connection."""

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Watch whether the connection is lost before the message is confirmed that is published in this context."""
        epoch = self._connection.epoch
        self._unconfirmed += 1
        try:
            yield
            if self._connection.epoch == epoch:
                self._came = False  # this message has replaced it
        finally:
            self._unconfirmed -= 1
            if self._connection.epoch != epoch:
                self._came = True

    @property
    def may_be_latest(self) -> bool:
        """Whether the latest message that the broker has may be one that reached it only after a reconnect.

        Further reconnects do not change that.
        """
        return self._unconfirmed > 0 or self._came
