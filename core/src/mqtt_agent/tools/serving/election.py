"""Chooses one of several replicas to serve, at a broker without shared subscriptions.

Such a broker gives each call to every client that is subscribed to the call's topic. So only one of the replicas with
the same name subscribes and serves, and the others are on standby. The replicas agree only through their server cards:

* The card of a replica on standby has ``standby`` set, and lists no tools. Every other online card is a *claim* to
  serve. A new claim lists no tools yet.
* A replica that has a claim keeps its claim. When no replica has a claim, the replica that is first in line claims.
  First in line is the replica with the smallest ``(since, server id)``.
* A claim is valid when the claimant's card is published, every message that the broker had queued for the claimant has
  arrived, and no other claim is among these messages. When two replicas claim at once, at least one of them sees the
  other's claim; a replica that sees another claim withdraws its own. With a valid claim, the replica subscribes to the
  calls, and then lists its tools.
* The card of another claimant may be missing: some clusters keep a retained message only at the node that took it. So
  a claimant subscribes to the query topic of the server's name, and then asks on this topic. The broker says when no
  other claimant is subscribed. Otherwise the other claimants publish their cards again.
* When the connection of a replica was lost, its claim is not valid until the replica has claimed again. Calls that
  arrive meanwhile are kept if the replica's own claim was valid and still stands on the broker, because then no other
  replica can have served. Otherwise these calls are dropped, and the replica goes to the end of the line, while it
  finishes the calls that it has.

Another replica takes over when the claim goes offline (by the Last Will, or because the claimant stops), when the
claim is removed, or when nobody is subscribed to the claimant's query topic any more. The calls of a replica that was
killed are lost: their callers get ``ToolUnavailable`` with ``maybe_executed``, or send the calls again if the tool is
read-only or idempotent. A replica that is stopped finishes its calls before its card says offline. Until then, new
calls wait at their callers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.seen import Seen
from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import ConnectionLost, MQTTAgentError, SubscriptionRefused, TopicNotAuthorized, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.replicas import ReplicaCards, place_in_line
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.wire import Query, ServerCard, encode, new_call_id

__all__ = ["Election"]

logger: logging.Logger = logger_of(__name__)

_ASK_AFTER = 10.0
"""Seconds after which a replica on standby asks whether the replica that serves is still there."""
_ANSWERS_WITHIN = 2.0
"""Seconds to wait for the card of another claimant. A claimant that does not answer has probably been killed."""
_CLAIMS_MEET = 2.0
"""Seconds that a serving replica waits before it withdraws because of another claim. If the other claim still stands
then, the two claims were not made at once by chance: a broker cluster was split, or somebody else wrote the card."""


class Election:
    """One replica's part in the election.

    Args:
        scope: What all parts of the server share. The election decides whether its connection may make the exclusive
            subscriptions.
        presence: Publishes the replica's cards.
        barrier: Waits until every message that the broker had queued for this connection has arrived. Returns True when
            they have arrived, and False when the replica cannot find out.
        claim_names: Finds out which tools the server may offer, and claims their names. Awaited when this replica is
            about to serve.

    Attributes:
        serving: The id of the replica that serves, as far as this replica knows.
    """

    def __init__(
        self,
        scope: Scope,
        presence: Presence,
        barrier: Callable[[], Awaitable[bool]],
        claim_names: Callable[[], Awaitable[None]],
    ) -> None:
        self.serving: str | None = None
        self._scope = scope
        self._connection = scope.connection
        self._presence = presence
        self._barrier = barrier
        self._claim_names = claim_names
        self._server_id = scope.server_id
        self._name = scope.name
        self._replicas = ReplicaCards(scope, presence.on_own_server_card, self.wake)
        self._valid_in: int | None = None
        """The epoch of our connection in which our claim is valid."""
        self._continued_in: int | None = None
        """The epoch of our connection in which our claim of an earlier epoch still stood on the broker."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._news = asyncio.Event()
        self._claims_topic = scope.topics.server_query(scope.name)
        self._listens = False
        """Whether this replica is subscribed to the query topic of the server's name, as claimants are."""
        self._answered = Seen(1000)

    async def start(self) -> None:
        """Find out which replica serves, and begin to serve or to be on standby. Then follow the other replicas' cards.

        Raises:
            TransportError: The broker refuses a message that must be published, or a subscription.
        """
        self._presence.serving = self._stopping = False
        try:
            await self._replicas.start()
            await self._presence.unfollow_server()  # the card would arrive twice, from two subscriptions
        except TopicNotAuthorized as error:
            logger.warning(
                "the broker does not let server %s read the cards of its replicas: run only one replica, or change the"
                " broker's access rules: %s",
                self._server_id,
                error,
            )
        try:
            epoch = self._connection.epoch
            if await self._seen_all(epoch) and not self._claim_stands(epoch):
                # The place in line is published before any replica claims. Then, of replicas that start at the same
                # time, only the first in line claims.
                self._show(serving=False, standby=True, epoch=epoch)
                await self._presence.announce_server()
            await self._decide()
        except ConnectionLost as error:
            logger.info("server %s continues the election after its reconnect: %s", self._server_id, error)
        self._task = asyncio.create_task(self._watch(), name=f"mqtt-agent election {self._server_id}")

    async def stop(self) -> None:
        """Stop deciding. A replica that serves continues to serve."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._listen(False)
        await self._replicas.stop()
        self._valid_in = self._continued_in = None

    def wake(self) -> None:
        """Decide again, because the connection was lost and is back, or the card of another replica has changed."""
        self._news.set()

    # What is known

    def _others(self) -> list[ServerCard]:
        return self._replicas.others()

    def _claims(self) -> list[ServerCard]:
        return [card for card in self._others() if not card.standby]

    def _rival(self) -> ServerCard | None:
        """The card of the replica that serves or should serve instead of this replica; None when there is none."""
        others, claims = self._others(), self._claims()
        own = (self._presence.since, self._server_id)
        if self._serves:
            return next((card for card in claims if place_in_line(card) < own), None)
        if claims:
            return claims[0]
        return next((card for card in others if place_in_line(card) < own), None)

    def _claim_stands(self, epoch: int) -> bool:
        """Whether the broker still has our valid claim of an earlier connection, so that no other can have served."""
        own = self._replicas.own(epoch)
        if own is None or own.status != "online" or own.standby or self._presence.late.may_be_latest:
            return False
        if own.agent is not None:
            return False  # an agent's server has no Last Will, so its claim stands even when others have served since
        ours = own.started == self._presence.began
        if ours and own.epoch == epoch:
            return False
        # Only a claim that was valid lists tools. While another one was published, others may have served.
        return bool(own.tools) or (ours and own.epoch == self._valid_in)

    @property
    def _serves(self) -> bool:
        return self._valid_in == self._connection.epoch

    # Deciding

    async def _watch(self) -> None:
        while not self._stopping:  # before Python 3.12, wait_for may swallow a cancellation
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._news.wait(), _ASK_AFTER)
            if not self._connection.connected:
                self._news.clear()  # the reconnect will set it again
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
                logger.warning(
                    "server %s could not decide whether to serve or to be on standby, and tries again: %s",
                    self._server_id,
                    error,
                )
            except Exception:  # without this task, the replica would neither serve nor take over
                logger.exception(
                    "server %s could not decide whether to serve or to be on standby, and tries again", self._server_id
                )

    async def _ask(self) -> None:
        """Find out whether the rival replica is still there: a broker that was killed publishes no Last Wills."""
        rival = self._rival()
        if self._serves or rival is None:
            return
        for _ in range(2):  # the replica may be about to reconnect
            if not await self._replicas.is_gone(rival):
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._news.wait(), _ASK_AFTER / 2)
                return  # a card has changed, so decide before asking again
        logger.warning(
            "server %s says online, but does not take or does not answer queries: server %s treats it as gone",
            rival.server,
            self._server_id,
        )
        self._replicas.take_for_gone(rival)

    async def _decide(self) -> None:
        self._news.clear()
        epoch = self._connection.epoch
        if not await self._seen_all(epoch):
            return  # the connection was lost, and the reconnect decides again
        self._answer_claims()
        rival = self._rival()
        if rival is None and not self._serves:
            continued = self._continued_in == epoch or self._claim_stands(epoch)
            self._continued_in = epoch if continued else None
            self._show(serving=continued, standby=False, epoch=epoch)
            await self._listen(True)
            await self._presence.announce_server()
            if not await self._seen_all(epoch):
                return
            await self._ask_claimants()
            if self._connection.epoch != epoch:
                self.wake()
                return
            rival = next(iter(self._claims()), None)
            if rival is None:
                await self._claim_names()
                if self._connection.epoch != epoch:
                    self.wake()  # this claim is not valid over the new connection, and others may have claimed since
                    return
                await self._connection.take_alone(self._server_id, keep=continued)
                self._valid_in, self.serving = epoch, self._server_id
                logger.info("replica %s serves %r at %s", self._server_id, self._name, self._connection.url)
                self._show(serving=True, standby=False, epoch=epoch)
                await self._presence.announce()
        if rival is not None:
            await self._stand_by(rival, epoch)

    # Claims whose cards have not arrived

    async def _listen(self, claims: bool) -> None:
        """Subscribe to the query topic of the server's name while this replica claims to serve."""
        listened, self._listens = self._listens, claims
        if listened and not claims:
            await self._connection.unsubscribe(self._claims_topic, self._on_question)
        elif claims and not listened:
            try:
                # With No Local, the PUBACK of an own question says whether there are other claimants.
                await self._connection.subscribe(
                    self._claims_topic, self._on_question, no_local=True, on_refused=self._on_refused
                )
            except (TopicNotAuthorized, SubscriptionRefused) as error:  # another handler's subscription is refused
                self._on_refused(error)

    def _on_refused(self, error: TransportError) -> None:
        logger.info("replicas at other nodes of the broker may not see that %s serves: %s", self._name, error)

    async def _ask_claimants(self) -> None:
        """Ask for other claims, and wait until one is known, or until all claimants that are alive have answered."""
        query = Query(query_id=new_call_id(), call_ids=[], client=self._server_id)
        try:
            if await self._connection.publish(self._claims_topic, encode(query)) == NO_MATCHING_SUBSCRIBERS:
                return
        except TopicNotAuthorized as error:
            logger.info("replica %s cannot ask for replicas at other nodes of the broker: %s", self._server_id, error)
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _ANSWERS_WITHIN
        while not self._claims() and loop.time() < until:
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._news.wait(), until - loop.time())

    def _on_question(self, message: InboundMessage) -> None:
        """Another replica claims, and asks who else does."""
        if message.refusal is None and not message.retain and self._presence.standby is False:
            self._presence.show_again()

    def _answer_claims(self) -> None:
        """Answer each claim of another replica once, because that replica may not have got the card of this one."""
        for card in self._claims() if self._serves else ():
            if self._answered.add((card.server, card.started, card.epoch, card.since)):
                self._presence.show_again()

    async def _stand_by(self, rival: ServerCard, epoch: int) -> None:
        served, self._valid_in = self._valid_in is not None, None
        self._continued_in = None
        if served:
            self._presence.wait_behind()
        await self._connection.leave_alone(self._server_id)
        await self._listen(False)
        if self._show(serving=False, standby=True, epoch=epoch) or served:
            await self._presence.announce_server()
        if self.serving != rival.server:
            self.serving = rival.server
            logger.info("replica %s is on standby: %s serves %r", self._server_id, rival.server, self._name)

    def _show(self, *, serving: bool, standby: bool, epoch: int) -> bool:
        """Set what the replica's cards say. Returns whether the cards must be published."""
        presence = self._presence
        before = presence.serving, presence.standby, presence.decided_in
        presence.serving, presence.standby, presence.decided_in = serving, standby, epoch
        return before != (serving, standby, epoch)

    async def _seen_all(self, epoch: int) -> bool:
        """Wait until all cards have arrived. Returns False when the connection was lost, or the broker is too slow."""
        all_came = await self._barrier()
        if not self._connection.connected or self._connection.epoch != epoch:
            return False
        if not all_came:
            # If this replica claimed now, two replicas could serve.
            logger.warning(
                "replica %s does not know yet which replica serves %r, because the broker is slow; trying again",
                self._server_id,
                self._name,
            )
            self._news.set()
        return all_came
