"""A copy of what is retained below a few topic filters: when all of it has come, and what is gone from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.echo import Echo
from mqtt_agent.errors import TopicNotAuthorized, TransportError, WireError
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Message, decode

__all__ = ["BARRIER", "PATIENCE", "Retained", "Source"]

logger: logging.Logger = logging.getLogger(__name__)

BARRIER = "barrier-"
"""How the ids begin of what one says to oneself: they tell that everything before has come."""
PATIENCE = 15.0
"""Seconds that others get to show themselves again after a broker has forgotten everything."""
_MAX_CARD = 256 * 1024
_ECHO_TIMEOUT = 5.0

M = TypeVar("M", bound=Message)
Handler = Callable[[InboundMessage], None]


@dataclass(frozen=True)
class Source:
    """What is followed, and what is done with it.

    Attributes:
        filters: The topic filters, and what is called with each message below them.
        forget: Called with each topic where nothing is retained any more.
        without: What is not possible where the broker does not allow a filter, for the log.
        echo: Tells when all retained messages have come. Its topic is subscribed to.
        more: Waits for what the retained messages have led to; called when all have come, and before any is forgotten.
    """

    filters: Sequence[tuple[str, Handler]]
    forget: Callable[[str], None]
    without: str
    echo: Echo
    more: Callable[[], Awaitable[None]] | None = None


class Retained:
    """Follows retained messages through lost connections.

    Args:
        connection: Where to listen.
        source: What to follow.
        namespace: Where it all is, for the log.
        most: How many messages to keep; more are ignored, and told once.
        faults: Where to tell what is wrong with a message.
    """

    def __init__(self, connection: Connection, source: Source, namespace: str, most: int, faults: FaultLog) -> None:
        self._connection = connection
        self._source = source
        self._namespace = namespace
        self._most = most
        self._faults = faults
        self._seen: dict[str, int] = {}
        self._complete: asyncio.Task[bool] | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Subscribe; the messages come in the background."""
        allowed = True
        for topic_filter, handler in self._source.filters:
            try:
                # QoS 0 on purpose: brokers cap what they queue for QoS 1 (Mosquitto: 1,000), and would leave some out.
                await self._connection.subscribe(topic_filter, handler, qos=0, snapshot=True)
            except TopicNotAuthorized as error:
                allowed = False
                logger.warning("%s; %s", error, self._source.without)
        await self._connection.subscribe(self._source.echo.topic, self._on_echo)
        self._complete = asyncio.create_task(self._look(allowed, patience=0.0))

    async def stop(self) -> None:
        """Unsubscribe."""
        if self._complete is not None:
            self._complete.cancel()
            self._complete = None
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        for topic_filter, handler in (*self._source.filters, (self._source.echo.topic, self._on_echo)):
            await self._connection.unsubscribe(topic_filter, handler)
        self._seen.clear()

    def on_reconnected(self) -> None:
        """The connection is back, and shows everything anew."""
        self._complete = asyncio.create_task(self._look(True, PATIENCE))

    async def complete(self) -> bool:
        """Wait until all retained messages have been seen; False when the broker does not let us see them all."""
        if self._complete is None:
            return False
        try:
            return await asyncio.shield(self._complete)
        except TransportError:
            return False

    async def barrier(self) -> bool:
        """Wait until everything that the broker had for us has come; False when it does not let us know."""
        why: object = "no echo of our own message"
        try:
            if await self._source.echo.comes(_ECHO_TIMEOUT):
                return True
        except TransportError as error:
            why = error
        logger.info("cannot tell when all cards have been seen: %s", why)
        return False

    def read(self, message: InboundMessage, model: type[M], name: str | None) -> M | None:
        """What a message says; None when there is nothing to take over from it, also because its topic is empty now.

        Args:
            message: As it came.
            model: What it should be.
            name: Whose it is by its topic; None when that cannot be.
        """
        if name is None:
            self._faults.tell(message.topic, "a card or status for an impossible name", "")
            return None
        if not message.payload:
            self._forget(message.topic)
            return None
        if message.topic not in self._seen and len(self._seen) >= self._most:
            self._faults.tell(self._namespace, "too many cards", f"more than {self._most} are ignored")
            return None
        try:
            read = decode(model, message.payload, _MAX_CARD)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable card or status", error)
            return None
        self._seen[message.topic] = self._connection.epoch
        return read

    def is_current(self, topic: str) -> bool:
        """Whether the present connection has shown a message there."""
        return self._seen.get(topic, 0) >= self._connection.epoch

    async def _look(self, allowed: bool, patience: float) -> bool:
        epoch = self._connection.epoch
        if not await self.barrier() or not allowed:
            return False
        if self._source.more is not None:
            await self._source.more()
        # What is not retained any more was removed while we were away, or the broker lost it.
        self._forgetting = asyncio.get_running_loop().call_later(patience, self._forget_unseen, epoch)
        return True

    def _forget_unseen(self, epoch: int) -> None:
        for topic in [topic for topic, seen in self._seen.items() if seen < epoch]:
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        self._seen.pop(topic, None)
        self._source.forget(topic)

    def _on_echo(self, message: InboundMessage) -> None:
        self._source.echo.heard(message)
