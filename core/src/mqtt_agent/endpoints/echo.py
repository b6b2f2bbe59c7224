"""Words that one says to oneself: when one comes back, everything has come that the broker had before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mqtt_agent.transport import Connection, InboundMessage

__all__ = ["Echo"]


class Echo:
    """Publishes to a topic that this side is subscribed to, and waits for its own message.

    Args:
        connection: Where it is published.
        topic: The topic. Whoever is subscribed to it shows each message to :meth:`heard`.
        word: Makes a message, another one each time.
    """

    def __init__(self, connection: Connection, topic: str, word: Callable[[], bytes]) -> None:
        self.topic = topic
        self._connection = connection
        self._word = word
        self._awaited: dict[bytes, asyncio.Event] = {}

    def heard(self, message: InboundMessage) -> bool:
        """Whether a message is a word that is waited for."""
        came = self._awaited.get(message.payload) if self._awaited else None
        if came is not None:
            came.set()
        return came is not None

    async def comes(self, timeout: float) -> bool:
        """Say a word, and wait until it comes back; False when it does not within ``timeout`` seconds.

        Raises:
            TransportError: The connection ended, or the broker does not let us publish there.
        """
        word = self._word()
        came = self._awaited[word] = asyncio.Event()
        try:
            await self._connection.publish(self.topic, word)
            await asyncio.wait_for(came.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            del self._awaited[word]
        return True
