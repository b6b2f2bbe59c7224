"""Finds out what a broker does when the connection of a client breaks: its session, its share of a group, its will."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import uuid
from collections.abc import Coroutine, Iterable
from typing import Any

from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.transport.connection import Connection
from mqtt_agent.transport.credentials import Credentials
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.driver import LinkSettings
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import InboundMessage, PublishProperties, Will
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.tls import TLS, tls_context

__all__ = ["Inbox", "try_breaks"]

_ARRIVES_WITHIN = 2.0
"""Seconds to wait for a message that a broker delivers."""
_WINDOW, _WAITING = 4, 20
"""The Receive Maximum of a client that is away, and how many messages wait for it."""
_GROUP_MESSAGES = 6
_LIFE, _LATE = 1, 2.0
"""Seconds that a message or a session lives, and how much later a broker may end it: brokers look at intervals."""
_WILL_DELAY, _WILL_WITHIN = 2, 5.0
_CONNECT_TIMEOUT = 10.0


async def try_breaks(
    connection: Connection, credentials: Credentials | None, tls: ssl.SSLContext | TLS | None, topic: str
) -> dict[str, Any]:
    """Try everything at the same time, with clients whose connections are broken.

    Args:
        connection: A started connection, which publishes the messages and receives the wills.
        credentials: The login of the clients.
        tls: Their TLS settings.
        topic: The prefix of the topics.

    Returns:
        The values for :class:`Capabilities` by name. A value is missing when the broker forbids the trial.
    """
    trial = _Trial(connection, credentials, tls, topic)
    found: dict[str, Any] = {}

    async def run(work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        with contextlib.suppress(MQTTAgentError):  # the broker's access rules may forbid the topic or the client id
            found.update(await work)

    await asyncio.gather(*(run(work) for work in (trial.queue(), trial.expiry(), trial.group(), trial.will())))
    return found


class _Trial:
    """Tries what a broker does for clients whose connections are broken."""

    def __init__(
        self,
        connection: Connection,
        credentials: Credentials | None,
        tls: ssl.SSLContext | TLS | None,
        topic: str,
    ) -> None:
        self._connection = connection
        self._login = credentials, tls
        self._topic = topic

    def _client(self, session_expiry: int, will: Will | None = None) -> _Client:
        return _Client(self._connection, *self._login, session_expiry, will)

    @property
    def _without_groups(self) -> bool:
        """Whether share groups are not tried: there are none, or the trial could harm the broker."""
        limits = self._connection.limits
        return limits is None or not limits.shared_subscriptions or limits.forgets_groups

    async def _send(self, topic: str, count: int) -> list[bytes]:
        """Publish messages, and return their payloads."""
        sent = [b"%d" % number for number in range(count)]
        for payload in sent:
            await self._connection.publish(topic, payload)
        return sent

    async def queue(self) -> dict[str, Any]:
        """Let messages wait for a client that acknowledges nothing, and is then away: more than it takes at once."""
        client, topic = self._client(30), f"{self._topic}/queue"
        client.acknowledges = False
        await client.open(topic)
        sent = await self._send(topic, _WAITING)
        client.breaks()
        client.acknowledges = True
        early = client.inbox.payloads
        late = (await client.come_back({*sent} - {*early})).payloads
        await client.close()
        queues = {*early, *late} == {*sent}
        return {"queues": queues, "queued_in_order": late == sorted(late, key=int) if queues else None}

    async def expiry(self) -> dict[str, Any]:
        """Let a message wait for longer than it lives, and leave a session for longer than it lives."""
        client, topic = self._client(30), f"{self._topic}/expiry"
        short, there, group = self._client(_LIFE), self._client(30), f"{self._topic}/freed"
        filters = [group] * 2 if self._without_groups else [f"$share/probe/{group}"] * 2
        await asyncio.gather(client.open(topic), short.open(filters[0]), there.open(filters[1]))
        client.breaks()
        short.breaks()
        await self._connection.publish(topic, b"short", properties=PublishProperties(message_expiry=_LIFE))
        await self._connection.publish(topic, b"long")
        await asyncio.sleep(_LIFE + _LATE)
        sent = await self._send(group, _GROUP_MESSAGES)
        there.inbox.want(sent)
        freed = await there.inbox.wait()
        inbox, _ = await asyncio.gather(client.come_back([b"long"]), short.come_back())
        found: dict[str, Any] = {"ends_sessions": not short.session_present}
        if not (self._without_groups or short.session_present):
            found["frees_groups"] = freed
        if b"long" in inbox.payloads:  # otherwise, messages do not wait at all
            found["expires"] = b"short" not in inbox.payloads
        await asyncio.gather(client.close(), short.close(), there.close())
        return found

    async def group(self) -> dict[str, Any]:
        """Send messages to a share group of two members, one of which is away."""
        if self._without_groups:
            return {}
        away, there, topic = self._client(30), self._client(30), f"{self._topic}/group"
        await asyncio.gather(away.open(f"$share/probe/{topic}"), there.open(f"$share/probe/{topic}"))
        away.breaks()
        sent = {*await self._send(topic, _GROUP_MESSAGES)}
        there.inbox.want(sent)
        skipped = await there.inbox.wait()
        inbox = await away.come_back(sent - {*there.inbox.payloads})
        await asyncio.gather(away.close(), there.close())
        everything = {*there.inbox.payloads, *inbox.payloads} == sent
        return {"dead_member": "skipped" if skipped else "queued" if everything else "lost"}

    async def will(self) -> dict[str, Any]:
        """Break the connection of a client that has a Last Will with a delay."""
        topic, inbox = f"{self._topic}/will", Inbox([b"{}"])
        await self._connection.subscribe(topic, inbox.take)
        client = self._client(30, Will(topic, lambda: b"{}"))
        await client.open(f"{self._topic}/unused")
        client.breaks()
        since = time.monotonic()
        came = await inbox.wait(_WILL_WITHIN)
        after = time.monotonic() - since
        await self._connection.publish(topic, b"", retain=True)
        await client.come_back()
        await client.close()
        return {"will_after": after if came else float("inf")}


class _Client:
    """A client whose connection can be broken, and which then comes back to its session.

    Args:
        connection: A connection to the same broker.
        credentials: The login.
        tls: The TLS settings.
        session_expiry: Seconds that the broker keeps the session.
        will: The Last Will.
    """

    def __init__(
        self,
        connection: Connection,
        credentials: Credentials | None,
        tls: ssl.SSLContext | TLS | None,
        session_expiry: int,
        will: Will | None,
    ) -> None:
        url = connection.url
        settings = LinkSettings(
            url=url,
            client_id=f"mqtt-agent-{uuid.uuid4().hex[:12]}",
            ssl_context=tls_context(tls) if url.tls else None,
            keep_alive=30,
            session_expiry=session_expiry,
            will_delay=_WILL_DELAY,
            connect_timeout=_CONNECT_TIMEOUT,
            receive_maximum=_WINDOW,
            max_unacknowledged=_WINDOW,
            max_packet_size=65_536,
            identity=connection.identity,
        )
        brokers = Brokers([url])
        renewal = Renewal(credentials, brokers, _CONNECT_TIMEOUT, Outbox(brokers, 0, 0))
        self._dialer = Dialer(settings, brokers, renewal)
        self._dialer.will = will
        self._link: Link | None = None
        self.inbox = Inbox()
        self.acknowledges = True
        """Whether the client acknowledges each message."""

    def _take(self, message: InboundMessage) -> None:
        self.inbox.take(message)
        if self.acknowledges:
            message.acknowledge()

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session at the latest connect."""
        return self._link is not None and self._link.limits.session_present

    async def open(self, topic_filter: str) -> None:
        """Connect, and subscribe."""
        self._link = await self._dialer.open(self._take, lambda _: None)
        await self._link.subscribe(topic_filter, 1, retain_handling=2)

    def breaks(self) -> None:
        """Break the connection, as a crash would."""
        assert self._link is not None
        self._link.abort()

    async def come_back(self, wanted: Iterable[bytes] = ()) -> Inbox:
        """Connect again without subscribing, and wait for the messages in the session.

        Args:
            wanted: The payloads of the messages that should have waited.
        """
        self.inbox = Inbox(wanted)
        self._link = await self._dialer.open(self._take, lambda _: None)
        await self.inbox.wait()
        return self.inbox

    async def close(self) -> None:
        """Disconnect, and let the broker forget the session."""
        assert self._link is not None
        self._link.disconnect(end_session=True)
        await self._link.wait_closed()


class Inbox:
    """Collects messages until all that are wanted have arrived.

    Args:
        wanted: The payloads of the messages.
    """

    def __init__(self, wanted: Iterable[bytes] = ()) -> None:
        self.messages: list[InboundMessage] = []
        self._missing: set[bytes] = set()
        self._complete = asyncio.Event()
        self.want(wanted)

    @property
    def payloads(self) -> list[bytes]:
        """The payloads that have arrived, in their order."""
        return [message.payload for message in self.messages]

    def want(self, wanted: Iterable[bytes]) -> None:
        """Wait for other messages from now on. Those that have arrived count too."""
        self._missing = {*wanted} - {*self.payloads}
        self._complete.clear()
        if not self._missing:
            self._complete.set()

    def take(self, message: InboundMessage) -> None:
        """Note a message."""
        self.messages.append(message)
        self._missing.discard(message.payload)
        if not self._missing:
            self._complete.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until all messages have arrived, and return whether they have."""
        try:
            await within(self._complete.wait(), seconds or _ARRIVES_WITHIN)
        except asyncio.TimeoutError:
            return False
        return True
