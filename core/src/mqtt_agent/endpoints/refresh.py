"""Publishes an endpoint's retained messages again before a broker that limits the life of messages forgets them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from mqtt_agent.transport import InboundMessage

__all__ = ["Refresher"]

_SHORTEST = 1.0
"""Seconds between two refreshes of a topic, at least."""
_SHARE = 2 / 3
"""The share of a message's life after which it is published again, shortened by up to a tenth at random."""


class Refresher:
    """Watches an endpoint's own retained messages, which the endpoint publishes without a Message Expiry Interval.

    When such a message comes back with an interval, the broker has added it, and will forget the message. Nothing is
    sent at other brokers. When another replica has published the message again, the wait begins anew.

    Args:
        publish: Publishes the message of a topic again.
    """

    def __init__(self, publish: Callable[[str], None]) -> None:
        self._publish = publish
        self._due: dict[str, float] = {}  # by topic: loop time
        self._timer: asyncio.TimerHandle | None = None

    def note(self, message: InboundMessage) -> None:
        """Take one of the endpoint's own messages."""
        if message.message_expiry is None:
            self._due.pop(message.topic, None)
            return
        wait = max(_SHORTEST, message.message_expiry * _SHARE * random.uniform(0.9, 1))
        self._due[message.topic] = asyncio.get_running_loop().time() + wait
        self._schedule()

    def stop(self) -> None:
        """Publish nothing more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        earliest = min(self._due.values(), default=None)
        self._timer = None if earliest is None else asyncio.get_running_loop().call_at(earliest, self._refresh)

    def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        for topic in [topic for topic, due in self._due.items() if due <= now]:
            del self._due[topic]  # the message comes back, and is noted again
            self._publish(topic)
        self._schedule()
