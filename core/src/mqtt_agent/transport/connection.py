"""The MQTT connection that endpoints share. It reconnects by itself, and loses no message."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence

from mqtt_agent.aio.forks import in_child
from mqtt_agent.errors import (
    ConnectedBeforeFork,
    ConnectionLost,
    SubscriptionRefused,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.credentials import Credentials, Password, check_login
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.driver import LinkSettings
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.lifetime import Lifetime
from mqtt_agent.transport.message import MessageAudit, MessageIdentity, MessageScreen, Will
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.packing import MAX_SECONDS, check_filter, pack_string, pack_topic, whole_seconds
from mqtt_agent.transport.publishing import Publishing
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.subscriber import Subscriber
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.transport.tls import TLS, Certificates
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Connection"]

logger: logging.Logger = logger_of(__name__)


class Connection(Publishing):
    """One MQTT 5 connection with a persistent session, shared by any number of endpoints.

    A connection belongs to the event loop that starts it, until it is stopped. Then it can start again, also on
    another event loop. The first :meth:`start` connects, and the last :meth:`stop` disconnects. In between, the
    connection reconnects by itself. After a reconnect it subscribes again when the broker has lost the session, and
    sends again every message that the broker had not confirmed. So a message may arrive twice, and no message is lost
    while its sender waits for the confirmation.

    Args:
        broker: The broker's URL: ``mqtt://``, ``mqtts://``, ``ws://`` or ``wss://``. Or several URLs, as a sequence or
            as one string with commas between them: ``mqtt://a,mqtt://b``. The first broker that lets this client in is
            used. When the connection is lost, that broker is tried once more, because it has the session, and then the
            next ones. None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        client_id: The MQTT client id; None generates an id.
        credentials: A :class:`Password` or a :class:`Token`; None takes the user and password of the URL, if any.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`, for ``mqtts://`` and ``wss://``.
        keep_alive: Seconds of silence after which the connection is tested with a PINGREQ, 0 to 65,535. With 0,
            there is no test.
        session_expiry: Seconds that the broker keeps the session while the client is disconnected. Never less than
            ``will_delay``. A time of 2^32-1 s and more is no limit.
        will_delay: Seconds that the broker waits for the client to come back before it publishes the Last Will.
        connect_timeout: Seconds to wait for TCP and TLS, and as long again for the broker's answer to the CONNECT.
        receive_maximum: How many unacknowledged messages the broker may send.
        max_unacknowledged: How many received messages may stay unacknowledged. Brokers stop sending at a limit, often
            20 or 32. So when more messages stay unacknowledged for 25 ms, the oldest whose work has started are
            acknowledged before the work is done.
        max_queued: How many messages may wait for the broker before :class:`QueueFull` is raised.
        max_packet_size: Bytes of the largest packet to send and to receive.
        identity: Signs the messages that are sent, and checks the signatures of those that arrive; for example a
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that endpoints send and receive over the connection; for example a
            :class:`mqtt_agent.identity.Audit`.

    Attributes:
        client_id: The MQTT client id.
        will_delay: Seconds that the broker waits before it publishes the Last Will.
        session_expiry: Seconds that the broker keeps the session: at least ``will_delay``, and at least one second.
        identity: Signs and checks messages; None when there is none.
        audit: Keeps a line about each message; None when there is none.
        screens: What decides which messages of a namespace reach the handlers, if ``identity`` asks for proof, and
            what notes the messages for ``audit``.
        on_reconnected: Functions called after each reconnect; the argument tells whether the broker still had the
            session.
        on_failed: Functions called with the reason when the connection has failed permanently.
        on_refused: Functions called with the reason when the broker has refused the login, or a subscription, at each
            attempt to reconnect for 5 s, and at each further refusal. The connection goes on trying.

    Raises:
        ValueError: ``broker`` is not a broker URL, or no CONNECT packet can hold a setting.
        OSError: A file that ``tls`` names cannot be used.
    """

    def __init__(
        self,
        broker: str | BrokerURL | Sequence[str] | None = None,
        *,
        client_id: str | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        keep_alive: int = 30,
        session_expiry: float = 60,
        will_delay: float = 5,
        connect_timeout: float = 10.0,
        receive_maximum: int = 1000,
        max_unacknowledged: int = 16,
        max_queued: int = 10_000,
        max_packet_size: int = 16 * 1024 * 1024,
        identity: MessageIdentity | None = None,
        audit: MessageAudit | None = None,
    ) -> None:
        self._brokers = Brokers(BrokerURL.parse_all(broker))
        self._generated = client_id is None
        self.client_id: str = client_id or _new_client_id()
        pack_string(self.client_id, "the client id")
        if isinstance(credentials, Password):
            check_login((credentials.username, credentials.password))
        self.will_delay: int = whole_seconds(will_delay, "will_delay")
        self.session_expiry: int = max(whole_seconds(session_expiry, "session_expiry"), self.will_delay, 1)
        certificates = Certificates(tls) if any(url.tls for url in self._brokers.urls) else None
        settings = LinkSettings(
            url=self._brokers.current,
            client_id=self.client_id,
            ssl_context=None if certificates is None else certificates.context(),
            keep_alive=_in_range("keep_alive", keep_alive, 0, 65_535),
            session_expiry=self.session_expiry,
            will_delay=self.will_delay,
            connect_timeout=connect_timeout,
            receive_maximum=_in_range("receive_maximum", receive_maximum, 1, 65_535),
            max_unacknowledged=max_unacknowledged,
            max_packet_size=_in_range("max_packet_size", max_packet_size, 1, MAX_SECONDS),
            identity=identity,
        )
        self.identity: MessageIdentity | None = identity
        self._batches = None if identity is None else identity.batches()
        self.audit: MessageAudit | None = audit
        self.screens: dict[str, MessageScreen] = {}
        self._subscriber = Subscriber(self._brokers, self.client_id, identity, self.screens)
        self._outbox = Outbox(self._brokers, max_queued, max_packet_size)
        self._renewal = Renewal(credentials, self._brokers, connect_timeout, self._outbox)
        self._dialer = Dialer(settings, self._brokers, self._renewal, certificates)
        self._lifetime = Lifetime(self._dialer, self._subscriber, self._outbox, self._renewal)
        self.on_reconnected: list[Callable[[bool], Awaitable[None]]] = self._lifetime.on_reconnected
        self.on_failed: list[Callable[[TransportError], None]] = self._lifetime.on_failed
        self.on_refused: list[Callable[[TransportError], None]] = self._lifetime.on_refused
        in_child(self._after_fork)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "failed" if self._lifetime.failure else "not connected"
        return f"<Connection {self.client_id} to {self.url}, {state}>"

    @property
    def url(self) -> BrokerURL:
        """The URL of the broker in use; while there is no connection, of the broker that is tried."""
        return self._brokers.current

    @property
    def connected(self) -> bool:
        """Whether the connection is up, or is down only for a moment because a token is being renewed."""
        return self._lifetime.reconnector.connected

    @property
    def failure(self) -> TransportError | None:
        """Why the connection has failed permanently; None while it works or tries to come back."""
        return self._lifetime.failure

    @property
    def session_present(self) -> bool:
        """Whether the broker still had the session at the latest connect."""
        limits = self._lifetime.reconnector.limits
        return limits is not None and limits.session_present

    @property
    def limits(self) -> Capabilities | None:
        """What the broker said of itself at the latest connect, and what follows; None before the first connect."""
        return self._lifetime.reconnector.limits

    @property
    def may_be_taken_over(self) -> bool:
        """Whether another client may have taken over the session: the connection broke within the last 10 s.

        Some brokers do not tell a client that another client with the same id has connected.
        """
        return self._lifetime.reconnector.may_be_taken_over

    @property
    def max_payload(self) -> int:
        """The size of the largest payload that this client and its broker take, in bytes; see ``max_packet_size``."""
        return self._outbox.max_payload

    @property
    def epoch(self) -> int:
        """How many network connections were opened so far, failed attempts included."""
        return self._dialer.epoch

    @property
    def started(self) -> bool:
        """Whether at least one endpoint uses the connection."""
        return self._lifetime.users > 0

    @property
    def shared_subscriptions(self) -> bool:
        """Whether the broker offers shared subscriptions; True until the broker says otherwise."""
        return self._subscriber.shared_subscriptions

    @property
    def keeps_retained_apart(self) -> bool:
        """Whether the nodes of the broker may keep retained messages apart; False until the first connect."""
        return self._subscriber.limits is not None and self._subscriber.limits.keeps_retained_apart

    # Other processes

    @property
    def inherited(self) -> ConnectedBeforeFork | None:
        """The error that every use raises in a child process, if the connection was started before ``os.fork()``."""
        return self._lifetime.inherited

    def check_process(self) -> None:
        """Raise an error when the connection belongs to the parent process.

        Raises:
            ConnectedBeforeFork: The connection was started before ``os.fork()``, and this is the child process.
        """
        self._lifetime.check_process()

    def rename(self, client_id: str) -> None:
        """Use another MQTT client id, from the next start on."""
        self.client_id = client_id
        self._dialer.rename(client_id)
        self._subscriber.client_id = client_id

    def _after_fork(self) -> None:
        self._lifetime.after_fork(self.client_id)
        if self.inherited is None:
            self.rename(_new_client_id() if self._generated else self.client_id)

    # Starting and stopping

    def claim_will(self, will: Will) -> None:
        """Set the Last Will. A connection can have only one Last Will, which must be set before the start.

        Raises:
            ValueError: The connection has a Last Will already, or has been started.
            WireError: No message can be published on the Last Will's topic.
        """
        pack_topic(will.topic, "the topic of the Last Will")
        if self._dialer.will is not None:
            raise ValueError("this connection has a Last Will already: give each tool server a connection of its own")
        if self.started:
            raise ValueError("a Last Will must be set before the connection starts: create the tool server first")
        self._dialer.will = will

    def release_will(self, will: Will) -> None:
        """Remove a Last Will that :meth:`claim_will` has set."""
        if self._dialer.will is will:
            self._dialer.will = None

    async def start(self) -> None:
        """Connect. When the connection is started already, only count one more endpoint that uses it.

        Raises:
            BrokerUnreachable: No MQTT broker answers at the URL.
            ConnectedBeforeFork: The connection was started before ``os.fork()``, and this is the child process.
            BrokerNotSupported: The broker has no QoS 1, or no retained messages.
            ConnectionRefused: The broker refuses the credentials or the client id.
            TopicNotAuthorized, SubscriptionRefused: The broker refuses one of the subscriptions made before the start.
            RuntimeError: The connection runs on another event loop.
        """
        await self._lifetime.start()

    async def stop(self, *, end_session: bool = False) -> None:
        """Count one endpoint less. When no endpoint is left, send the messages that wait, then disconnect.

        The stop waits up to 5 s until the broker has confirmed all messages, as long as the connection is up. Messages
        that the broker has not confirmed by then fail with :class:`ConnectionLost`. A warning in the log says how many
        they are.

        Args:
            end_session: Tell the broker to forget the session, with the messages that wait in it.

        Raises:
            RuntimeError: The connection runs on another event loop.
        """
        await self._lifetime.stop(end_session=end_session)

    def give_up(self, failure: TransportError, *, publish_will: bool = False) -> None:
        """End the connection permanently, and leave its session to the process that takes it over.

        Args:
            failure: The reason, which every later use of the connection raises.
            publish_will: Whether the broker publishes the Last Will, unless another process takes the session over.
        """
        self._lifetime.give_up(failure, publish_will=publish_will)

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
        guarded: bool = False,
        no_local: bool = False,
        on_refused: Callable[[TransportError], None] | None = None,
    ) -> None:
        """Call ``handler`` for each matching message, now and after every reconnect.

        Before :meth:`start`, this method only registers the handler. At the start, the handler then gets the messages
        that wait in the session. While the connection is broken, the method only registers the handler too: the
        reconnect makes the subscription, before it sends the messages that wait.

        Args:
            topic_filter: An MQTT topic filter, which may be a shared one (``$share/group/filter``). When the broker has
                no shared subscriptions, ``filter`` is subscribed to instead, and a warning is logged once.
            handler: Called on the event loop, in order of arrival. It must not block.
            qos: The highest QoS wanted: 0, 1 or 2.
            snapshot: Whether retained messages are wanted, on subscribing and after each reconnect.
            manual: Whether the handler acknowledges each message when the work is done.
            exclusive: The name of an owner. When the broker has no shared subscriptions, a shared filter with an owner
                is not subscribed to before :meth:`take_alone` is called for that owner.
            guarded: Whether the filter is not subscribed to before :meth:`admit`. When the broker has lost the session,
                the filter must be admitted again. The handler gets the messages of a subscription that an earlier
                process has left in the session.
            no_local: Whether this client's own messages are not wanted. For plain filters only.
            on_refused: Called with the error whenever the broker refuses the topic filter: now, at the start, or after
                a reconnect. The connection works without the subscription then. None raises the error, also from
                :meth:`start`.

        Raises:
            WireError: The topic filter is not valid. Nothing was registered.
            TopicNotAuthorized: The broker forbids the topic filter.
            SubscriptionRefused: The broker refuses for another reason.
            TransportError: The connection was stopped meanwhile, or has failed permanently.
        """
        check_filter(topic_filter)
        subscription = self._subscriber.note(
            topic_filter,
            handler,
            qos=qos,
            snapshot=snapshot,
            manual=manual,
            exclusive=exclusive,
            guarded=guarded,
            no_local=no_local,
            on_refused=on_refused,
        )
        if subscription is None:
            return
        if subscription.shared and self._needs_clean_start:
            await self._lifetime.reconnector.begin_clean()
            return
        try:
            await self._subscriber.subscribe(subscription)
        except (TopicNotAuthorized, SubscriptionRefused):
            await self.unsubscribe(topic_filter, handler)
            raise
        except ConnectionLost as error:
            self._lifetime.check_usable()
            logger.debug("the reconnect will subscribe to %s: %s", topic_filter, error)

    async def admit(self, topic_filters: Collection[str], *, again: bool = False) -> None:
        """Make guarded subscriptions at the broker; see :meth:`subscribe`. They last until the session is lost.

        Args:
            topic_filters: The topic filters of the subscriptions.
            again: Whether to send the SUBSCRIBE also for subscriptions that were admitted before.

        Raises:
            TopicNotAuthorized: The broker refuses.
            ConnectionLost: There is no connection now.
        """
        if self._needs_clean_start and any(each.startswith("$share/") for each in topic_filters):
            await self._lifetime.reconnector.begin_clean()
        await self._subscriber.admit(topic_filters, again=again)

    @property
    def _needs_clean_start(self) -> bool:
        return self._lifetime.reconnector.forgets_groups and not self._dialer.clean_start

    @property
    def sends_retained_once(self) -> bool:
        """Whether the broker sends the retained messages of a topic filter only once for each connection."""
        limits = self._lifetime.reconnector.limits
        return limits is not None and limits.retained_once and self._subscriber.has_shared

    async def take_alone(self, owner: str, *, keep: bool) -> None:
        """Make the exclusive subscriptions of an owner, at a broker without shared subscriptions.

        They last until the network connection is lost. The caller must know that no other connection has them.

        Args:
            owner: The owner of the subscriptions.
            keep: Whether the handlers get the messages for these subscriptions that waited in the session. Otherwise
                the messages are dropped.

        Raises:
            TopicNotAuthorized, ConnectionLost: See :meth:`subscribe`.
        """
        await self._subscriber.take_alone(owner, keep=keep)

    async def leave_alone(self, owner: str) -> None:
        """Undo :meth:`take_alone`. After a reconnect this works too, when the broker has kept the session."""
        await self._subscriber.leave_alone(owner)

    async def unsubscribe(self, topic_filter: str, handler: Handler) -> None:
        """Stop calling ``handler``. Unsubscribe at the broker when no other handler has the same filter."""
        await self._renewal.wait_over()  # during a renewal, no link can send the UNSUBSCRIBE
        await self._subscriber.unsubscribe(topic_filter, handler)

    async def leave(self, topic_filter: str) -> None:
        """Unsubscribe at the broker only.

        The handlers still get the messages that the broker had sent or queued, until :meth:`unsubscribe`.
        """
        await self._subscriber.leave(topic_filter)


def _in_range(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least:,} to {most:,}, not {value!r}")
    return value


def _new_client_id() -> str:
    return f"mqtt-agent-{uuid.uuid4().hex[:12]}"
