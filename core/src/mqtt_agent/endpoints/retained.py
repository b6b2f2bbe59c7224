"""Follows retained messages: tells when all of them have arrived, and forgets those that the broker no longer has."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.endpoints.copies import CardQuestion
from mqtt_agent.endpoints.dialect import BoundMarker
from mqtt_agent.endpoints.markers import Marker
from mqtt_agent.errors import ConnectionLost, TransportError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Message, decode
from mqtt_agent.wire.messages import MAX_CARD_PAYLOAD, footprint

__all__ = ["PATIENCE", "Retained", "Source"]

logger: logging.Logger = logger_of(__name__)

PATIENCE: float = 15.0
"""Seconds that peers get to publish their cards again after a broker has lost all retained messages."""
_MARKER_TIMEOUT = 5.0  # seconds
_MOST_BYTES = 512 * 1024 * 1024
"""Bytes of memory for the messages that are kept, about."""
_RESERVE, _LITTLE = 64 * 1024 * 1024, 1024
"""Further bytes for messages of known topics that have grown by so many bytes at most. A Last Will is a little larger
than the card or the status that it replaces, and without room for it, its sender would look online for ever."""

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Source:
    """The retained messages to follow, and the functions that handle them.

    Attributes:
        filters: Topic filters of all messages, each with the function that is called with each matching message.
        forget: Called with a topic when nothing is retained there any more.
        without: What is not possible when the broker does not allow one of the filters, for the log.
        marker: The marker that returns after all retained messages. :class:`Retained` subscribes to its topics.
        more: Awaited after all retained messages have arrived, and before any message is forgotten. It waits for
            further messages, which the endpoint subscribed to because of the retained messages.
        question: The topic on which the endpoint asks for messages that a cluster keeps at another node, and the name
            of the endpoint that asks.
    """

    filters: Sequence[tuple[str, Handler]]
    forget: Callable[[str], None]
    without: str
    marker: Marker | BoundMarker
    question: tuple[str, str]
    more: Callable[[], Awaitable[None]] | None = None


class Retained:
    """Keeps track of which retained messages exist, also across reconnects.

    Args:
        connection: The connection that subscribes.
        source: The messages to follow.
        namespace: The namespace of the topics, for the log.
        most: The largest number of names whose messages are kept. All messages of a name count once, so an agent's
            status takes no place from a card. The messages of further names are ignored, and a warning is logged once.
            The same holds for messages that would take more than 512 MiB of memory together, but a kept message may
            still grow a little.
        faults: Logs what is wrong with a message.
    """

    def __init__(self, connection: Connection, source: Source, namespace: str, most: int, faults: FaultLog) -> None:
        self._connection = connection
        self._source = source
        self._question = CardQuestion(connection, *source.question)
        self._namespace = namespace
        self._most = most
        self._faults = faults
        self._seen: dict[str, int] = {}  # by topic: the epoch of the connection that last delivered a message
        self._names: dict[str, str] = {}  # by topic: the name in the topic
        self._topics_of: Counter[str] = Counter()  # by name: how many of its topics have a message
        self._sizes: dict[str, int] = {}  # by topic: about how many bytes of memory its message takes
        self._bytes = 0
        self._marker_filters: list[str] = []
        self._filters: dict[str, Handler] = {}
        """The topic filters of the messages that are followed now."""
        self._refused: set[str] = set()
        """The topic filters of these that the broker refused."""
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """The topic filters that are being left in the background."""
        self._complete: asyncio.Task[bool] | None = None
        self._checked_in = 0
        """The epoch of the connection in which ``_complete`` was started."""
        self._forgetting: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        """Follow all messages of the source. They arrive in the background."""
        await self.prepare()
        await self.begin()

    async def prepare(self) -> None:
        """Subscribe to what is needed to follow messages: the topics of the marker. No message is followed yet."""
        self._marker_filters = self._source.marker.filters
        for topic_filter in self._marker_filters:
            await self._connection.subscribe(topic_filter, self._on_marker)

    async def begin(self) -> None:
        """Follow all messages of the source, from now until :meth:`end`. They arrive in the background."""
        allowed = await self._follow(self._source.filters)
        self._check(allowed)

    async def end(self, kept: Callable[[str], bool]) -> None:
        """Stop following all messages of the source.

        Args:
            kept: Whether the message of a topic is still followed, because :meth:`follow` was called for its topic.
                All other messages are forgotten.
        """
        checking = self._complete is not None and not self._complete.done()
        self._cancel_check()
        await self.leave(self._source.filters)
        if checking and self._filters:
            self._check(True)
        async for topic in in_steps(list(self._seen)):
            if not kept(topic):
                self._forget(topic)

    async def follow(self, filters: Sequence[tuple[str, Handler]]) -> bool:
        """Follow the messages of a few topics, and wait until the messages that are retained there have arrived.

        Args:
            filters: The topics, each with the function that is called with each message.

        Returns:
            False when the broker does not let the client see the messages, or when this cannot be known now. A further
            call then waits again.
        """
        while leaving := {self._leaving[topic] for topic, _ in filters if topic in self._leaving}:
            await asyncio.wait(leaving)
        await self._follow([each for each in filters if each[0] not in self._filters])
        if not self._refused.isdisjoint(topic for topic, _ in filters) or not self._connection.connected:
            return False
        if not await self.barrier():
            return False
        if any(topic not in self._seen for topic, _ in filters):
            await self._question.ask(filters)
        return True

    async def _follow(self, filters: Sequence[tuple[str, Handler]]) -> bool:
        allowed = True
        for topic_filter, handler in filters:
            self._filters[topic_filter] = handler
            self._refused.discard(topic_filter)
            refused = partial(self._on_refused, topic_filter)
            try:
                # At QoS 1, brokers limit their queue (Mosquitto: 1,000 messages) and drop the rest. QoS 0 has no limit.
                await self._connection.subscribe(topic_filter, handler, qos=0, snapshot=True, on_refused=refused)
            except ConnectionLost:
                allowed = False
                logger.debug("the reconnect will subscribe to %s", topic_filter)
        return allowed and self._refused.isdisjoint(topic_filter for topic_filter, _ in filters)

    def _on_refused(self, topic_filter: str, error: TransportError) -> None:
        if topic_filter not in self._refused:
            self._refused.add(topic_filter)
            logger.warning("%s; %s", error, self._source.without)

    async def leave(self, filters: Sequence[tuple[str, Handler]]) -> None:
        """Stop following the messages of these topic filters. The messages that have arrived are kept."""
        await self._question.stop(filters)
        for topic_filter, _ in filters:
            handler = self._filters.pop(topic_filter, None)
            if handler is not None:
                await self._connection.unsubscribe(topic_filter, handler)

    async def drop(self, filters: Sequence[tuple[str, Handler]]) -> None:
        """Stop following the messages of these topics, and forget the messages that have arrived."""
        await self.leave(filters)
        for topic, _ in filters:
            if topic not in self._filters:  # else it is wanted again
                self._forget(topic)

    def leave_soon(self, filters: Sequence[tuple[str, Handler]], *, drop: bool = False) -> None:
        """Call :meth:`leave` in the background; or :meth:`drop`. :meth:`follow` waits for its end."""
        leaving = self._tasks.start(self.drop(filters) if drop else self.leave(filters))
        for topic_filter, _ in filters:
            self._leaving[topic_filter] = leaving
        leaving.add_done_callback(lambda _: self._on_left(filters, leaving))

    def _on_left(self, filters: Sequence[tuple[str, Handler]], leaving: asyncio.Task[None]) -> None:
        for topic_filter, _ in filters:
            if self._leaving.get(topic_filter) is leaving:
                del self._leaving[topic_filter]

    async def stop(self) -> None:
        """Unsubscribe, and forget which messages were seen."""
        self._tasks.cancel()
        self._cancel_waiting()
        await self._question.stop()
        await self.leave(list(self._filters.items()))
        for topic_filter in self._marker_filters:
            await self._connection.unsubscribe(topic_filter, self._on_marker)
        self._seen.clear()
        self._names.clear()
        self._topics_of.clear()
        self._sizes.clear()
        self._bytes = 0

    def _cancel_check(self) -> None:
        if self._complete is not None:
            self._complete.cancel()
            self._complete = None

    def _cancel_waiting(self) -> None:
        self._cancel_check()
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None

    def on_reconnected(self) -> None:
        """Check the copy after a reconnect, when the broker sends all retained messages again."""
        if self._filters and self._checked_in != self._connection.epoch:
            self._check(True)

    def _check(self, allowed: bool) -> None:
        """Begin to wait for all retained messages, which the present link delivers."""
        self._cancel_check()  # it would take the end of the earlier messages for the end of these
        self._checked_in = self._connection.epoch
        self._complete = asyncio.create_task(self._wait_complete(allowed))

    async def complete(self) -> bool:
        """Wait until all retained messages have been seen that the broker has sent since the latest connect.

        Returns:
            False when the broker does not let the client see all of them.
        """
        if self._complete is not None and self._connection.connected:
            self.on_reconnected()  # the connection may not have told of a reconnect yet
        complete = None
        while complete is not self._complete:  # a reconnect begins a new wait
            complete = self._complete
            if complete is not None and not complete.done():
                await asyncio.wait([complete])
        try:
            return complete is not None and not complete.cancelled() and complete.result()
        except TransportError:
            return False

    async def barrier(self) -> bool:
        """Wait until every message that the broker had queued for this client before this call has arrived.

        Returns:
            False when this cannot be known, for example because the broker forbids the marker's topic.
        """
        why: object = "no marker message returned"
        try:
            if await self._source.marker.round_trip(_MARKER_TIMEOUT):
                return True
        except TransportError as error:
            why = error
        logger.info("cannot tell when all cards have arrived: %s", why)
        return False

    def read(self, message: InboundMessage, model: type[M], name: str | None) -> M | None:
        """Decode a message, and note that a message is retained on its topic.

        Args:
            message: The message from the broker. An empty payload means that nothing is retained there any more.
            model: The model that the message must fit.
            name: The name of the peer in the message's topic; None when the topic has no valid name.

        Returns:
            The decoded message. None when there is nothing to keep: the message is empty or unreadable, or too
            many messages are kept already.
        """
        if name is None:
            self._faults.refuse(message, "a card or status for an impossible name", "")
            return None
        if not message.payload:
            self._forget(message.topic)
            return None
        topic, size = message.topic, footprint(message.payload)
        why = None if topic in self._filters else self._why_not(topic, name, size)
        if why is not None:  # what is followed by its exact topic is wanted in any case
            message.refuse(f"too many cards: {why}")
            self._faults.tell(self._namespace, "too many cards", why)
            return None
        try:
            read = decode(model, message.payload, MAX_CARD_PAYLOAD)
        except WireError as error:
            self._faults.refuse(message, "an unreadable card or status", error)
            return None
        if topic not in self._seen:
            self._names[topic] = name
            self._topics_of[name] += 1
        self._seen[topic] = self._connection.epoch
        self._bytes += size - self._sizes.get(topic, 0)
        self._sizes[topic] = size
        return read

    def _why_not(self, topic: str, name: str, size: int) -> str | None:
        """Why a message is not kept; None when there is room for it."""
        if name not in self._topics_of and len(self._topics_of) >= self._most:
            return f"{self._most} names are kept, and the cards of further names are ignored"
        before = self._sizes.get(topic)
        more = size - (before or 0)
        most = _MOST_BYTES + (_RESERVE if before is not None and more <= _LITTLE else 0)
        if more > 0 and self._bytes + more > most:
            return f"the cards take {_MOST_BYTES:,} bytes of memory already, and larger or further cards are ignored"
        return None

    def size_of(self, topic: str) -> int:
        """About how many bytes of memory the message of a topic takes; 0 when no message is kept."""
        return self._sizes.get(topic, 0)

    def is_current(self, topic: str) -> bool:
        """Whether a message on this topic has arrived since the latest connect."""
        return self._seen.get(topic, 0) >= self._connection.epoch

    async def _wait_complete(self, allowed: bool) -> bool:
        epoch = self._connection.epoch
        if not await self.barrier() or not allowed:
            return False
        await self._question.ask(list(self._filters.items()))
        if self._source.more is not None:
            await self._source.more()
        # A message that did not arrive again was removed while the client was offline, or the broker has lost it.
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.create_task(self._forget_unseen(epoch))
        return True

    async def _forget_unseen(self, epoch: int) -> None:
        await asyncio.sleep(PATIENCE)
        async for topic in in_steps(list(self._seen)):
            if self._seen.get(topic, epoch) < epoch:
                self._forget(topic)

    def _forget(self, topic: str) -> None:
        if self._seen.pop(topic, None) is not None:
            name = self._names.pop(topic)
            self._bytes -= self._sizes.pop(topic)
            self._topics_of[name] -= 1
            if not self._topics_of[name]:
                del self._topics_of[name]
        self._source.forget(topic)

    def _on_marker(self, message: InboundMessage) -> None:
        self._source.marker.recognize(message)
