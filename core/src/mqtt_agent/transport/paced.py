"""Sends many messages to one topic, no faster than the broker confirms them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["PacedSender"]

_UNCONFIRMED = 32


class PacedSender:
    """Publishes messages, and makes the sender wait while more than 32 of them are unconfirmed.

    A message that the broker refuses is dropped. So use it for messages that may get lost, such as progress.

    Args:
        send: Publishes a payload, and returns the future of the broker's confirmation.
    """

    def __init__(self, send: Callable[[bytes], asyncio.Future[int]]) -> None:
        self._send = send
        self._unconfirmed: deque[asyncio.Future[int]] = deque()

    async def send(self, payload: bytes) -> None:
        """Publish a payload. When too many messages are unconfirmed, wait for the oldest.

        Raises:
            PayloadTooLarge, QueueFull, TransportError: As for :meth:`Connection.publish_soon`.
        """
        confirmed = self._send(payload)
        self._unconfirmed.append(confirmed)
        while self._unconfirmed and (self._unconfirmed[0].done() or len(self._unconfirmed) > _UNCONFIRMED):
            oldest = self._unconfirmed.popleft()
            if not oldest.done():
                await asyncio.wait([oldest])
