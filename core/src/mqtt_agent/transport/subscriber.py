"""Makes the subscriptions of one connection at the broker, and makes them again after each reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from mqtt_agent.errors import BrokerNotSupported, ConnectionLost, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import InboundMessage, MessageIdentity, MessageScreen
from mqtt_agent.transport.reasons import SHARED_NOT_SUPPORTED, subscription_error
from mqtt_agent.transport.subscriptions import Handler, Subscription, Subscriptions

__all__ = ["Subscriber"]

logger: logging.Logger = logger_of(__name__)


class Subscriber:
    """Makes the subscriptions of one connection.

    A broker without shared subscriptions needs a substitute: only one connection at a time may have the subscriptions
    of an owner. There, such subscriptions are *held*: they are not made at the broker before :meth:`take_alone`.

    Args:
        brokers: The brokers that may be used, for logs and errors.
        client_id: The MQTT client id, for logs and errors.
        identity: Checks the signatures of messages.
        screens: What decides which messages reach the handlers, by namespace.
    """

    def __init__(
        self,
        brokers: Brokers,
        client_id: str,
        identity: MessageIdentity | None,
        screens: Mapping[str, MessageScreen],
    ) -> None:
        self._identity = identity
        self._screens = screens
        self._brokers = brokers
        self.client_id = client_id
        self._subscriptions = Subscriptions()
        self._link: Link | None = None
        self.limits: Capabilities | None = None
        """What the broker of the latest link can do."""
        self._without_groups = False  # the broker has refused a shared subscription, contrary to its CONNACK packet
        self._warned_unshared = False
        self._alone: set[str] = set()  # owners whose exclusive subscriptions this connection has taken
        self._freed: set[str] = set()  # owners whose subscriptions were removed from the session of this link

    @property
    def shared_subscriptions(self) -> bool:
        """Whether the broker offers shared subscriptions; True until the broker says otherwise."""
        return self.limits is None or self.limits.shared_subscriptions

    @property
    def has_shared(self) -> bool:
        """Whether the connection has a shared subscription."""
        return any(subscription.shared for subscription in self._subscriptions)

    def dispatch(self, message: InboundMessage) -> None:
        """Call the handlers of a message, if the message passes the screen of its namespace."""
        if self._identity is not None:
            message.identity = self._identity
        if self._screens:
            self._dispatch_screened(message)
        else:
            self._subscriptions.dispatch(message)

    def _dispatch_screened(self, message: InboundMessage) -> None:
        screens = [each for space, each in self._screens.items() if message.topic.startswith(f"{space}/")]
        for each in screens:
            if not each.passes(message):
                message.acknowledge()
                break
        else:
            self._subscriptions.dispatch(message)
        for each in screens:
            each.received(message)

    # Links

    def prepare(self, limits: Capabilities) -> None:
        """Note what the broker of a new link can do, before the first message is dispatched."""
        self.limits = limits.without_groups() if self._without_groups else limits
        self._freed.clear()
        if not limits.session_present:
            for subscription in self._subscriptions:
                subscription.admitted = False
        self._update_all_held()

    async def open(self, link: Link) -> None:
        """Make all subscriptions over a new link.

        Raises:
            TopicNotAuthorized, SubscriptionRefused, BrokerNotSupported, ConnectionLost: See :meth:`subscribe`.
        """
        self._link = link
        if link.limits.retained_once:
            for each in self._subscriptions:
                each.confirmed = False  # see _renew
        # Even when the broker still has the session: some brokers lose a part of the session, mostly share groups.
        ready = [each for each in self._subscriptions if not (each.left or each.held or each.waits)]
        await asyncio.gather(*(self._make(link, each) for each in ready))

    def close(self) -> None:
        """Note that the link is lost."""
        self._link = None
        self._alone.clear()

    def forget_session(self) -> None:
        """Note that the connection was stopped. The broker may forget its subscriptions before the next start."""
        self._link = None
        for subscription in self._subscriptions:
            subscription.confirmed = subscription.admitted = False

    # Subscribing

    def note(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        qos: int,
        snapshot: bool,
        manual: bool,
        exclusive: str | None,
        guarded: bool,
        on_refused: Callable[[TransportError], None] | None,
        no_local: bool = False,
    ) -> Subscription | None:
        """Call a handler for matching messages from now on. :meth:`Connection.subscribe` explains the arguments.

        Returns:
            The subscription when it must be made at the broker now, else None.
        """
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None:
            subscription = Subscription(
                topic_filter,
                qos,
                0 if snapshot else 2,
                snapshot,
                manual,
                exclusive=exclusive,
                guarded=guarded,
                no_local=no_local,
                on_refused=on_refused,
            )
            self._subscriptions.add(subscription)
            self._update_held(subscription)
        elif subscription.left:
            # Another handler's UNSUBSCRIBE is under way. This handler's SUBSCRIBE follows it, at the latest after the
            # next connect.
            subscription.left = subscription.confirmed = False
        subscription.handlers.append(handler)
        if self._link is None or subscription.held or subscription.waits or (subscription.confirmed and not snapshot):
            return None
        return subscription

    async def admit(self, topic_filters: Iterable[str], *, again: bool) -> None:
        """See :meth:`Connection.admit`."""
        link = self._link
        if link is None:
            raise ConnectionLost(f"not connected to {self._brokers}")
        known = [self._subscriptions.get(each) for each in topic_filters]
        admitted = [each for each in known if each is not None and (each.waits or again)]
        for subscription in admitted:
            subscription.admitted = True
        await asyncio.gather(*(self._make(link, each) for each in admitted if not (each.left or each.held)))

    async def subscribe(self, subscription: Subscription) -> None:
        """Make a subscription at the broker.

        Raises:
            TopicNotAuthorized: The broker forbids the topic filter.
            SubscriptionRefused: The broker refuses for another reason.
            BrokerNotSupported: The broker grants a lower QoS.
            ConnectionLost: The connection was lost meanwhile. The subscription is made after the reconnect.
        """
        if self._link is not None:
            await self._make(self._link, subscription)

    async def _make(self, link: Link, subscription: Subscription) -> None:
        if link.limits.retained_once and subscription.snapshot and not self.has_shared:
            await self._renew(link, subscription)
        if not subscription.left:
            await self._send(link, subscription)

    async def _renew(self, link: Link, subscription: Subscription) -> None:
        """Remove a subscription from the session, so that the next SUBSCRIBE makes a new subscription.

        MQTT 5 lets a broker send the retained messages at each SUBSCRIBE with Retain Handling 0, even when the session
        has the subscription already [MQTT-3.8.4-3]. rumqttd sends them for a new subscription only. It also answers an
        UNSUBSCRIBE only when the subscription was made on this network connection.
        """
        if link.limits.session_present and not subscription.confirmed:
            await self._send(link, subscription)
        if subscription.confirmed and not subscription.left:
            await self._remove(link, subscription, subscription.topic_filter)

    async def _remove(self, link: Link, subscription: Subscription, topic_filter: str) -> None:
        # Noted before the packet is sent: rumqttd never answers an UNSUBSCRIBE for a filter that it does not have.
        subscription.confirmed, subscription.requested = False, None
        await link.unsubscribe(topic_filter)

    async def _send(self, link: Link, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        if subscription.shared and not self.shared_subscriptions:
            topic_filter = subscription.plain_filter
            if subscription.exclusive is None:
                self._warn_unshared("every subscriber gets each message")
        subscription.requested = link
        code = await link.subscribe(
            topic_filter,
            subscription.qos,
            retain_handling=subscription.retain_handling,
            no_local=subscription.no_local,
        )
        if code == SHARED_NOT_SUPPORTED and subscription.shared and self.shared_subscriptions:
            self._without_groups = True
            self.limits = link.limits.without_groups()
            self._update_all_held()
            if not subscription.held:
                await self._send(link, subscription)
            return
        if code >= 0x80:
            error = subscription_error(self._brokers.current, self.client_id, topic_filter, code)
            if subscription.on_refused is None:
                raise error
            subscription.requested = None
            subscription.on_refused(error)
            return
        if code < subscription.qos:
            raise BrokerNotSupported(
                f"{self._brokers} cannot be used: it grants QoS {code} for a subscription with QoS {subscription.qos}, "
                "so each message may get lost; a broker that does this often has no sessions, no Last Will and no "
                "shared subscriptions either: use another broker"
            )
        if subscription.requested is link:  # otherwise an UNSUBSCRIBE followed
            subscription.confirmed = True

    def _warn_unshared(self, effect: str) -> None:
        if not self._warned_unshared:
            self._warned_unshared = True
            logger.warning("%s has no shared subscriptions: %s", self._brokers, effect)

    async def unsubscribe(self, topic_filter: str, handler: Handler) -> None:
        """See :meth:`Connection.unsubscribe`."""
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None or handler not in subscription.handlers:
            return
        try:
            if subscription.handlers == [handler]:
                await self.leave(topic_filter)  # messages that arrive before the UNSUBACK are still for the handler
        finally:
            if handler in subscription.handlers:
                subscription.handlers.remove(handler)
        if not subscription.handlers and not subscription.left:  # another handler was added and removed meanwhile
            await self.leave(topic_filter)
        if not subscription.handlers and self._subscriptions.get(topic_filter) is subscription:
            self._subscriptions.remove(subscription)

    async def leave(self, topic_filter: str) -> None:
        """See :meth:`Connection.leave`."""
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None or subscription.left:
            return
        subscription.left = True
        if self.limits is not None and self.limits.leaves_all_groups and not subscription.shared and self.has_shared:
            return
        link = self._link
        inherited = subscription.guarded and link is not None and link.limits.session_present
        made = subscription.confirmed or subscription.requested is link or inherited
        if link is not None and made and not subscription.held:
            try:
                shared = self.shared_subscriptions
                await self._remove(link, subscription, topic_filter if shared else subscription.plain_filter)
            except ConnectionLost:
                logger.debug("the connection was lost before the broker unsubscribed %s", topic_filter)

    # The substitute for shared subscriptions

    def _update_all_held(self) -> None:
        for subscription in self._subscriptions:
            self._update_held(subscription)

    def _update_held(self, subscription: Subscription) -> None:
        owner = subscription.exclusive
        subscription.held = owner is not None and not self.shared_subscriptions and owner not in self._alone
        if subscription.held:
            self._warn_unshared("one replica of a tool server serves, and the others are on standby")

    async def take_alone(self, owner: str, *, keep: bool) -> None:
        """See :meth:`Connection.take_alone`."""
        link = self._link
        if link is None:
            raise ConnectionLost(f"not connected to {self._brokers}")
        self._alone.add(owner)
        self._update_all_held()
        exclusive = [subscription for subscription in self._subscriptions if subscription.exclusive == owner]
        for subscription in exclusive:
            kept = list(subscription.kept)
            subscription.kept.clear()
            for message in kept if keep else ():
                subscription.handle(message)
        ready = [each for each in exclusive if not (each.left or each.waits)]
        await asyncio.gather(*(self._make(link, each) for each in ready))

    async def leave_alone(self, owner: str) -> None:
        """See :meth:`Connection.leave_alone`."""
        taken = owner in self._alone
        self._alone.discard(owner)
        self._update_all_held()
        link, held = self._link, [each for each in self._subscriptions if each.held and each.exclusive == owner]
        session_present = self.limits is not None and self.limits.session_present
        inherited = session_present and owner not in self._freed
        self._freed.add(owner)
        if link is not None and (taken or inherited):
            for subscription in held:
                if not taken:
                    # ejabberd unsubscribes another client when a client has no such subscription itself.
                    await self._make(link, subscription)
                subscription.confirmed = False
                await link.unsubscribe(subscription.plain_filter)
        for subscription in held:
            subscription.kept.clear()
