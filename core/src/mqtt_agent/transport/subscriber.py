"""Makes the subscriptions of one connection at its broker, and makes them again over each new link."""

from __future__ import annotations

import asyncio
import logging

from mqtt_agent.errors import ConnectionLost, TopicNotAuthorized
from mqtt_agent.transport.driver import BrokerLimits
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import InboundMessage
from mqtt_agent.transport.subscriptions import Handler, Subscription, Subscriptions
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Subscriber"]

logger: logging.Logger = logging.getLogger(__name__)


class Subscriber:
    """What one connection subscribes to.

    Args:
        url: The broker, for messages.
        client_id: Who subscribes, for messages.
    """

    def __init__(self, url: BrokerURL, client_id: str) -> None:
        self._url = url
        self._client_id = client_id
        self._subscriptions = Subscriptions()
        self._link: Link | None = None
        self._limits: BrokerLimits | None = None
        self._warned_unshared = False
        self._alone: set[str] = set()  # whose exclusive subscriptions are taken
        self._freed: set[str] = set()  # those whose subscriptions the session may have held, and does not any more

    @property
    def shared_subscriptions(self) -> bool:
        """Whether the broker offers shared subscriptions; True until it says otherwise."""
        return self._limits is None or self._limits.shared_subscriptions

    @property
    def has_shared(self) -> bool:
        """Whether a shared subscription is wanted."""
        return any(subscription.shared for subscription in self._subscriptions)

    @property
    def _forgets_groups(self) -> bool:
        return self._limits is not None and self._limits.forgets_groups

    def dispatch(self, message: InboundMessage) -> None:
        """Give a message to its handlers."""
        self._subscriptions.dispatch(message)

    # Links

    def prepare(self, limits: BrokerLimits) -> None:
        """A link has been opened, and its first messages are about to be dispatched."""
        self._limits = limits
        self._freed.clear()
        self._hold()

    async def open(self, link: Link) -> None:
        """Subscribe to everything over this link.

        Raises:
            TopicNotAuthorized, ConnectionLost: See :meth:`subscribe`.
        """
        self._link = link
        if self._forgets_groups and link.limits.session_present:
            # It sends retained messages for new subscriptions only, and it ends only what this connection has made: to
            # any other farewell it gives no answer.
            for each in self._subscriptions:
                each.confirmed = False
            for each in [each for each in self._subscriptions if each.snapshot]:
                if not each.left:
                    await self._make(link, each)
                if each.confirmed and not each.left:
                    each.confirmed = False
                    await link.unsubscribe(each.topic_filter)
        # Also with the session present: some brokers say so and have lost a part of it, share groups above all.
        await asyncio.gather(*(self._make(link, each) for each in self._subscriptions if not (each.left or each.held)))

    def close(self) -> None:
        """The link is gone."""
        self._link = None
        self._alone.clear()

    def forget_session(self) -> None:
        """The connection has ended: nothing is subscribed to at the broker any more."""
        self._link = None
        for subscription in self._subscriptions:
            subscription.confirmed = False

    # Subscribing

    def note(
        self, topic_filter: str, handler: Handler, *, qos: int, snapshot: bool, manual: bool, exclusive: str | None
    ) -> Subscription | None:
        """Give what matches to the handler from now on; see :meth:`Connection.subscribe` for the arguments.

        Returns:
            The subscription, if the broker has to be told of it.
        """
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None:
            subscription = Subscription(topic_filter, qos, 0 if snapshot else 2, snapshot, manual, exclusive=exclusive)
            self._subscriptions.add(subscription)
            self._hold_one(subscription)
        subscription.handlers.append(handler)
        if self._link is None or subscription.held or (subscription.confirmed and not snapshot):
            return None
        return subscription

    async def subscribe(self, subscription: Subscription) -> None:
        """Tell the broker.

        Raises:
            TopicNotAuthorized: It refuses.
            ConnectionLost: The connection ended meanwhile; the subscription will be made when it is back.
        """
        if self._link is not None:
            await self._make(self._link, subscription)

    async def _make(self, link: Link, subscription: Subscription) -> None:
        topic_filter = subscription.topic_filter
        if subscription.shared and not self.shared_subscriptions:
            topic_filter = subscription.plain_filter
            if subscription.exclusive is None:
                self._warn_unshared("everybody who subscribes gets each message")
        code = await link.subscribe(topic_filter, subscription.qos, retain_handling=subscription.retain_handling)
        if code >= 0x80:
            raise TopicNotAuthorized(
                f"{self._url} does not let {self._client_id!r} subscribe to {topic_filter} (0x{code:02x})",
                topic=topic_filter,
            )
        subscription.confirmed = True

    def _warn_unshared(self, so: str) -> None:
        if not self._warned_unshared:
            self._warned_unshared = True
            logger.warning("%s has no shared subscriptions: %s", self._url, so)

    async def unsubscribe(self, topic_filter: str, handler: Handler) -> None:
        """Stop calling ``handler``; with the last handler of a filter gone, the broker is told too."""
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
            await self._make(self._link, subscription)

    async def leave(self, topic_filter: str) -> None:
        """Tell the broker to send no more; the handlers still get what it has sent or queued, until unsubscribed."""
        subscription = self._subscriptions.get(topic_filter)
        if subscription is None or subscription.left:
            return
        subscription.left = True
        if self._forgets_groups and not subscription.shared and self.has_shared:
            return  # such a broker would take this as a farewell to all share groups, whatever the filter
        if self._link is not None and subscription.confirmed and not subscription.held:
            shared = self.shared_subscriptions
            try:
                await self._link.unsubscribe(topic_filter if shared else subscription.plain_filter)
            except ConnectionLost:
                logger.debug("the connection ended before %s was unsubscribed", topic_filter)

    # Without shared subscriptions

    def _hold(self) -> None:
        for subscription in self._subscriptions:
            self._hold_one(subscription)

    def _hold_one(self, subscription: Subscription) -> None:
        owner = subscription.exclusive
        subscription.held = owner is not None and not self.shared_subscriptions and owner not in self._alone
        if subscription.held:
            self._warn_unshared("of the replicas of a tool server, one serves and the others stand by")

    async def take_alone(self, owner: str, *, keep: bool) -> None:
        """See :meth:`Connection.take_alone`."""
        link = self._link
        if link is None:
            raise ConnectionLost(f"not connected to {self._url}")
        self._alone.add(owner)
        self._hold()
        exclusive = [subscription for subscription in self._subscriptions if subscription.exclusive == owner]
        for subscription in exclusive:
            kept = list(subscription.kept)
            subscription.kept.clear()
            for message in kept if keep else ():
                subscription.handle(message)
        await asyncio.gather(*(self._make(link, subscription) for subscription in exclusive if not subscription.left))

    async def leave_alone(self, owner: str) -> None:
        """See :meth:`Connection.leave_alone`."""
        taken = owner in self._alone
        self._alone.discard(owner)
        self._hold()
        link, held = self._link, [each for each in self._subscriptions if each.held and each.exclusive == owner]
        session_present = self._limits is not None and self._limits.session_present
        inherited = session_present and owner not in self._freed
        self._freed.add(owner)
        if link is not None and (taken or inherited):
            for subscription in held:
                if not taken:
                    # To unsubscribe in ejabberd from what one is not subscribed to unsubscribes somebody else.
                    await self._make(link, subscription)
                subscription.confirmed = False
                await link.unsubscribe(subscription.plain_filter)
        for subscription in held:
            subscription.kept.clear()
