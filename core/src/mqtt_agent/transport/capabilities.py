"""Finds out what a broker can do: from its CONNACK packet, and by trying."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from mqtt_agent.errors import SubscriptionRefused, TopicNotAuthorized
from mqtt_agent.transport.connection import Connection
from mqtt_agent.transport.credentials import Credentials
from mqtt_agent.transport.message import InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.transport.tls import TLS
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Capabilities", "probe"]

_ARRIVES_WITHIN = 2.0
"""Seconds to wait for a message that a broker delivers."""
_GROUP_MESSAGES = 4


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do. Values that :func:`probe` finds out by trying are None when the broker forbids the try.

    Attributes:
        session_expiry: Seconds that the broker keeps a session; None is as long as the client asks for.
        receive_maximum: How many QoS 1 messages the broker takes before it has confirmed the first of them.
        maximum_packet_size: Bytes of the largest packet that the broker takes; None is no limit.
        wildcards: Whether the broker says that it takes topic filters with wildcards.
        says_shared: Whether the broker says that it has shared subscriptions.
        echo: By trying: a client gets its own messages, in order.
        shared: By trying: each message to a share group goes to one member.
        retained: By trying: a newcomer gets a retained message.
        says_unheard: By trying: a PUBACK says when nobody is subscribed (0x10).
        message_life: By trying: seconds after which the broker drops a message without a Message Expiry Interval; None
            when the broker says no such time.
    """

    session_expiry: int | None
    receive_maximum: int
    maximum_packet_size: int | None
    wildcards: bool
    says_shared: bool
    echo: bool | None
    shared: bool | None
    retained: bool | None
    says_unheard: bool | None
    message_life: int | None


async def probe(
    url: str | BrokerURL | Sequence[str] | None = None,
    *,
    namespace: str = "mqtt-agent",
    credentials: Credentials | None = None,
    tls: ssl.SSLContext | TLS | None = None,
) -> Capabilities:
    """Connect to a broker twice, and find out what it can do. This takes some round trips, and leaves nothing behind.

    The messages go to topics below ``{namespace}/probe``. Where the broker's access rules forbid them, the result says
    only what the broker says of itself.

    Args:
        url: The broker's URL; of several, the first that lets this client in is examined. None means
            ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        namespace: The prefix of the topics.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.

    Raises:
        BrokerUnreachable, ConnectionRefused, BrokerNotSupported: See :meth:`Connection.start`.

    Example:
        >>> print(await probe("mqtt://localhost:1883"))  # doctest: +SKIP
    """
    topic = f"{namespace}/probe/{uuid.uuid4().hex[:12]}"
    first = Connection(url, credentials=credentials, tls=tls)
    await first.start()
    second = Connection(first.url, credentials=credentials, tls=tls)
    try:
        await second.start()
        try:
            return await _Trial(first, second, topic).run()
        finally:
            await second.stop(end_session=True)
    finally:
        await first.stop(end_session=True)


class _Trial:
    """Tries what a broker does, with two connections."""

    def __init__(self, first: Connection, second: Connection, topic: str) -> None:
        self._first = first
        self._second = second
        self._topic = topic

    async def run(self) -> Capabilities:
        limits = self._first.limits
        assert limits is not None
        echo = shared = retained = says_unheard = None
        life: int | None = None
        try:
            says_unheard = await self._first.publish(f"{self._topic}/nobody", b"") == NO_MATCHING_SUBSCRIBERS
            echo, life = await self._echo()
            retained = await self._retained()
            shared = await self._shared()
        except (TopicNotAuthorized, SubscriptionRefused):
            pass
        return Capabilities(
            session_expiry=limits.session_expiry,
            receive_maximum=limits.receive_maximum,
            maximum_packet_size=limits.maximum_packet_size,
            wildcards=limits.wildcards,
            says_shared=limits.shared_subscriptions,
            echo=echo,
            shared=shared,
            retained=retained,
            says_unheard=says_unheard,
            message_life=life,
        )

    async def _echo(self) -> tuple[bool, int | None]:
        inbox = _Inbox(3)
        await self._first.subscribe(f"{self._topic}/echo", inbox.take)
        for number in range(3):
            await self._first.publish(f"{self._topic}/echo", b"%d" % number)
        await inbox.wait()
        in_order = [message.payload for message in inbox.messages] == [b"0", b"1", b"2"]
        return in_order, inbox.messages[0].message_expiry if inbox.messages else None

    async def _retained(self) -> bool:
        inbox, topic = _Inbox(1), f"{self._topic}/retained"
        await self._first.publish(topic, b"kept", retain=True)
        try:
            await self._second.subscribe(topic, inbox.take, snapshot=True)
            return await inbox.wait()
        finally:
            await self._first.publish(topic, b"", retain=True)

    async def _shared(self) -> bool:
        if not self._first.shared_subscriptions:
            return False
        inbox, topic = _Inbox(_GROUP_MESSAGES), f"{self._topic}/shared"
        for member in (self._first, self._second):
            await member.subscribe(f"$share/probe/{topic}", inbox.take)
        for number in range(_GROUP_MESSAGES):
            await self._first.publish(topic, b"%d" % number)
        await inbox.wait()
        # A message that goes to both members arrives at the latest before the echo of a later message.
        for member in (self._first, self._second):
            end = _Inbox(1)
            await member.subscribe(f"{self._topic}/end", end.take)
            await member.publish(f"{self._topic}/end", b"")
            await end.wait()
        return sorted(message.payload for message in inbox.messages) == [b"%d" % n for n in range(_GROUP_MESSAGES)]


class _Inbox:
    """Collects messages until enough have arrived."""

    def __init__(self, wanted: int) -> None:
        self.messages: list[InboundMessage] = []
        self._wanted = wanted
        self._enough = asyncio.Event()

    def take(self, message: InboundMessage) -> None:
        self.messages.append(message)
        if len(self.messages) >= self._wanted:
            self._enough.set()

    async def wait(self) -> bool:
        try:
            await asyncio.wait_for(self._enough.wait(), _ARRIVES_WITHIN)
        except asyncio.TimeoutError:
            return False
        return True
