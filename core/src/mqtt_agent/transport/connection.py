"""The connection to the broker that endpoints share: it reconnects, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
import uuid
from collections.abc import Awaitable, Callable

from mqtt_agent.errors import ConnectionLost, TopicNotAuthorized, TransportError
from mqtt_agent.transport.credentials import TLS, Credentials, tls_context
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.message import PublishProperties, Will
from mqtt_agent.transport.outbox import Outbox, check_reason_code
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.subscriber import Subscriber
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.transport.supervisor import Supervisor
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Connection"]

logger: logging.Logger = logging.getLogger(__name__)

_NO_PROPERTIES = PublishProperties()


class Connection:
    """One MQTT 5 connection with a persistent session, shared by any number of endpoints.

    It belongs to the event loop that starts it. The first :meth:`start` connects and the last :meth:`stop`
    disconnects. In between it reconnects by itself, subscribes again when the broker lost the session, and sends again
    what the broker had not confirmed: a message may arrive twice, and is never lost while someone waits for it.

    Args:
        broker: A URL: ``mqtt://``, ``mqtts://``, ``ws://`` or ``wss://``. None means ``$MQTT_AGENT_BROKER``, then
            ``mqtt://localhost:1883``.
        client_id: The MQTT client id; None makes a fresh one.
        credentials: A :class:`Password` or a :class:`Token`; None takes those of the URL, if any.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`, for ``mqtts://`` and ``wss://``.
        keep_alive: Seconds of silence after which the connection is tested.
        session_expiry: Seconds that the broker keeps the session of a client that is gone. Never less than
            ``will_delay``.
        will_delay: Seconds that the broker waits for a client to come back before it publishes the will.
        connect_timeout: Seconds for TCP, TLS and MQTT to be up.
        receive_maximum: How many unacknowledged messages the broker may send us.
        max_unacknowledged: When more messages than this stay unacknowledged for 25 ms, the oldest whose work has
            started are acknowledged before it is done, for brokers stop sending at a limit, often 20 or 32.
        max_queued: How many messages may wait for the broker before :class:`QueueFull` is raised.
        max_packet_size: Bytes of the largest packet to send and to receive.

    Raises:
        ValueError: ``broker`` is no broker URL.
        OSError: A file that ``tls`` names cannot be used.
    """

    def __init__(
        self,
        broker: str | None = None,
        *,
        client_id: str | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        keep_alive: int = 30,
        session_expiry: int = 60,
        will_delay: int = 5,
        connect_timeout: float = 10.0,
        receive_maximum: int = 1000,
        max_unacknowledged: int = 16,
        max_queued: int = 10_000,
        max_packet_size: int = 16 * 1024 * 1024,
    ) -> None:
        self.url: BrokerURL = BrokerURL.parse(broker)
        self.client_id: str = client_id or f"mqtt-agent-{uuid.uuid4().hex[:12]}"
        self.will_delay = will_delay
        self.session_expiry: int = max(session_expiry, will_delay, 1)
        self.on_reconnected: list[Callable[[bool], Awaitable[None]]] = []
        """Called after each reconnect; the argument tells whether the broker still had the session."""
        self.on_failed: list[Callable[[TransportError], None]] = []
        """Called when the connection ends for good, with the reason."""
        self._users = 0
        self._usable = False
        self._starting = asyncio.Lock()
        self._subscriber = Subscriber(self.url, self.client_id)
        self._outbox = Outbox(self.url, max_queued, max_packet_size)
        self._renewal = Renewal(credentials, self.url, self._outbox, connect_timeout)
        self._dialer = Dialer(
            self.url,
            self.client_id,
            tls_context(tls) if self.url.tls else None,
            keep_alive=keep_alive,
            session_expiry=self.session_expiry,
            will_delay=will_delay,
            connect_timeout=connect_timeout,
            receive_maximum=receive_maximum,
            max_packet_size=max_packet_size,
            max_unacknowledged=max_unacknowledged,
            renewal=self._renewal,
        )
        self._supervisor = Supervisor(
            self._dialer, self._subscriber, self._outbox, self._renewal, self.on_reconnected, self._fail
        )
        self._failure: TransportError | None = None

    def __repr__(self) -> str:
        state = "connected" if self.connected else "failed" if self._failure else "not connected"
        return f"<Connection {self.client_id} to {self.url}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._supervisor.connected

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session at the latest connect."""
        limits = self._supervisor.limits
        return limits is not None and limits.session_present

    @property
    def may_be_taken_over(self) -> bool:
        """Whether it broke a moment ago: not all brokers tell a client that another has taken its place."""
        return self._supervisor.may_be_taken_over

    @property
    def epoch(self) -> int:
        """Counts the network connections made."""
        return self._dialer.epoch

    @property
    def started(self) -> bool:
        """Whether at least one endpoint uses it."""
        return self._users > 0

    @property
    def shared_subscriptions(self) -> bool:
        """Whether the broker offers shared subscriptions; True until it says otherwise."""
        return self._subscriber.shared_subscriptions

    # Life

    def claim_will(self, will: Will) -> None:
        """Make ``will`` the connection's; it has one only, and it must be known before the connection starts.

        Raises:
            ValueError: It has one already, or it has started.
        """
        if self._dialer.will is not None:
            raise ValueError("this connection's will is taken: give each tool server a connection of its own")
        if self.started:
            raise ValueError("a will must be known before the connection starts: create the tool server first")
        self._dialer.will = will

    def release_will(self, will: Will) -> None:
        """Give back what :meth:`claim_will` took."""
        if self._dialer.will is will:
            self._dialer.will = None

    async def start(self) -> None:
        """Connect; every further call only counts one more user.

        Raises:
            BrokerUnreachable: Nobody answers at the URL.
            ConnectionRefused: The broker refuses the credentials or the client id.
            TopicNotAuthorized: It refuses one of the subscriptions made before the start.
        """
        async with self._starting:
            if self._users == 0:
                self._failure = None
                self._usable = True  # messages that waited in the session may be answered before we are set up
                try:
                    await self._supervisor.start()
                except BaseException as error:
                    self._shut(ConnectionLost(f"could not connect to {self.url}: {error}"))
                    raise
            self._users += 1

    async def stop(self, *, end_session: bool = False) -> None:
        """One user less; the last one disconnects, after what is queued was sent.

        Args:
            end_session: Tell the broker to forget the session, with the messages that wait in it.
        """
        if self._users == 0:
            return
        self._users -= 1
        if self._users > 0:
            return
        await self._supervisor.stop(end_session=end_session)
        self._shut(ConnectionLost(f"the connection to {self.url} was stopped"))

    def _shut(self, reason: ConnectionLost) -> None:
        self._usable = False
        self._supervisor.forget()
        self._renewal.end()
        self._outbox.fail(reason)
        self._subscriber.forget_session()

    def give_up(self, failure: TransportError) -> None:
        """End it for good, without the will, and with the session left to whoever takes it up."""
        if self._failure is not None or not self._usable:
            return
        self._supervisor.give_up()
        self._fail(failure)

    def _fail(self, failure: TransportError) -> None:
        self._failure = failure
        self._renewal.end()
        logger.error("%s", failure)
        self._outbox.fail(failure)
        for listener in tuple(self.on_failed):
            listener(failure)

    # Subscribing

    async def subscribe(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        qos: int = 1,
        snapshot: bool = False,
        manual: bool = False,
        exclusive: str | None = None,
    ) -> None:
        """Call ``handler`` for each message that matches, now and after every reconnect.

        Before :meth:`start` it is only noted, so that nothing which waits in the session can miss its handler.

        Args:
            topic_filter: An MQTT topic filter, also a shared one. Without shared subscriptions in the broker, the
                filter inside is subscribed to plainly, with one warning.
            handler: Called on the loop, in order of arrival; it must not block.
            qos: The highest QoS wanted.
            snapshot: Whether retained messages are wanted, on subscribing and after each reconnect.
            manual: Whether the handler acknowledges each message, when its work is done.
            exclusive: The name of an owner, for whose :meth:`take_alone` a shared filter waits at a broker without
                shared subscriptions, instead of being subscribed to plainly.

        Raises:
            TopicNotAuthorized: The broker refuses.
            ConnectionLost: The connection ended meanwhile; the subscription will be made when it is back.
        """
        subscription = self._subscriber.note(
            topic_filter, handler, qos=qos, snapshot=snapshot, manual=manual, exclusive=exclusive
        )
        if subscription is None:
            return
        if subscription.shared and self._supervisor.forgets_groups and not self._dialer.clean_start:
            await self._supervisor.begin_clean()
            return
        try:
            await self._subscriber.subscribe(subscription)
        except TopicNotAuthorized:
            await self.unsubscribe(topic_filter, handler)
            raise

    async def take_alone(self, owner: str, *, keep: bool) -> None:
        """At a broker without shared subscriptions, subscribe plainly to the owner's, until the link is lost.

        The caller has to know that no other connection does.

        Args:
            owner: Whose subscriptions.
            keep: Whether what the session held for them is handled; otherwise it is dropped.

        Raises:
            TopicNotAuthorized, ConnectionLost: See :meth:`subscribe`.
        """
        await self._subscriber.take_alone(owner, keep=keep)

    async def leave_alone(self, owner: str) -> None:
        """Take back :meth:`take_alone`, also that of an earlier link whose session the broker has kept."""
        await self._subscriber.leave_alone(owner)

    async def unsubscribe(self, topic_filter: str, handler: Handler) -> None:
        """Stop calling ``handler``; with the last handler of a filter gone, the broker is told too."""
        await self._renewal.wait_over()  # the session outlives it: without a word, the broker would go on sending
        await self._subscriber.unsubscribe(topic_filter, handler)

    async def leave(self, topic_filter: str) -> None:
        """Tell the broker to send no more; the handlers still get what it has sent or queued, until unsubscribed."""
        await self._subscriber.leave(topic_filter)

    # Publishing

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: PublishProperties = _NO_PROPERTIES,
    ) -> int:
        """Publish, and at QoS 1 wait until the broker has confirmed it, over reconnects if need be.

        Returns:
            The PUBACK's reason code: 0, or 0x10 when the broker says that nobody is subscribed. At QoS 0 always 0,
            and a message is dropped while there is no connection.

        Raises:
            TopicNotAuthorized: The broker forbids the topic.
            PublishRefused: The broker refused it for another reason.
            PayloadTooLarge: It is over the broker's Maximum Packet Size.
            QueueFull: Too many messages wait already.
            ConnectionLost: The connection was stopped before the confirmation came.
        """
        if qos == 0:
            self._outbox.check_size(topic, payload, properties)
            link = self._supervisor.link
            if link is not None:
                link.publish(topic, payload, 0, retain, properties)
                await link.wait_writable()
            return 0
        confirmed = self.publish_soon(topic, payload, retain=retain, properties=properties)
        return check_reason_code(await confirmed, topic)

    def check_publish(self, topic: str, payload: bytes) -> None:
        """Raise what :meth:`publish` would raise at once, before anything is done that a failure would have to undo.

        Raises:
            PayloadTooLarge: It is over the broker's Maximum Packet Size.
            TransportError: The connection has not been started, or is gone for good.
        """
        self._check_usable()
        self._outbox.check_size(topic, payload, _NO_PROPERTIES)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._usable:
            raise ConnectionLost(f"not connected to {self.url}: start the endpoint first")

    def publish_soon(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: PublishProperties = _NO_PROPERTIES,
        repeatable: bool = True,
    ) -> asyncio.Future[int]:
        """Publish at QoS 1 without waiting.

        Args:
            topic: Where to.
            payload: What.
            retain: Whether the broker keeps it for later subscribers.
            properties: MQTT properties.
            repeatable: Whether it may be sent again when the connection ends before the broker has confirmed it, so
                that it may arrive twice. Otherwise the future gets :class:`ConnectionLost` then.

        Returns:
            A future with the PUBACK's reason code, whatever it is. Cancel it to give the message up: then it is not
            sent again after a reconnect.

        Raises:
            PayloadTooLarge, QueueFull, TransportError: As for :meth:`publish`.
        """
        self._check_usable()
        if self._supervisor.forgets_groups and properties.message_expiry is not None and not retain:
            # In rumqttd, a share group gets no more messages after the first that has expired.
            properties = dataclasses.replace(properties, message_expiry=None)
        return self._outbox.add(topic, payload, retain, properties, repeatable)
