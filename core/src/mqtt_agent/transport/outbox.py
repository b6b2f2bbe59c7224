"""Sends each QoS 1 message and keeps it until the broker has confirmed it: in order, and across reconnects."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable
from functools import partial

from mqtt_agent.errors import ConnectionLost, PayloadTooLarge, QueueFull, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.metering import Levels
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import PublishProperties, UnsignedMessage
from mqtt_agent.transport.packing import PackedPublish, pack_publish, surely_fits
from mqtt_agent.transport.publication import Publication
from mqtt_agent.transport.reasons import IDENTIFIER_IN_USE, QUOTA_EXCEEDED
from mqtt_agent.transport.suspects import Suspects

__all__ = ["Outbox"]

logger: logging.Logger = logger_of(__name__)

_MAX_HEADER = 4096
"""Bytes that are reserved for the topic and the properties of a packet."""
_MOST_REFUSALS = 6
"""How often a message is sent again when the broker refuses it for a reason that may pass."""
_FIRST_QUOTA_WAIT, _LONGEST_QUOTA_WAIT = 0.1, 2.0  # seconds
_CALM_AFTER = 30.0
"""Seconds that a link lasts until no message is suspected of having cost the link before."""
_MAX_UNCONFIRMED = 30_000  # there are 32,768 packet identifiers, and subscriptions need some
_messages: Levels[Outbox] = Levels(
    "mqtt_agent.outbox.messages",
    "{message}",
    "The messages that wait for the broker, and those that the broker has not confirmed.",
    lambda outbox: outbox.levels(),
)


class Outbox:
    """The outgoing QoS 1 messages of one connection.

    Args:
        brokers: The brokers that may be used, for logs and errors.
        max_queued: How many messages may wait.
        max_packet_size: Bytes of the largest packet to send. A broker silently drops a message that is larger than its
            receiver's limit, and the receiver probably has the same limit as this sender.
    """

    def __init__(self, brokers: Brokers, max_queued: int, max_packet_size: int) -> None:
        self._brokers = brokers
        self._max_packet_size = max_packet_size
        self._max_packet = max_packet_size  # or the broker's limit, when that is lower
        self._max_in_flight = 0
        self._max_queued = max_queued
        self._waiting: dict[Publication, None] = {}  # in the order of sending
        self._in_flight: dict[Publication, None] = {}
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # after the first link, until the stop
        self._emptied: asyncio.Future[None] | None = None  # while a stop waits for the confirmations
        self._limits: Capabilities | None = None
        self._next_expiry: asyncio.TimerHandle | None = None  # one timer for all messages that wait
        self._suspects = Suspects()
        self._one_alone = False  # a suspect is unconfirmed, and nothing else is sent meanwhile
        _messages.watch(self)

    def levels(self) -> list[tuple[int, dict[str, str]]]:
        """How many messages wait and are unconfirmed, for the metrics."""
        return [
            (len(self._waiting), {"mqtt_agent.state": "waiting"}),
            (len(self._in_flight), {"mqtt_agent.state": "unconfirmed"}),
        ]

    @property
    def max_payload(self) -> int:
        """The size of the largest payload that fits beside a topic and properties of usual size, in bytes."""
        return max(self._max_packet - _MAX_HEADER, self._max_packet // 2)

    def open(self, link: Link, limits: Capabilities) -> None:
        """Send over this link from now on, beginning with the messages that have waited."""
        self._link, self._limits, self._loop = link, limits, asyncio.get_running_loop()
        self._max_packet = min(self._max_packet_size, limits.maximum_packet_size or self._max_packet_size)
        self._max_in_flight = min(limits.receive_maximum, _MAX_UNCONFIRMED)
        self._send_waiting()
        if self._suspects.losses:
            asyncio.get_running_loop().call_later(_CALM_AFTER, self._calm, link)

    def _calm(self, link: Link) -> None:
        """Suspect no message any more, because the link has lasted."""
        if self._link is link:
            self._suspects.losses.clear()

    def pause(self) -> list[asyncio.Future[int]]:
        """Send nothing more over the link, because it is about to be ended.

        Returns:
            The futures of the messages that the broker has not confirmed yet.
        """
        self._link = None
        return [publication.confirmed for publication in self._in_flight]

    def close(self, reason: TransportError) -> None:
        """Note that the link is lost. Its unconfirmed messages wait for the next link.

        Messages that are not repeatable fail with :class:`ConnectionLost` instead. A message that has cost several
        links fails with :class:`PoisonMessage`.

        Args:
            reason: Why the link is lost.
        """
        self._link, self._one_alone = None, False
        self._stop_draining()
        in_flight, waiting = self._in_flight, self._waiting
        self._in_flight, self._waiting = {}, {}
        poison = self._suspects.on_lost([publication.key for publication in in_flight], reason)
        if poison is not None:
            logger.warning("%s", poison)
        for publication in in_flight:
            if poison is not None:  # then the message was alone
                publication.fail(poison)
            elif publication.repeatable:
                self._wait(publication)
            else:
                what = "before the broker confirmed a message, which may have arrived"
                publication.fail(ConnectionLost(f"the connection to {self._brokers} was lost {what}"))
        for publication in waiting:
            self._wait(publication)

    def fail(self, error: TransportError) -> None:
        """Let all messages fail, because there will be no next link."""
        self._loop = None
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
        self,
        topic: str,
        payload: bytes,
        retain: bool,
        properties: PublishProperties,
        repeatable: bool,
        on_trouble: Callable[[asyncio.Future[int]], None] | None = None,
        on_confirmed: Callable[[asyncio.Future[int]], None] | None = None,
        unsigned: UnsignedMessage | None = None,
    ) -> asyncio.Future[int]:
        """Send a message immediately, or as soon as there is a link and the broker takes more messages.

        Args:
            topic: The topic.
            payload: The bytes to send.
            retain: Whether the broker keeps the message for later subscribers.
            properties: The MQTT properties.
            repeatable: Whether the message may be sent again over the next link.
            on_trouble: See :meth:`Connection.publish_soon`.
            on_confirmed: See :meth:`Connection.publish_soon`.
            unsigned: Signs the message when it leaves; None when the properties have the signature, or there is none.

        Returns:
            A future with the reason code of the PUBACK. Cancel the future to give the message up.

        Raises:
            WireError: MQTT cannot carry the message; see :func:`pack_publish`.
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size.
            PoisonMessage: The broker has closed the connection for this message.
            QueueFull: Too many messages wait already.
        """
        packed = self.pack(topic, payload, 1, retain, properties, 0 if unsigned is None else unsigned.longest)
        if self._suspects.found:
            self._suspects.check((topic, payload))
        if len(self._waiting) >= self._max_queued:
            self._make_room()
        loop, link = self._loop or asyncio.get_running_loop(), self._link
        publication = Publication(
            *(topic, packed, properties, repeatable, self._limits, loop),
            *(on_trouble, on_confirmed, unsigned),
        )
        if link is None or self._waiting:
            self._wait(publication)
        elif self._suspects.losses or not self._has_room():
            self._wait(publication)
            self._send_waiting()
        else:
            self._send(link, publication)
        return publication.confirmed

    def _make_room(self) -> None:
        self._drop_given_up()
        if len(self._waiting) >= self._max_queued:
            raise QueueFull(
                f"{self._max_queued} messages wait for {self._brokers} already: wait for some, or raise max_queued"
            )

    def pack(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: PublishProperties, more: int = 0
    ) -> PackedPublish:
        """Pack a message, and refuse a message for which the broker would close the connection.

        Args:
            topic: The topic.
            payload: The bytes to send.
            qos: 0 or 1.
            retain: Whether the broker keeps the message for later subscribers.
            properties: The MQTT properties.
            more: How many bytes are added to the packet later, at most.

        Raises:
            WireError: MQTT cannot carry the message; see :func:`pack_publish`.
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size, or than ``max_packet_size``.
        """
        packed = pack_publish(topic, payload, qos, retain, properties)
        if properties.message_expiry is not None and not retain and self._limits and self._limits.expiry_stops_groups:
            packed = pack_publish(topic, payload, qos, retain, dataclasses.replace(properties, message_expiry=None))
        limit = self._max_packet
        if packed.size + more > limit:
            ours = limit == self._max_packet_size
            owner = "max_packet_size of this connection" if ours else f"the limit of the broker {self._brokers}"
            raise PayloadTooLarge(
                f"{len(payload):,} bytes for {topic} are too many (Maximum Packet Size {limit:,}: {owner}): send less, "
                "or raise the limit of the broker, and max_packet_size of the connections"
            )
        return packed

    def check(self, topic: str, payload: bytes, properties: PublishProperties, more: int) -> None:
        """Raise the errors of :meth:`pack` for a message that is not retained."""
        if not surely_fits(topic, payload, properties, self._max_packet - more):
            self.pack(topic, payload, 1, False, properties, more)

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._max_in_flight and not self._one_alone

    def _wait(self, publication: Publication) -> None:
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

    def _send(self, link: Link, publication: Publication) -> None:
        self._in_flight[publication] = None
        if publication.unsigned is None:
            link.publish(publication.packed, partial(self._on_puback, publication))
        else:
            link.publish_made(publication.signed, partial(self._on_puback, publication))

    def _on_puback(self, publication: Publication, reason_code: int) -> None:
        if reason_code >= 0x80 and self._send_again(publication, reason_code):
            return
        self._in_flight.pop(publication, None)
        if self._one_alone or self._suspects.losses:
            self._suspects.confirmed(publication.key)
            self._one_alone = False
        publication.confirm(reason_code)
        if self._waiting:
            self._send_waiting()
        elif self._emptied is not None and not self._in_flight:
            self._stop_draining()

    def _send_again(self, publication: Publication, reason_code: int) -> bool:
        """Send a message again that the broker has refused, if the reason may pass.

        Returns:
            Whether the message is sent again, at once or after a wait.
        """
        link, delay = self._link, 0.0
        if link is None or publication.confirmed.done() or publication.refusals >= _MOST_REFUSALS:
            return False
        if reason_code == IDENTIFIER_IN_USE:
            link.skip_identifiers()
        elif reason_code == QUOTA_EXCEEDED:
            delay = min(_LONGEST_QUOTA_WAIT, _FIRST_QUOTA_WAIT * 2**publication.refusals)
        else:
            return False
        publication.refusals += 1

        def send() -> None:  # unless the link was lost meanwhile: then the message waits for the next link
            if self._link is link and publication in self._in_flight:
                self._send(link, publication)

        asyncio.get_running_loop().call_later(delay, send)
        return True

    def _send_waiting(self) -> None:
        while self._waiting and self._link is not None and self._has_room():
            publication = next(iter(self._waiting))
            if self._suspects.losses and self._suspects.must_be_alone(publication.key):
                if self._in_flight and not publication.confirmed.done():
                    return
                self._one_alone = not publication.confirmed.done()
            del self._waiting[publication]
            if publication.confirmed.done():
                continue
            if publication.limits is not self._limits or publication.expires < math.inf:
                try:
                    self._pack_again(publication)
                except PayloadTooLarge as error:
                    self._one_alone = False
                    publication.fail(error)
                    continue
            if self._one_alone:
                self._suspects.sent_alone(publication.key)
            self._send(self._link, publication)

    def _pack_again(self, publication: Publication) -> None:
        """Pack a message that has waited, if another broker takes it now or a whole second of its expiry is over.

        Raises:
            PayloadTooLarge: This broker takes less than the broker before.
        """
        properties = publication.properties_now()
        if properties is publication.properties and publication.limits is self._limits:
            return
        packed, more = publication.packed, 0 if publication.unsigned is None else publication.unsigned.longest
        publication.packed = self.pack(publication.topic, packed.payload, 1, packed.retain, properties, more)
        publication.properties, publication.limits = properties, self._limits
