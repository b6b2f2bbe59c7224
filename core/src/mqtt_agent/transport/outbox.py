"""Sends each QoS 1 message and keeps it until the broker has confirmed it: in order, and across reconnects."""

from __future__ import annotations

import asyncio
import dataclasses
import math

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
from mqtt_agent.transport.packing import PackedPublish, pack_publish
from mqtt_agent.transport.url import BrokerURL

__all__ = ["NO_MATCHING_SUBSCRIBERS", "Outbox", "check_reason_code"]

NO_MATCHING_SUBSCRIBERS: int = 0x10
"""The reason code of a PUBACK for a message that nobody is subscribed to."""
_NOT_AUTHORIZED = 0x87
_MAX_HEADER = 4096
"""Bytes that are reserved for the topic and the properties of a packet."""
_MAX_UNCONFIRMED = 60_000  # there are 65,535 packet identifiers, and subscriptions need some


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
        self._max_packet = max_packet_size  # or the broker's limit, when that is lower
        self._max_in_flight = 0
        self._max_queued = max_queued
        self._waiting: dict[_Publication, None] = {}  # in the order of sending
        self._in_flight: dict[_Publication, None] = {}
        self._link: Link | None = None
        self._emptied: asyncio.Future[None] | None = None  # while a stop waits for the confirmations
        self._limits: BrokerLimits | None = None
        self._next_expiry: asyncio.TimerHandle | None = None  # one timer for all messages that wait

    @property
    def max_payload(self) -> int:
        """The size of the largest payload that fits beside a topic and properties of usual size, in bytes."""
        return max(self._max_packet - _MAX_HEADER, self._max_packet // 2)

    def open(self, link: Link, limits: BrokerLimits) -> None:
        """Send over this link from now on, beginning with the messages that have waited."""
        self._link, self._limits = link, limits
        self._max_packet = min(self._max_packet_size, limits.maximum_packet_size or self._max_packet_size)
        self._max_in_flight = min(limits.receive_maximum, _MAX_UNCONFIRMED)
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
        in_flight, waiting = self._in_flight, self._waiting
        self._in_flight, self._waiting = {}, {}
        for publication in in_flight:
            if publication.repeatable:
                self._wait(publication)
            else:
                what = "before the broker confirmed a message, which may have arrived"
                publication.fail(ConnectionLost(f"the connection to {self._url} was lost {what}"))
        for publication in waiting:
            self._wait(publication)

    def fail(self, error: TransportError) -> None:
        """Let all messages fail, because there will be no next link."""
        publications = [*self._in_flight, *self._waiting]
        self._in_flight.clear()
        self._waiting.clear()
        self._stop_expiry()
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
            WireError: MQTT cannot carry the message; see :func:`pack_publish`.
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size.
            QueueFull: Too many messages wait already.
        """
        packed = self.pack(topic, payload, 1, retain, properties)
        if len(self._waiting) >= self._max_queued:
            self._drop_given_up()
        if len(self._waiting) >= self._max_queued:
            raise QueueFull(
                f"{self._max_queued} messages wait for {self._url} already: wait for some, or raise max_queued"
            )
        publication = _Publication(topic, packed, properties, repeatable, self._limits)
        if self._link is not None and not self._waiting and self._has_room():
            self._send(self._link, publication)
        else:
            self._wait(publication)
        return publication.confirmed

    def pack(self, topic: str, payload: bytes, qos: int, retain: bool, properties: PublishProperties) -> PackedPublish:
        """Pack a message, and refuse a message for which the broker would close the connection.

        Raises:
            WireError: MQTT cannot carry the message; see :func:`pack_publish`.
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size, or than ``max_packet_size``.
        """
        packed = pack_publish(topic, payload, qos, retain, properties)
        if properties.message_expiry is not None and not retain and self._limits and self._limits.forgets_groups:
            # In rumqttd, one message that expires ends the delivery to its share group.
            packed = pack_publish(topic, payload, qos, retain, dataclasses.replace(properties, message_expiry=None))
        limit = self._max_packet
        if packed.size > limit:
            ours = limit == self._max_packet_size
            owner = "max_packet_size of this connection" if ours else f"the limit of the broker {self._url}"
            raise PayloadTooLarge(
                f"{len(payload):,} bytes for {topic} are too many (Maximum Packet Size {limit:,}: {owner}): send less, "
                "or raise the limit of the broker, and max_packet_size of the connections"
            )
        return packed

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._max_in_flight

    def _wait(self, publication: _Publication) -> None:
        """Let a message wait for the broker, until its sender gives it up or the message expires."""
        if publication.confirmed.done():
            return
        self._waiting[publication] = None
        if publication.expires < math.inf:
            self._expire_at(publication.expires)
        # While there is a link, the message waits for a moment only. So its place is not worth a callback.
        if self._link is None and not publication.watched:
            publication.watched = True
            publication.confirmed.add_done_callback(lambda _: self._waiting.pop(publication, None))

    def _drop_given_up(self) -> None:
        for publication in [each for each in self._waiting if each.confirmed.done()]:
            del self._waiting[publication]

    def _expire_at(self, when: float) -> None:
        """Make sure that the timer fires at this loop time, or before."""
        if self._next_expiry is None or when < self._next_expiry.when():
            self._stop_expiry()
            self._next_expiry = asyncio.get_running_loop().call_at(when, self._expire)

    def _stop_expiry(self) -> None:
        if self._next_expiry is not None:
            self._next_expiry.cancel()
            self._next_expiry = None

    def _expire(self) -> None:
        """Let the messages fail that have expired before they were sent."""
        self._next_expiry = None
        now = asyncio.get_running_loop().time()
        for publication in tuple(self._waiting):
            if publication.expires <= now:
                publication.expire()
        self._drop_given_up()
        earliest = min((each.expires for each in self._waiting), default=math.inf)
        if earliest < math.inf:
            self._expire_at(earliest)

    def _send(self, link: Link, publication: _Publication) -> None:
        self._in_flight[publication] = None
        link.publish(publication.packed, lambda code: self._on_puback(publication, code))

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
            publication = next(iter(self._waiting))
            del self._waiting[publication]
            if publication.confirmed.done():
                continue
            try:
                self._pack_again(publication)
            except PayloadTooLarge as error:
                publication.fail(error)
            else:
                self._send(self._link, publication)

    def _pack_again(self, publication: _Publication) -> None:
        """Pack a message that has waited, if another broker takes it now or a whole second of its expiry is over.

        Raises:
            PayloadTooLarge: This broker takes less than the broker before.
        """
        properties = publication.properties_now()
        if properties is publication.properties and publication.limits is self._limits:
            return
        packed = publication.packed
        publication.packed = self.pack(publication.topic, packed.payload, 1, packed.retain, properties)
        publication.properties, publication.limits = properties, self._limits


class _Publication:
    """A message on its way to the broker.

    Attributes:
        topic: The topic.
        packed: The packet.
        properties: The MQTT properties in the packet.
        repeatable: Whether the message may be sent again over the next link.
        limits: The limits of the broker for which the message was packed; None before the first connection.
        confirmed: The reason code of the broker's PUBACK.
        expires: Loop time at which the message expires; infinite when it does not.
        watched: Whether the message leaves the queue at once when it is given up.
    """

    __slots__ = (
        "_expiry",
        "confirmed",
        "expires",
        "limits",
        "packed",
        "properties",
        "repeatable",
        "topic",
        "watched",
    )

    def __init__(
        self,
        topic: str,
        packed: PackedPublish,
        properties: PublishProperties,
        repeatable: bool,
        limits: BrokerLimits | None,
    ) -> None:
        self.topic = topic
        self.packed = packed
        self.properties = properties
        self.repeatable = repeatable
        self.limits = limits
        loop = asyncio.get_running_loop()
        self.confirmed: asyncio.Future[int] = loop.create_future()
        self._expiry = properties.message_expiry
        self.expires = math.inf if self._expiry is None else loop.time() + self._expiry
        self.watched = False

    def expire(self) -> None:
        """Let the message fail, because it has expired before it was sent."""
        what = f"its {self._expiry} s were over before the broker could take it"
        self.fail(TransportError(f"a message for {self.topic} expired: {what}"))

    def properties_now(self) -> PublishProperties:
        """The MQTT properties for a message that has waited and is about to be sent."""
        if self.expires == math.inf:
            return self.properties
        left = max(1, math.ceil(self.expires - asyncio.get_running_loop().time()))
        if left == self.properties.message_expiry:
            return self.properties
        return dataclasses.replace(self.properties, message_expiry=left)

    def fail(self, error: TransportError | PayloadTooLarge) -> None:
        """End the message with an error."""
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
