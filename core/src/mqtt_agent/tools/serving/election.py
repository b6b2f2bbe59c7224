"""Which of several replicas serves, at a broker without shared subscriptions.

Such a broker gives a call to everybody who is subscribed to its topic, so of the replicas with the same name one
subscribes, and the others stand by. Their server cards are all that they need to agree:

* The card of one that stands by says so, and lists no tools. Every other online card is a *claim* to serve; a new one
  lists no tools yet.
* Who has a claim keeps it. Without one, the replica that is first in line (the smallest ``(since, server id)``) claims.
* A claim is valid when its card is out, and everything that the broker had for the claimant has come, and no other
  claim is among it. Of two that claim at once, at least one sees the other; who sees another withdraws. With a valid
  claim it subscribes to the calls, then it lists its tools.
* A replica whose connection broke has no valid claim until it has made it again. What comes meanwhile is kept if its
  own claim still stands on the broker, for then nobody else can have served; otherwise it is dropped, and the replica
  waits in line again, behind the others, while it finishes the calls that it has.

The others take over when the claim goes offline (by the Last Will, or in good order) or is removed, or when nobody
listens any more at the claimant's query topic. Calls that a killed replica had are lost: their callers get
``ToolUnavailable`` with ``maybe_executed``, or send them again if the tool is read-only or idempotent. A replica that
is stopped finishes its calls before it says offline; until then, new calls wait at their callers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mqtt_agent.errors import ConnectionLost, MQTTAgentError, TopicNotAuthorized, WireError
from mqtt_agent.tools.hosts import Hosts
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.transport.outbox import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.wire import Query, ServerCard, Topics, decode, encode, new_call_id

__all__ = ["Election"]

logger: logging.Logger = logging.getLogger(__name__)

_ASK_AFTER = 10.0
"""Seconds after which one that stands by asks whether the one that serves is still there."""
_CLAIMS_MEET = 2.0
"""Seconds after which a rival's claim is no passing one: a cluster was split, or a stranger wrote the card."""


