"""The connection to the broker that endpoints share: it reconnects, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import random
import ssl
import uuid
from collections.abc import Awaitable, Callable

from mqtt_agent.errors import (
    ConnectionLost,
    MQTTAgentError,
    NotAuthorized,
    SessionTakenOver,
    TransportError,
)
from mqtt_agent.transport.credentials import (
    TLS,
    Credentials,
    Login,
    renewed_login,
    tls_context,
    username_password,
)
from mqtt_agent.transport.link import BrokerLimits, ConnectOptions, Link
from mqtt_agent.transport.message import PublishProperties, Will
from mqtt_agent.transport.outbox import Outbox, check_reason_code
from mqtt_agent.transport.subscriptions import Handler, Subscription, Subscriptions
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

_TAKEN_OVER = 0x8E
_NO_PROPERTIES = PublishProperties()
_BACKOFF_FIRST, _BACKOFF_MAX = 0.2, 30.0
_STABLE_AFTER = 5.0
_FIRST_ATTEMPTS = 3
_TAKEN_OVER_WITHIN = 10.0


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
        self.url = BrokerURL.parse(broker)
        self.client_id = client_id or f"mqtt-agent-{uuid.uuid4().hex[:12]}"
        self.will_delay = will_delay
        self.session_expiry = max(session_expiry, will_delay, 1)
        self.on_reconnected: list[Callable[[bool], Awaitable[None]]] = []
        """Called after each reconnect; the argument tells whether the broker still had the session."""
        self.on_failed: list[Callable[[TransportError], None]] = []
        """Called when the connection ends for good, with the reason."""
        self._credentials = credentials
        self._login: Login = (None, None)
        self._renewed: Login | None = None
        """What to come back with, while a fresh token takes the place of one that expires."""
        self._renewal_over = asyncio.Event()
        self._ssl_context = tls_context(tls) if self.url.tls else None
        self._keep_alive = keep_alive
        self._connect_timeout = connect_timeout
        self._receive_maximum = receive_maximum
        self._max_unacknowledged = max_unacknowledged
        self._max_packet_size = max_packet_size
        self._will: Will | None = None
        self._users = 0
        self._usable = False
        self._lost_at = -math.inf
        self.epoch = 0
        """Counts the network connections made."""
        self._starting = asyncio.Lock()
        self._subscriptions = Subscriptions()
        self._outbox = Outbox(self.url, max_queued, max_packet_size)
        self._link: Link | None = None
        self._limits: BrokerLimits | None = None
        self._ready = False
        self._reconnected = asyncio.Event()
        self._clean_start = False
        self._failure: TransportError | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._lost: asyncio.Future[TransportError]
        self._warned_unshared = False
        self._alone = False
        self._freed_in = 0  # the epoch in which the session was freed of the exclusive subscriptions it may have held

    def __repr__(self) -> str:
        state = "connected" if self.connected else "failed" if self._failure else "not connected"
        return f"<Connection {self.client_id} to {self.url}, {state}>"

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return (self._link is not None and self._ready) or self._renewed is not None

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session at the latest connect."""
        return self._limits is not None and self._limits.session_present

    @property
    def may_be_taken_over(self) -> bool:
        """Whether it broke a moment ago: not all brokers tell a client that another has taken its place."""
        return not self._clean_start and asyncio.get_running_loop().time() - self._lost_at < _TAKEN_OVER_WITHIN

    @property
    def started(self) -> bool:
        """Whether at least one endpoint uses it."""
        return self._users > 0

    @property
    def _forgets_groups(self) -> bool:
        return self._limits is not None and self._limits.forgets_groups

    @property
    def _has_shared(self) -> bool:
        return any(subscription.shared for subscription in self._subscriptions)

    @property
    def shared_subscriptions(self) -> bool:
        """Whether the broker offers shared subscriptions; True until it says otherwise."""
        return self._limits is None or self._limits.shared_subscriptions

    # Life

    def claim_will(self, will: Will) -> None:
        """Make ``will`` the connection's; it has one only, and it must be known before the connection starts.

        Raises:
            ValueError: It has one already, or it has started.
        """
        if self._will is not None:
            raise ValueError("this connection's will is taken: give each tool server a connection of its own")
        if self.started:
            raise ValueError("a will must be known before the connection starts: create the tool server first")
        self._will = will

    def release_will(self, will: Will) -> None:
        """Give back what :meth:`claim_will` took."""
        if self._will is will:
            self._will = None

    async def start(self) -> None:
        """Connect; every further call only counts one more user.

        Raises:
            BrokerUnreachable: Nobody answers at the URL.
            ConnectionRefused: The broker refuses the credentials or the client id.
            NotAuthorized: It refuses one of the subscriptions made before the start.
        """
        async with self._starting:
            if self._users == 0:
                self._failure = None
                self._usable = True  # messages that waited in the session may be answered before we are set up
                try:
                    link = await self._open_first_link()
                except BaseException as error:
                    self._shut(ConnectionLost(f"could not connect to {self.url}: {error}"))
                    raise
                self._supervisor = asyncio.create_task(self._supervise(link), name=f"mqtt-agent {self.client_id}")
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
        tasks = [task for task in (self._supervisor, self._announcing) if task is not None]
        self._supervisor = self._announcing = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._link is not None:
            self._link.disconnect(end_session=end_session)
        self._shut(ConnectionLost(f"the connection to {self.url} was stopped"))

    def _shut(self, reason: ConnectionLost) -> None:
        self._link, self._ready, self._usable = None, False, False
        self._end_renewal()
        self._outbox.fail(reason)
        for subscription in self._subscriptions:
            subscription.confirmed = False

    async def _open_first_link(self) -> Link:
        for attempt in range(_FIRST_ATTEMPTS):
            link = await self._open_link()
            try:
                await self._set_up(link)
            except ConnectionLost:
                # rumqttd now and then takes the end of one connection for the end of another, a new one.
                if attempt == _FIRST_ATTEMPTS - 1:
                    raise
            except BaseException:
                link.disconnect(end_session=True)
                raise
            else:
                return link
        raise AssertionError("unreachable")

    async def _open_link(self) -> Link:
        link = await self._open_one_link()
        if self._forgets_groups and self._has_shared and not self._clean_start:
            link.disconnect(end_session=True)
            self._clean_start = True
            link = await self._open_one_link()
        return link

    async def _open_one_link(self) -> Link:
        self.epoch += 1
        will = self._will
        self._login = self._renewed or await username_password(self._credentials, self.url)
        username, password = self._login
        self._lost = asyncio.get_running_loop().create_future()
        link = Link(
            ConnectOptions(
                url=self.url,
                # rumqttd mixes up the wills of connections with the same id; and there is no session to find again.
                client_id=f"{self.client_id}~{self.epoch}" if self._clean_start else self.client_id,
                username=username,
                password=password,
                ssl_context=self._ssl_context,
                keep_alive=self._keep_alive,
                session_expiry=self.session_expiry,
                receive_maximum=self._receive_maximum,
                maximum_packet_size=self._max_packet_size,
                timeout=self._connect_timeout,
                clean_start=self._clean_start,
                will_topic=will.topic if will else None,
                will_payload=will.payload() if will else b"",
                will_delay=self.will_delay,
                will_expiry=will.expiry if will else None,
            ),
            self._subscriptions.dispatch,
            self._on_link_lost,
            self._max_unacknowledged,
        )
        self._limits = await link.open()
        self._hold()
        return link

    def _on_link_lost(self, reason: TransportError) -> None:
        self._link, self._ready = None, False
        self._alone = False
        self._outbox.close()
        if not self._lost.done():
            self._lost.set_result(reason)

    async def _set_up(self, link: Link) -> None:
        """Subscribe, then let out what waits: answers must find their subscription."""
        assert self._limits is not None
        self._link = link
        if self._forgets_groups and self.session_present:
            # It sends retained messages for new subscriptions only, and ends only what this connection has made.
            for each in [each for each in self._subscriptions if each.snapshot and not each.left]:
                await self._subscribe(link, each)
                await link.unsubscribe(each.topic_filter)
        # Also with the session present: some brokers say so and have lost a part of it, share groups above all.
        await asyncio.gather(
            *(self._subscribe(link, each) for each in self._subscriptions if not (each.left or each.held))
        )
        self._ready = True
        self._reconnected.set()
        self._outbox.open(link, self._limits)

    async def _supervise(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        attempt, logged, since = 0, "", loop.time()
        while True:
            renewal = asyncio.create_task(self._renew(link), name="mqtt-agent renew")
            try:
                reason = await self._lost
            finally:
                renewal.cancel()
            if isinstance(reason, ConnectionLost) and reason.reason_code == _TAKEN_OVER:
                self._fail(SessionTakenOver(f"another process connected to {self.url} as {self.client_id!r}"))
                return
            if loop.time() - since > _STABLE_AFTER:
                attempt = 0
            if self._renewed is None:
                self._lost_at = loop.time()
                logger.warning("%s; reconnecting", reason)
            while True:
                if self._renewed is None:
                    await asyncio.sleep(random.uniform(0.5, 1) * min(_BACKOFF_MAX, _BACKOFF_FIRST * 2**attempt))
                    attempt = min(attempt + 1, 20)
                try:
                    link = await self._open_link()
                    await self._set_up(link)
                except (MQTTAgentError, OSError) as error:
                    self._drop_link(link)
                    if str(error) != logged:
                        logged = str(error)
                        logger.warning("reconnecting to %s failed, will go on trying: %s", self.url, error)
                    continue
                except Exception as error:  # a credentials callable or a listener failed: the next try may do better
                    self._drop_link(link)
                    if repr(error) != logged:
                        logged = repr(error)
                        logger.exception("reconnecting to %s failed, will go on trying", self.url)
                    continue
                finally:
                    self._end_renewal()
                break
            logged, since = "", loop.time()
            logger.info("connected to %s again", self.url)
            if self._announcing is not None:
                self._announcing.cancel()
            self._announcing = asyncio.create_task(self._announce(), name="mqtt-agent announce")

    async def _renew(self, link: Link) -> None:
        """Before the token expires, leave in good order; the supervisor comes back at once, with a fresh one."""
        if self._clean_start:
            return  # there would be no session to come back to
        renewed = await renewed_login(self._credentials, self._login)
        if renewed is None:
            return
        logger.info("the token for %s expires soon: connecting with a fresh one", self.url)
        self._renewed, self._ready = renewed, False
        self._renewal_over.clear()
        await self._settle(link, self._connect_timeout)
        link.disconnect(end_session=False)

    def _end_renewal(self) -> None:
        self._renewed = None
        self._renewal_over.set()

    async def _settle(self, link: Link, timeout: float) -> None:
        """Wait for the broker's answers to what was sent: what it has not confirmed would be sent twice."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while loop.time() < deadline:
            unanswered = [future for future in [*self._outbox.pause(), *link.unanswered] if not future.done()]
            if not unanswered:
                return
            await asyncio.wait(unanswered, timeout=deadline - loop.time())

    async def _announce(self) -> None:
        for listener in tuple(self.on_reconnected):
            try:
                await listener(self.session_present)
            except Exception:  # one endpoint's trouble is not the others'
                logger.exception("an endpoint could not announce itself after a reconnect")

    def _drop_link(self, link: Link) -> None:
        link.abort()
        self._link, self._ready = None, False

    def give_up(self, failure: TransportError) -> None:
        """End it for good, without the will, and with the session left to whoever takes it up."""
        if self._failure is not None or not self._usable:
            return
        for task in (self._supervisor, self._announcing):
            if task is not None:
                task.cancel()
        if self._link is not None:
            self._link.disconnect(end_session=False)
        self._fail(failure)

    def _fail(self, failure: TransportError) -> None:
        self._failure = failure
        self._end_renewal()
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
        exclusive: bool = False,
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
            exclusive: Whether a shared filter, at a broker without shared subscriptions, waits for :meth:`take_alone`
                instead of being subscribed to plainly.

        Raises:
            NotAuthorized: The broker refuses.
            ConnectionLost: The connection ended meanwhile; the subscription will be made when it is back.
        """
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None:
            subscription = Subscription(topic_filter, qos, 0 if snapshot else 2, snapshot, manual, exclusive=exclusive)
            self._subscriptions.add(subscription)
            self._hold()
        subscription.handlers.append(handler)
        if self._link is not None and not subscription.held and (not subscription.confirmed or snapshot):
            if subscription.shared and self._forgets_groups and not self._clean_start:
                await self._begin_clean(self._link)
                return
            try:
                await self._subscribe(self._link, subscription)
            except NotAuthorized:
                await self.unsubscribe(topic_filter, handler)
                raise

    async def _begin_clean(self, link: Link) -> None:
        self._clean_start = True
        self._reconnected.clear()
        link.disconnect(end_session=True)
        await self._reconnected.wait()

    async def _subscribe(self, link: Link, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        if subscription.shared and not self.shared_subscriptions:
            topic_filter = subscription.plain_filter
            if not subscription.exclusive:
                self._warn_unshared("everybody who subscribes gets each message")
        code = await link.subscribe(topic_filter, subscription.qos, retain_handling=subscription.retain_handling)
        if code >= 0x80:
            raise NotAuthorized(
                f"{self.url} does not let {self.client_id!r} subscribe to {topic_filter} (0x{code:02x})",
                topic=topic_filter,
            )
        subscription.confirmed = True

    def _hold(self) -> None:
        for subscription in self._subscriptions:
            subscription.held = subscription.exclusive and not self.shared_subscriptions and not self._alone
            if subscription.held:
                self._warn_unshared("of the replicas of a tool server, one serves and the others stand by")

    def _warn_unshared(self, so: str) -> None:
        if not self._warned_unshared:
            self._warned_unshared = True
            logger.warning("%s has no shared subscriptions: %s", self.url, so)

    async def take_alone(self, *, keep: bool) -> None:
        """At a broker without shared subscriptions, subscribe plainly to the exclusive ones, until the link is lost.

        The caller has to know that no other connection does.

        Args:
            keep: Whether what the session held for them is handled; otherwise it is dropped.

        Raises:
            NotAuthorized, ConnectionLost: See :meth:`subscribe`.
        """
        link = self._link
        if link is None:
            raise ConnectionLost(f"not connected to {self.url}")
        self._alone = True
        self._hold()
        exclusive = [subscription for subscription in self._subscriptions if subscription.exclusive]
        for subscription in exclusive:
            kept = list(subscription.kept)
            subscription.kept.clear()
            for message in kept if keep else ():
                subscription.handle(message)
        await asyncio.gather(
            *(self._subscribe(link, subscription) for subscription in exclusive if not subscription.left)
        )

    async def leave_alone(self) -> None:
        """Take back :meth:`take_alone`, also that of an earlier link whose session the broker has kept."""
        taken, self._alone = self._alone, False
        self._hold()
        link, held = self._link, [subscription for subscription in self._subscriptions if subscription.held]
        inherited = self.session_present and self._freed_in != self.epoch
        self._freed_in = self.epoch
        if link is not None and (taken or inherited):
            for subscription in held:
                if not taken:
                    # To unsubscribe in ejabberd from what one is not subscribed to unsubscribes somebody else.
                    await self._subscribe(link, subscription)
                subscription.confirmed = False
                await link.unsubscribe(subscription.plain_filter)
        for subscription in held:
            subscription.kept.clear()

    async def unsubscribe(self, topic_filter: str, handler: Handler) -> None:
        """Stop calling ``handler``; with the last handler of a filter gone, the broker is told too."""
        if self._renewed is not None:
            await self._renewal_over.wait()  # the session outlives it: without a word, the broker would go on sending
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None or handler not in subscription.handlers:
            return
        if subscription.handlers == [handler]:
            await self.leave(topic_filter)  # what the broker sends before it answers is still for the handler
        subscription.handlers.remove(handler)
        if not subscription.handlers:
            self._subscriptions.remove(subscription)
        elif subscription.left and self._link is not None:  # somebody subscribed meanwhile
            subscription.left = False
            await self._subscribe(self._link, subscription)

    async def leave(self, topic_filter: str) -> None:
        """Tell the broker to send no more; the handlers still get what it has sent or queued, until unsubscribed."""
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None or subscription.left:
            return
        subscription.left = True
        if self._forgets_groups and not subscription.shared and self._has_shared:
            return  # such a broker would take this as a farewell to all share groups, whatever the filter
        if self._link is not None and subscription.confirmed and not subscription.held:
            shared = self.shared_subscriptions
            try:
                await self._link.unsubscribe(topic_filter if shared else subscription.plain_filter)
            except ConnectionLost:
                logger.debug("the connection ended before %s was unsubscribed", topic_filter)

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
            NotAuthorized: The broker forbids the topic.
            PublishRefused: The broker refused it for another reason.
            PayloadTooLarge: It is over the broker's Maximum Packet Size.
            QueueFull: Too many messages wait already.
            ConnectionLost: The connection was stopped before the confirmation came.
        """
        if qos == 0:
            self._outbox.check_size(topic, payload, properties)
            if self._link is not None:
                self._link.publish(topic, payload, 0, retain, properties)
                await self._link.wait_writable()
            return 0
        confirmed = self.publish_soon(topic, payload, retain=retain, properties=properties)
        return check_reason_code(await confirmed, topic)

    def check_size(self, topic: str, payload: bytes) -> None:
        """Ask beforehand whether a message is too large to publish.

        Raises:
            PayloadTooLarge: It is over the broker's Maximum Packet Size.
        """
        self._outbox.check_size(topic, payload, _NO_PROPERTIES)

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
        if self._failure is not None:
            raise self._failure
        if not self._usable:
            raise ConnectionLost(f"not connected to {self.url}: start the endpoint first")
        if self._forgets_groups and properties.message_expiry is not None and not retain:
            # In rumqttd, a share group gets no more messages after the first that has expired.
            properties = dataclasses.replace(properties, message_expiry=None)
        return self._outbox.add(topic, payload, retain, properties, repeatable)
