"""Finds out by trying what a broker does."""

from __future__ import annotations

import dataclasses
import ssl
import uuid
from collections.abc import Sequence

from mqtt_agent.errors import SubscriptionRefused, TopicNotAuthorized
from mqtt_agent.transport.breaking import Inbox, try_breaks
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.connection import Connection
from mqtt_agent.transport.credentials import Credentials
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.transport.tls import TLS
from mqtt_agent.transport.url import BrokerURL

__all__ = ["probe"]


async def probe(
    url: str | BrokerURL | Sequence[str] | None = None,
    *,
    namespace: str = "mqtt-agent",
    credentials: Credentials | None = None,
    tls: ssl.SSLContext | TLS | None = None,
    thorough: bool = False,
) -> Capabilities:
    """Connect to a broker, and find out what it can do. This takes some round trips, and leaves nothing behind.

    The messages go to topics below ``{namespace}/probe``. Where the broker's access rules forbid them, the result says
    only what the broker says of itself.

    Args:
        url: The broker's URL; of several, the first that lets this client in is examined. None means
            ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        namespace: The prefix of the topics.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        thorough: Whether to try also what happens to clients whose connection breaks: their sessions, share groups and
            Last Wills. This takes about 5 s.

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
            found = await _Trial(first, second, topic).run()
            if thorough and found.echo:
                found = dataclasses.replace(found, **await try_breaks(first, credentials, tls, f"{topic}/broken"))
            return found
        finally:
            await second.stop(end_session=True)
    finally:
        await first.stop(end_session=True)


class _Trial:
    """Tries what a broker does for clients whose connection lasts, with two connections."""

    def __init__(self, first: Connection, second: Connection, topic: str) -> None:
        self._first = first
        self._second = second
        self._topic = topic

    async def run(self) -> Capabilities:
        """Try everything, and add it to what the broker says of itself."""
        assert self._first.limits is not None
        found = self._first.limits
        try:
            says_unheard = await self._first.publish(f"{self._topic}/nobody", b"") == NO_MATCHING_SUBSCRIBERS
            echo, life = await self._echo()
            found = dataclasses.replace(found, says_unheard=says_unheard, echo=echo, message_life=life)
            found = dataclasses.replace(found, retained=await self._retained())
            found = dataclasses.replace(found, shared=await self._shared())
        except (TopicNotAuthorized, SubscriptionRefused):
            pass
        return found

    async def _echo(self) -> tuple[bool, int | None]:
        sent = [b"0", b"1", b"2"]
        inbox = Inbox(sent)
        await self._first.subscribe(f"{self._topic}/echo", inbox.take)
        for payload in sent:
            await self._first.publish(f"{self._topic}/echo", payload)
        await inbox.wait()
        return inbox.payloads == sent, inbox.messages[0].message_expiry if inbox.messages else None

    async def _retained(self) -> bool:
        inbox, topic = Inbox([b"kept"]), f"{self._topic}/retained"
        await self._first.publish(topic, b"kept", retain=True)
        try:
            await self._second.subscribe(topic, inbox.take, snapshot=True)
            return await inbox.wait()
        finally:
            await self._first.publish(topic, b"", retain=True)

    async def _shared(self) -> bool:
        if not self._first.shared_subscriptions:
            return False
        sent = [b"0", b"1", b"2", b"3"]
        inbox, topic = Inbox(sent), f"{self._topic}/shared"
        for member in (self._first, self._second):
            await member.subscribe(f"$share/probe/{topic}", inbox.take)
        for payload in sent:
            await self._first.publish(topic, payload)
        await inbox.wait()
        # A message that goes to both members arrives at the latest before the echo of a later message.
        for member in (self._first, self._second):
            end = Inbox([b""])
            await member.subscribe(f"{self._topic}/end", end.take)
            await member.publish(f"{self._topic}/end", b"")
            await end.wait()
        return sorted(inbox.payloads) == sent