class Election:
    """One replica's part in the agreement.

    Args:
        connection: The replica's connection; its exclusive subscriptions are what the election is about.
        topics: The namespace.
        presence: Publishes the replica's cards.
        barrier: Returns True when everything has come that the broker had for this connection, and False when that
            cannot be told.
        server: The id of this replica.
        name: The name that all replicas share.
        max_payload: Bytes of the largest card that is read.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        presence: Presence,
        barrier: Callable[[], Awaitable[bool]],
        *,
        server: str,
        name: str,
        max_payload: int,
    ) -> None:
        self.serving: str | None = None
        """The id of the replica that serves, as far as this one knows."""
        self._connection = connection
        self._topics = topics
        self._presence = presence
        self._barrier = barrier
        self._server = server
        self._name = name
        self._max_payload = max_payload
        self._cards: dict[str, tuple[int, ServerCard]] = {}  # with the epoch of our connection when we saw each
        self._hosts = Hosts(connection, topics, self._on_host)
        self._absent: dict[str, ServerCard] = {}  # cards of those who did not listen, while nothing newer comes
        self._valid_in: int | None = None  # the epoch in which our claim is valid
        self._continued_in: int | None = None  # the epoch in which our claim of an earlier one still stood
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Find out who serves, and begin to serve or stand by; then go on watching.

        Raises:
            TransportError: The broker refuses what has to be published or subscribed to.
        """
        self._presence.serving = self._stopping = False
        try:
            await self._connection.subscribe(self._topics.all_server_cards, self._on_card, qos=0, snapshot=True)
            await self._presence.follow_no_more()  # the same card from two subscriptions would come twice
        except TopicNotAuthorized as error:
            logger.warning("%s; %s cannot see its replicas: run one of them only", error, self._server)
        try:
            epoch = self._connection.epoch
            if await self._seen_all(epoch) and not self._claim_stands(epoch):
                # Before anybody claims: then of those that start at once, all but the first see that they need not.
                self._show(serving=False, standby=True, epoch=epoch)
                await self._presence.announce_server()
            await self._decide()
        except ConnectionLost as error:
            logger.info("%s takes its place when the connection is back: %s", self._server, error)
        self._task = asyncio.create_task(self._watch(), name=f"mqtt-agent election {self._server}")

    async def stop(self) -> None:
        """Decide nothing more; a replica that serves goes on."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._connection.unsubscribe(self._topics.all_server_cards, self._on_card)
        await self._hosts.stop()
        self._cards.clear()
        self._absent.clear()
        self._valid_in = self._continued_in = None

    def wake(self) -> None:
        """Decide again: the connection is a new one."""
        self._news.set()

    # What is known

    def _on_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        if server == self._server:
            self._presence.on_own_server_card(message)
        card: ServerCard | None = None
        try:
            card = decode(ServerCard, message.payload, self._max_payload) if message.payload else None
        except WireError:
            logger.debug("%s cannot be read", message.topic)
        if server is None or (card is not None and (card.server != server or card.name != self._name)):
            return
        if card is None:
            self._hosts.forget(server)
            self._cards.pop(server, None)
        else:
            self._cards[server] = self._connection.epoch, card if server == self._server else self._hosts.judge(card)
        if server != self._server:
            self._news.set()

    def _on_host(self, card: ServerCard) -> None:
        seen, _ = self._cards.get(card.server, (0, None))
        self._cards[card.server] = seen, card
        self._news.set()

    def _others(self) -> list[ServerCard]:
        """The cards of the other replicas that are online, the first in line first."""
        epoch = self._connection.epoch
        cards = [card for seen, card in self._cards.values() if seen == epoch and card.status == "online"]
        others = [c for c in cards if c.server != self._server and self._absent.get(c.server) != c]
        return sorted(others, key=_place)

    def _rival(self) -> ServerCard | None:
        """Who serves or should serve instead of this one, or None."""
        others = self._others()
        claims = [card for card in others if not card.standby]
        own = (self._presence.since, self._server)
        if self._serves:
            return next((card for card in claims if _place(card) < own), None)
        if claims:
            return claims[0]
        return next((card for card in others if _place(card) < own), None)

    def _claim_stands(self, epoch: int) -> bool:
        """Whether the broker still shows a claim of an earlier connection: then nobody else can have served since."""
        seen, own = self._cards.get(self._server, (0, None))
        if own is None or seen != epoch or own.status != "online" or own.standby:
            return False
        if own.agent is not None:
            return False  # it has no will of its own, so it stands also when others have served since
        return (own.started, own.epoch) != (self._presence.began, epoch)

    @property
    def _serves(self) -> bool:
        return self._valid_in == self._connection.epoch

    # Deciding

    async def _watch(self) -> None:
        while not self._stopping:  # before Python 3.12, wait_for may swallow a cancellation
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _ASK_AFTER)
            if not self._connection.connected:
                self._news.clear()  # the reconnect is the next news
                continue
            if self._stopping:
                return
            try:
                if not self._news.is_set():
                    await self._ask()
                elif self._serves and self._rival() is not None:
                    await asyncio.sleep(_CLAIMS_MEET)
                await self._decide()
            except MQTTAgentError as error:
                logger.warning("%s could not take its place among its replicas: %s", self._server, error)
            except Exception:  # whoever decides nothing any more neither serves nor takes over
                logger.exception("%s could not take its place among its replicas", self._server)

    async def _ask(self) -> None:
        """Find out whether the one in front is there: a broker that was killed publishes no wills."""
        rival = self._rival()
        if self._serves or rival is None:
            return
        query = Query(query_id=new_call_id(), call_ids=[], client=self._server)
        topic = self._topics.server_query(rival.server)
        for _ in range(2):  # it may be on its way back
            try:
                if await self._connection.publish(topic, encode(query)) != NO_MATCHING_SUBSCRIBERS:
                    return
            except TopicNotAuthorized as error:
                logger.debug("%s; only its will tells when %s is gone", error, rival.server)
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _ASK_AFTER / 2)
                return  # whatever it is, it is decided about now
        logger.warning("nobody listens at %s, which says online: taken for gone", topic)
        self._absent[rival.server] = rival

    async def _decide(self) -> None:
        self._news.clear()
        epoch = self._connection.epoch
        if not await self._seen_all(epoch):
            return  # the reconnect is the next news
        rival = self._rival()
        if rival is None and not self._serves:
            continued = self._continued_in == epoch or self._claim_stands(epoch)
            self._continued_in = epoch if continued else None
            self._show(serving=continued, standby=False, epoch=epoch)
            await self._presence.announce_server()
            if not await self._seen_all(epoch):
                return
            rival = next((card for card in self._others() if not card.standby), None)
            if rival is None:
                await self._connection.take_alone(self._server, keep=continued)
                self._valid_in, self.serving = epoch, self._server
                logger.info("%s serves %r alone at %s", self._server, self._name, self._connection.url)
                self._show(serving=True, standby=False, epoch=epoch)
                await self._presence.announce()
        if rival is not None:
            await self._stand_by(rival, epoch)

    async def _stand_by(self, rival: ServerCard, epoch: int) -> None:
        served, self._valid_in = self._valid_in is not None, None
        self._continued_in = None
        if served:
            self._presence.wait_behind()
        await self._connection.leave_alone(self._server)
        if self._show(serving=False, standby=True, epoch=epoch) or served:
            await self._presence.announce_server()
        if self.serving != rival.server:
            self.serving = rival.server
            logger.info("%s stands by: %s serves %r", self._server, rival.server, self._name)

    def _show(self, *, serving: bool, standby: bool, epoch: int) -> bool:
        """Set what the own cards say; True when they have to be published."""
        presence = self._presence
        before = presence.serving, presence.standby, presence.decided_in
        presence.serving, presence.standby, presence.decided_in = serving, standby, epoch
        return before != (serving, standby, epoch)

    async def _seen_all(self, epoch: int) -> bool:
        all_came = await self._barrier()
        if not self._connection.connected or self._connection.epoch != epoch:
            return False
        if not all_came:
            # To claim now could make two of us serve.
            logger.warning("%s cannot see yet who serves %r: the broker is slow", self._server, self._name)
            self._news.set()
        return all_came


def _place(card: ServerCard) -> tuple[str, str]:
    return card.since or card.started or "", card.server
