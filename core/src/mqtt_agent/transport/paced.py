"""Sending many messages no faster than the broker takes them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["PacedSender"]

_UNCONFIRMED = 32


class PacedSender:
    """Publishes to one topic; whoever sends waits while more than 32 messages are unconfirmed.

    A message that the broker refuses is dropped: it is for what may get lost, such as progress.

    Args:
        send: Publishes a payload, and returns the future of the broker's confirmation.
    """

    def __init__(self, send: Callable[[bytes], asyncio.Future[int]]) -> None:
        self._send = send
        self._unconfirmed: deque[asyncio.Future[int]] = deque()

    async def send(self, payload: bytes) -> None:
        """Publish, and wait for the oldest messages when too many are under way.

        Raises:
            PayloadTooLarge, QueueFull, TransportError: As for :meth:`Connection.publish_soon`.
        """
        self._unconfirmed.append(self._send(payload))
        while self._unconfirmed and (self._unconfirmed[0].done() or len(self._unconfirmed) > _UNCONFIRMED):
            oldest = self._unconfirmed.popleft()
            if not oldest.done():
                await asyncio.wait([oldest])
