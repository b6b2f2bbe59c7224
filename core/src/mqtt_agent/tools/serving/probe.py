"""Finds out whether the process behind a server card is still there, where no Last Will says so.

A broker that was killed publishes no Last Wills. Some brokers publish a Last Will without retaining it. In both cases
a retained card says online although its server is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import SubscriptionRefused, TopicNotAuthorized, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.wire import BOUND, Query, Response, ServerCard, decode, encode, new_call_id

__all__ = ["Inquiry"]

logger: logging.Logger = logger_of(__name__)

_ANSWERS_WITHIN = 5.0
"""Seconds in which a server answers a query. A server that is about to reconnect gets the query then."""
_FIRST_RETRY, _LONGEST_RETRY = 10.0, 300.0
"""Seconds until an inbox is tried again in which no answer can arrive: after the first time, and at most."""
_MOST_HEARD = 10_000
"""How many servers that were heard are remembered. Strangers may write cards of many servers."""


@dataclass(eq=False)
class _Asked:
    """A query whose answer is awaited.

    Attributes:
        server: The id of the server that was asked.
        bound: Whether only this server can answer, because the broker protects the topic of the answer.
    """

    server: str
    bound: bool
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Inquiry:
    """Asks other servers whether they are there.

    A broker may say that nobody is subscribed to the query topic of a server. Where the broker does not say this, a
    server that does not answer is gone. But this holds only for a server that was not heard since the latest connect:
    the Last Will of any other server will arrive. And it holds only when an answer can arrive, which a message to
    itself shows.

    Args:
        scope: What all parts of the asking server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._connection = scope.connection
        self._heard: dict[str, int] = {}
        """By server: the epoch of our connection in which the server was last heard."""
        self._tells = 0
        """The epoch of our connection in which the broker has said that nobody is subscribed to a topic."""
        self._asked: dict[str, _Asked] = {}
        self._inboxes: dict[bool, asyncio.Event] = {}
        """For sender-bound and plain topics: whether a message to this server's inbox has returned."""
        self._retries: dict[bool, tuple[float, float]] = {}
        """For inboxes in which no answer can arrive: when to try again, in loop time, and the wait after that."""
        self._asking = 0
        self._one_at_a_time = asyncio.Lock()

    def hear(self, server: str) -> None:
        """Note that a server has spoken: that a message has arrived which is not retained.

        Args:
            server: The id of the server, or the name that its replicas share.
        """
        self._heard.pop(server, None)
        self._heard[server] = self._connection.epoch  # the latest is the last
        for asked in self._asked.values():
            if asked.server == server:
                asked.answered.set()
        if len(self._heard) > _MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def hear_only(self, servers: Collection[str]) -> None:
        """Forget that other servers than these were heard, because their Last Wills will not arrive."""
        self._heard = {server: epoch for server, epoch in self._heard.items() if server in servers}

    async def is_gone(self, card: ServerCard) -> bool:
        """Whether nobody is subscribed to the query topic of a server, or no answer of the server can be expected.

        Args:
            card: The card of the other server.

        Returns:
            False also when this cannot be found out, because the broker forbids the query or the answer, or because
            the servers use no topics in common.

        Raises:
            TransportError: The connection ended.
        """
        bound = self._scope.dialect.bound and BOUND in (card.features or ())
        if not (bound or self._scope.dialect.plain):
            return False
        if self._connection.epoch in (self._heard.get(card.server), self._heard.get(card.shared_name)):
            return await self._ask(card, bound) == NO_MATCHING_SUBSCRIBERS
        self._asking += 1
        try:
            if not await self._can_hear(bound):
                return await self._ask(card, bound) == NO_MATCHING_SUBSCRIBERS
            return await self._is_silent(card, bound)
        finally:
            self._asking -= 1
            if not self._asking:
                await self._close()

    async def _is_silent(self, card: ServerCard, bound: bool) -> bool:
        epoch, query_id = self._connection.epoch, new_call_id()
        asked = self._asked[query_id] = _Asked(card.server, bound)
        try:
            if await self._ask(card, bound, query_id) == NO_MATCHING_SUBSCRIBERS:
                return True
            await within(asked.answered.wait(), _ANSWERS_WITHIN)
        except asyncio.TimeoutError:
            return self._connection.connected and self._connection.epoch == epoch
        finally:
            del self._asked[query_id]
        return False

    async def _ask(self, card: ServerCard, bound: bool, query_id: str | None = None) -> int:
        """Publish a query, and return the reason code of its PUBACK."""
        topics, own = self._scope.topics, self._scope.server_id
        topic = topics.bound.query(card.server, own) if bound else topics.server_query(card.server)
        query = Query(query_id=query_id or new_call_id(), call_ids=[], client=own)
        try:
            return await self._connection.publish(topic, encode(query))
        except TopicNotAuthorized as error:
            logger.debug("only the Last Will of server %s can report that it is gone: %s", card.server, error)
            if query_id is not None:
                self._asked[query_id].answered.set()  # silence says nothing
            return 0

    # The inbox for the answers

    async def _can_hear(self, bound: bool) -> bool:
        """Whether answers arrive, and are needed because the broker does not say when nobody is subscribed."""
        async with self._one_at_a_time:
            if self._tells == self._connection.epoch:
                return False
            now = asyncio.get_running_loop().time()
            at, wait = self._retries.get(bound, (now, _FIRST_RETRY))
            if bound not in self._inboxes and now >= at:
                self._retries[bound] = now + wait, min(2 * wait, _LONGEST_RETRY)
                try:
                    if await self._message_itself(bound) == NO_MATCHING_SUBSCRIBERS:
                        self._tells = self._connection.epoch
                        del self._retries[bound]
                        return False
                    returned = asyncio.Event()
                    if await self._open(bound, returned):
                        await self._message_itself(bound)
                        await within(returned.wait(), _ANSWERS_WITHIN)
                        del self._retries[bound]
                except (TopicNotAuthorized, SubscriptionRefused, asyncio.TimeoutError) as error:
                    why = str(error) or "no message to itself returned"
                    logger.info("%s cannot get answers of other servers: %s", self._scope.server_id, why)
            returned = self._inboxes.get(bound)
            return returned is not None and returned.is_set()

    async def _open(self, bound: bool, returned: asyncio.Event) -> bool:
        """Subscribe to an inbox.

        Returns:
            False when the connection is lost. The reconnect must not subscribe then: some brokers end the connection of
            a client that has no right to subscribe, and a server works without this right.
        """
        epoch, inbox = self._connection.epoch, self._inbox(bound)
        self._inboxes[bound] = returned
        try:
            await self._connection.subscribe(inbox, self._on_answer)
            made = self._connection.connected and self._connection.epoch == epoch
        except (TopicNotAuthorized, SubscriptionRefused):
            del self._inboxes[bound]
            raise
        if not made:
            del self._inboxes[bound]
            await self._connection.unsubscribe(inbox, self._on_answer)
        return made

    async def _message_itself(self, bound: bool) -> int:
        topics, own = self._scope.topics, self._scope.server_id
        topic = topics.bound.responses(own, own) if bound else topics.client_responses(own)
        marker = Response(call_id=MARKER_PREFIX + new_call_id(), server=own)
        return await self._connection.publish(topic, encode(marker))

    def _inbox(self, bound: bool) -> str:
        topics, own = self._scope.topics, self._scope.server_id
        return topics.bound.responses(own) if bound else topics.client_responses(own)

    async def _close(self) -> None:
        async with self._one_at_a_time:
            while self._inboxes and not self._asking:
                bound, _ = self._inboxes.popitem()
                await self._connection.unsubscribe(self._inbox(bound), self._on_answer)

    def _on_answer(self, message: InboundMessage) -> None:
        if message.retain:
            return
        try:
            response = decode(Response, message.payload, self._scope.max_payload)
        except WireError as error:
            message.refuse("an answer that cannot be read", str(error))
            return
        bound = message.topic != self._inbox(False)
        sender = message.topic.rpartition("/")[2] if bound else None
        asked = self._asked.get(response.call_id)
        # On a plain topic, everybody can answer, and only a signature proves that the server itself has.
        if asked is not None and response.server == asked.server and sender == (asked.server if asked.bound else None):
            self.hear(asked.server)
        elif response.call_id.startswith(MARKER_PREFIX) and sender in (None, self._scope.server_id):
            returned = self._inboxes.get(bound)
            if returned is not None:
                returned.set()
