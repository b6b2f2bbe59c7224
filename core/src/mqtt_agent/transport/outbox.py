"""Sends each QoS 1 message and keeps it until the broker has confirmed it: in order, and across reconnects."""

from __future__ import annotations

import asyncio
from collections import deque

from mqtt_agent.errors import (
    ConnectionLost,
    PayloadTooLarge,
    PublishRefused,
    QueueFull,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.transport.driver import BrokerLimits
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import PublishProperties
from mqtt_agent.transport.url import BrokerURL

__all__ = ["NO_MATCHING_SUBSCRIBERS", "Outbox", "check_reason_code"]

NO_MATCHING_SUBSCRIBERS: int = 0x10
"""The reason code of a PUBACK for a message that nobody is subscribed to."""
_NOT_AUTHORIZED = 0x87
_MAX_HEADER = 4096
"""Bytes that a packet has besides its payload, at most."""


class Outbox:
    """The outgoing QoS 1 messages of one connection.

    Args:
        url: The broker's URL, for logs and errors.
        max_queued: How many messages may wait.
        max_packet_size: Bytes of the largest packet to send. A broker silently drops a message that is larger than its
            receiver's limit, and the receiver probably has the same limit as this sender.
    """

    def __init__(self, url: BrokerURL, max_queued: int, max_packet_size: int) -> None:
        self._url = url
        self._max_packet_size = max_packet_size
        self._max_queued = max_queued
        self._waiting: deque[_Publication] = deque()
        self._in_flight: dict[_Publication, None] = {}
        self._link: Link | None = None
        self._emptied: asyncio.Future[None] | None = None  # while a stop waits for the confirmations
        self._limits: BrokerLimits | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that fits for certain, whatever its topic and properties are."""
        return max(self._max_packet - _MAX_HEADER, self._max_packet // 2)

    @property
    def _max_packet(self) -> int:
        limit = self._max_packet_size
        if self._limits is not None and self._limits.maximum_packet_size is not None:
            limit = min(limit, self._limits.maximum_packet_size)
        return limit

    def open(self, link: Link, limits: BrokerLimits) -> None:
        """Send over this link from now on, beginning with the messages that have waited."""
        self._link, self._limits = link, limits
        self._send_waiting()

    def pause(self) -> list[asyncio.Future[int]]:
        """Send nothing more over the link, because it is about to be ended.

        Returns:
            The futures of the messages that the broker has not confirmed yet.
        """
        self._link = None
        return [publication.confirmed for publication in self._in_flight]

    def close(self) -> None:
        """Note that the link is lost. Its unconfirmed messages wait for the next link.

        Messages that are not repeatable fail with :class:`ConnectionLost` instead.
        """
        self._link = None
        self._stop_draining()
        in_flight = list(self._in_flight)
        self._in_flight.clear()
        for publication in reversed(in_flight):
            if publication.repeatable:
                self._waiting.appendleft(publication)
            else:
                what = "before the broker confirmed a message, which may have arrived"
                publication.fail(ConnectionLost(f"the connection to {self._url} was lost {what}"))

    def fail(self, error: TransportError) -> None:
        """Let all messages fail, because there will be no next link."""
        publications = [*self._in_flight, *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        for publication in publications:
            publication.fail(error)

    async def drain(self, timeout: float) -> int:
        """Wait until the broker has confirmed all messages, while the link is up.

        Args:
            timeout: Seconds to wait.

        Returns:
            How many messages the broker has not confirmed. Messages that were given up do not count.
        """
        if self._link is not None and (self._in_flight or self._waiting):
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=timeout)
            self._emptied = None
        return sum(not publication.confirmed.done() for publication in (*self._in_flight, *self._waiting))

    def _stop_draining(self) -> None:
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def add(
        self, topic: str, payload: bytes, retain: bool, properties: PublishProperties, repeatable: bool
    ) -> asyncio.Future[int]:
        """Send a message immediately, or as soon as there is a link and the broker takes more messages.

        Args:
            topic: The topic.
            payload: The bytes to send.
            retain: Whether the broker keeps the message for later subscribers.
            properties: The MQTT properties.
            repeatable: Whether the message may be sent again over the next link.

        Returns:
            A future with the reason code of the PUBACK. Cancel the future to give the message up.

        Raises:
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size.
            QueueFull: Too many messages wait already.
        """
        self.check_size(topic, payload, properties)
        if len(self._waiting) >= self._max_queued:
            raise QueueFull(
                f"{self._max_queued} messages wait for {self._url} already: wait for some, or raise max_queued"
            )
        publication = _Publication(topic, payload, retain, properties, repeatable)
        if self._link is not None and not self._waiting and self._has_room():
            self._send(self._link, publication)
        else:
            self._waiting.append(publication)
        return publication.confirmed

    def check_size(self, topic: str, payload: bytes, properties: PublishProperties) -> None:
        """Refuse a message for which the broker would close the connection.

        Raises:
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size, or than ``max_packet_size``.
        """
        limit = self._max_packet
        if len(payload) + 1024 < limit and not properties.user_properties:
            return
        size = len(payload) + len(topic.encode()) + 64 + sum(len(k) + len(v) + 5 for k, v in properties.user_properties)
        size += len(properties.response_topic or "") + len(properties.correlation_data or b"")
        if size > limit:
            raise PayloadTooLarge(
                f"{len(payload):,} bytes for {topic} are too many (Maximum Packet Size {limit:,}): send less, or raise "
                "the limit of the broker, and max_packet_size of the connections"
            )

    def _has_room(self) -> bool:
        return self._limits is not None and len(self._in_flight) < self._limits.receive_maximum

    def _send(self, link: Link, publication: _Publication) -> None:
        self._in_flight[publication] = None
        p = publication
        link.publish(p.topic, p.payload, 1, p.retain, p.properties, lambda code: self._on_puback(p, code))

    def _on_puback(self, publication: _Publication, reason_code: int) -> None:
        self._in_flight.pop(publication, None)
        if not publication.confirmed.done():
            publication.confirmed.set_result(reason_code)
        if self._waiting:
            self._send_waiting()
        elif self._emptied is not None and not self._in_flight:
            self._stop_draining()

    def _send_waiting(self) -> None:
        while self._waiting and self._link is not None and self._has_room():
            publication = self._waiting.popleft()
            if not publication.confirmed.done():
                self._send(self._link, publication)


class _Publication:
    __slots__ = ("confirmed", "payload", "properties", "repeatable", "retain", "topic")

    def __init__(
        self, topic: str, payload: bytes, retain: bool, properties: PublishProperties, repeatable: bool
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.retain = retain
        self.properties = properties
        self.repeatable = repeatable
        self.confirmed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def fail(self, error: TransportError) -> None:
        if not self.confirmed.done():
            self.confirmed.set_exception(error)
            self.confirmed.exception()  # marks the error as retrieved, so that asyncio does not log the error


def check_reason_code(reason_code: int, topic: str) -> int:
    """Return the reason code of a PUBACK when it means success, else raise the matching error.

    Args:
        reason_code: The reason code.
        topic: The topic of the message, for the error.

    Raises:
        TopicNotAuthorized: The reason code is 0x87.
        PublishRefused: The reason code is another code of 0x80 or more.
    """
    if reason_code < 0x80:
        return reason_code
    if reason_code == _NOT_AUTHORIZED:
        raise TopicNotAuthorized(f"the broker does not let this client publish to {topic}", topic=topic)
    raise PublishRefused(
        f"the broker refused a message for {topic} (reason code 0x{reason_code:02x})",
        topic=topic,
        reason_code=reason_code,
    )
