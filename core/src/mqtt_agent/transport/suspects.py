"""Finds the message for which a broker closes the connection each time, so that the other messages can be sent."""

from __future__ import annotations

import asyncio

from mqtt_agent.errors import ConnectionLost, PoisonMessage, TransportError

__all__ = ["Suspects"]

_GUILTY_FROM = 3
"""How many connections in a row must be lost while a message is sent alone, until the message is given up."""
_GUILTY_WITHIN = 2.0
"""Seconds after the sending of a lone suspect. A connection that is lost later is lost for another reason."""
_REFUSED_FOR = 600.0
"""Seconds for which the message that was found is refused at once. After that time, the broker may take it."""
_MOST_SUSPECTS = 100
"""How many messages each lost connection makes suspects. They are sent one after the other."""
_MOST = 1000

Key = tuple[str, bytes]
"""The topic and the payload of a message. A sender may send the same message again after an error."""


class Suspects:
    """The messages that were unconfirmed when a connection was lost, and the messages that were found guilty.

    Each message that was unconfirmed when a connection was lost is sent alone over the next connection: nothing else is
    unconfirmed meanwhile. When three connections in a row are lost at once after the same message was sent alone, the
    message is the reason. A network that breaks at random does not break three times at the same message.

    Attributes:
        losses: The messages that are sent alone, each with the number of connections that were lost at once after it.
        found: The messages that cost the connection, each with the loop time at which it was found, and the error.
    """

    def __init__(self) -> None:
        self.losses: dict[Key, int] = {}
        self.found: dict[Key, tuple[float, PoisonMessage]] = {}
        self._alone: Key | None = None
        self._alone_since = 0.0

    def must_be_alone(self, key: Key) -> bool:
        """Whether nothing else may be unconfirmed while this message is sent."""
        return key in self.losses

    def check(self, key: Key) -> None:
        """Refuse a message that was found to cost the connection.

        Raises:
            PoisonMessage: The broker would close the connection.
        """
        found = self.found.get(key)
        if found is None:
            return
        if asyncio.get_running_loop().time() - found[0] < _REFUSED_FOR:
            raise found[1]
        del self.found[key]

    def sent_alone(self, key: Key) -> None:
        """Note that a suspect is sent, and that nothing else is unconfirmed."""
        self._alone, self._alone_since = key, asyncio.get_running_loop().time()

    def confirmed(self, key: Key) -> None:
        """Note that the broker has taken a message."""
        self.losses.pop(key, None)
        self._alone = None

    def on_lost(self, unconfirmed: list[Key], reason: TransportError) -> PoisonMessage | None:
        """Note that the connection is lost.

        Args:
            unconfirmed: The messages that the broker had not confirmed.
            reason: Why the connection is lost.

        Returns:
            The error for the message that was alone, when this message is the reason.
        """
        alone, self._alone = self._alone, None
        for key in unconfirmed[:_MOST_SUSPECTS]:  # brokers read in order, so the guilty message is one of the first
            self.losses.setdefault(key, 0)
        while len(self.losses) > _MOST:
            del self.losses[next(iter(self.losses))]
        now = asyncio.get_running_loop().time()
        if alone is None or alone not in self.losses or now - self._alone_since > _GUILTY_WITHIN:
            return None
        self.losses[alone] += 1
        if self.losses[alone] < _GUILTY_FROM:
            return None
        losses = self.losses.pop(alone)
        code = (reason.reason_code if isinstance(reason, ConnectionLost) else None) or 0x80
        topic, payload = alone
        error = PoisonMessage(
            f"a message of {len(payload):,} bytes for {topic} was given up: the broker closed the connection {losses} "
            f"times when it got the message; the last time: {reason}; the broker's log may name the limit",
            topic=topic,
            reason_code=code,
        )
        self.found[alone] = now, error
        while len(self.found) > _MOST:
            del self.found[next(iter(self.found))]
        return error
