"""The other agents of a namespace: a copy of the cards that are needed, and which of these agents are online."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.arrivals import first_come
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.feed import Feed
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.endpoints.dialect import BoundMarker
from mqtt_agent.endpoints.listing import Listing, end_of, succeeded
from mqtt_agent.endpoints.markers import MARKER_PREFIX, Marker
from mqtt_agent.endpoints.outlived import Outlived, identify_status
from mqtt_agent.endpoints.retained import Retained, Source
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import AgentCard, AgentStatus, Control, encode, new_task_id

__all__ = ["PeerChange", "Peers"]

logger: logging.Logger = logger_of(__name__)

_ANSWERED_WITHIN = 2.0
"""Seconds in which a live member of a pool answers the Last Will of a dead member."""


@dataclass(frozen=True)
class PeerChange:
    """A change of one peer.

    Attributes:
        kind: ``online``: the peer came online. ``offline``: the peer went offline. ``changed``: the peer has another
            card, or was restarted.
        name: The peer's agent id.
        card: The peer's card after the change; None when the peer has published no card, or has removed it.
    """

    kind: Literal["online", "offline", "changed"]
    name: str
    card: AgentCard | None


class Peers:
    """Follows the cards and statuses of this agent's peers, or of all agents in the namespace.

    An agent follows each peer that it gives tasks to, by the exact topics of the peer's card and status. It follows all
    agents only while this is needed: for a minute after each listing, and while somebody watches all agents. So
    when an agent starts, only the agents that work with it get messages.

    Args:
        scope: The agent's shared values.
        max_peers: The largest number of agents whose card and status are kept. Further agents are ignored, with one
            warning.

    Attributes:
        on_back: Functions to call with the name of a followed peer that came online, was restarted, or has reconnected.
    """

    def __init__(self, scope: Scope, max_peers: int) -> None:
        self.on_back: list[Callable[[str], None]] = []
        self._scope = scope
        self._topics = scope.topics
        self._cards: dict[str, AgentCard] = {}
        self._statuses: dict[str, AgentStatus] = {}
        self._met: dict[str, None] = {}
        """The agents that have been online, in the order in which they came."""
        self._shown: dict[str, tuple[AgentCard, AgentCard]] = {}
        """The cards that do not say the agent's present status, each with a copy that does."""
        self._watchers: weakref.WeakKeyDictionary[Feed[PeerChange], str | None] = weakref.WeakKeyDictionary()
        """Each watcher, with the id of the agent whose changes it wants; None for all agents."""
        self._faults = FaultLog(logger)
        self._outlived = Outlived(identify_status)
        self._doubted: dict[str, asyncio.TimerHandle] = {}
        """By name of a pool: when the pool counts as offline, unless a live member says online before."""
        me, bound, connection, pool = scope.agent_id, self._topics.bound, scope.connection, scope.pool
        marker = BoundMarker(
            # The members of a pool share the messages on their topics, but a marker must return to its sender.
            Marker(connection, bound.control(me, me), self._message_to_itself, None if pool else bound.control(me)),
            Marker(connection, pool.control(pool.id) if pool else self._topics.control(me), self._message_to_itself),
            scope.dialect,
        )
        source = Source(
            filters=[(self._topics.all_agent_statuses, self._on_status), (self._topics.all_agent_cards, self._on_card)],
            forget=self._forget,
            without="peers cannot be listed",
            marker=marker,
            question=(self._topics.agent_query(scope.agent_id), scope.agent_id),
        )
        self._retained = Retained(scope.connection, source, self._topics.namespace, max_peers, self._faults)
        self._wanted: dict[str, asyncio.Task[bool]] = {}
        """The agents that are followed. Each task ends when card and status have arrived."""
        self._looked_up: set[str] = set()
        """The agents of these that are followed only if they are found."""
        self._listing = Listing(self._retained, self._is_watched, self._is_wanted)
        self._tasks = BackgroundTasks()

    # Looking up

    def card(self, name: str) -> AgentCard | None:
        """The card of one agent, with the agent's present status; None when the agent has published no card.

        Until the card or the status changes, it is the same object. So many listings make no objects.
        """
        card = self._cards.get(name)
        status = "online" if self.is_online(name) else "offline"
        if card is None or card.status == status:
            return card
        shown = self._shown.get(name)
        if shown is None or shown[0] is not card:
            shown = self._shown[name] = (card, card.model_copy(update={"status": status}))
        return shown[1]

    def names(self) -> list[str]:
        """The names of all agents that have published a card, sorted."""
        return sorted(self._cards)

    async def cards(self, is_wanted: Callable[[AgentCard], bool] = lambda _: True) -> list[AgentCard]:
        """All wanted cards, sorted by name, each with the agent's present status.

        A long list is made in steps, between which the event loop does other work.

        Args:
            is_wanted: Whether a card is wanted.
        """
        found: list[AgentCard] = []
        async for name in in_steps(self.names()):
            card = self.card(name)
            if card is not None and is_wanted(card):
                found.append(card)
        return found

    def lost(self, but: str) -> dict[str, str]:
        """The agents that are offline although nobody has stopped them, each with the reason.

        Those that this agent has seen online come first, as they came: somebody who writes the cards of many agents
        that never were cannot hide an agent that was lost.

        Args:
            but: The id of an agent that does not count.
        """
        offline = (name for name, status in self._statuses.items() if status.status != "online" and name != but)
        # An agent that is stopped sets its card offline too. An agent that only gives tasks is nobody's peer.
        cards = (self._cards[name] for name in offline if name in self._cards)
        names = {c.name for c in cards if c.status == "online" and not (c.meta or {}).get("requester")}
        return dict.fromkeys(first_come(self._met, names), "has lost its connection, or has died")

    def is_known(self, name: str) -> bool:
        """Whether the agent has published a card or a status."""
        return name in self._cards or name in self._statuses

    def is_online(self, name: str) -> bool:
        """Whether an agent is online, according to its status. The card decides when the agent has no status."""
        status = self._statuses.get(name) or self._cards.get(name)
        return status is not None and status.status == "online"

    async def is_away(self, name: str) -> bool:
        """Whether an agent is known, and offline. The agent is followed from now on."""
        await self.follow(name)
        return self.is_known(name) and not self.is_online(name)

    def says(self, name: str, feature: str) -> bool | None:
        """Whether the card of an agent lists a feature; None when the agent has published no card."""
        card = self._cards.get(name)
        return None if card is None else feature in (card.features or ())

    def has_features(self, name: str) -> bool:
        """Whether the card of an agent lists any features. A card of the published specification does not."""
        card = self._cards.get(name)
        return card is not None and bool(card.features)

    def want(self, name: str) -> asyncio.Task[bool]:
        """Follow one agent from now on; see :meth:`follow`."""
        self._looked_up.discard(name)
        following = self._wanted.get(name)
        if following is None or (following.done() and not succeeded(following)):
            following = self._wanted[name] = self._tasks.start(self._retained.follow(self._filters_of(name)))
        return following

    async def look_up(self, name: str) -> None:
        """Find one agent, and follow it from now on if it is known.

        Strangers may choose the names that are looked up, so a name that nobody has is not kept.
        """
        fresh = name not in self._wanted
        following = self.want(name)
        if fresh:
            self._looked_up.add(name)
        if await end_of(following) and name in self._looked_up and not self.is_known(name):
            self._looked_up.discard(name)
            del self._wanted[name]
            self._retained.leave_soon(self._filters_of(name))

    async def follow(self, name: str) -> bool:
        """Follow one agent from now on, and wait until its card and status have arrived.

        Returns:
            Whether they have arrived. Also True when the broker has neither. False when this cannot be known now.
        """
        return await end_of(self.want(name))

    async def complete(self) -> bool:
        """Follow all agents for a while, and wait until all cards and statuses have arrived.

        Returns:
            True when all have arrived. False when the broker does not let this agent see all of them.
        """
        return await self._listing.complete()

    async def look_again(self) -> None:
        """Wait for the cards and statuses that the broker has queued, such as those of a newly started agent."""
        if self._scope.connection.connected:
            await self._retained.barrier()

    def watch(self, name: str | None = None) -> Feed[PeerChange]:
        """Iterate over the changes from now on, until the iterator is closed or no longer referenced.

        Args:
            name: The id of the agent whose changes are wanted; None for all agents.
        """
        watcher = Feed[PeerChange]()
        self._watchers[watcher] = name
        self._tasks.start(self.complete() if name is None else self.follow(name))
        return watcher

    # Following

    async def start(self) -> None:
        """Prepare to follow peers. A first marker finds out which topics this agent may read."""
        await self._retained.prepare()
        self._tasks.start(self._retained.barrier())

    async def stop(self) -> None:
        """Unsubscribe, and forget all peers."""
        self._listing.stop()
        self._tasks.cancel()
        await self._retained.stop()
        for watcher in tuple(self._watchers):
            watcher.close()
        self._wanted.clear()
        self._looked_up.clear()
        for name in tuple(self._doubted):
            self._trust(name)
        self._cards.clear()
        self._shown.clear()
        self._statuses.clear()
        self._met.clear()

    def _is_watched(self) -> bool:
        return any(name is None and not watcher.closed for watcher, name in self._watchers.items())

    def _is_wanted(self, topic: str) -> bool:
        return (self._topics.agent_of_card(topic) or self._topics.agent_of_status(topic)) in self._wanted

    def _filters_of(self, name: str) -> list[tuple[str, Handler]]:
        return [(self._topics.agent_status(name), self._on_status), (self._topics.agent_card(name), self._on_card)]

    def on_reconnected(self) -> None:
        """Compare the copy with the broker's retained messages, because the connection was lost."""
        self._retained.on_reconnected()

    def _message_to_itself(self) -> bytes:
        return encode(Control(task_id=MARKER_PREFIX + new_task_id(), action="get", sender=self._scope.agent_id))

    # Messages

    def _on_status(self, message: InboundMessage) -> None:
        name = self._topics.agent_of_status(message.topic)
        status = self._retained.read(message, AgentStatus, name)
        if name is None or status is None or status.probe:
            return
        before = self._statuses.get(name)
        if before is not None and status.status == "offline" and status.speaks_before(before):
            return
        if self._outlived.is_over(status, before, retained=message.retain):
            status = status.model_copy(update={"status": "offline"})
        self._trust(name)
        if status.pool and status.status == "offline" and self.is_online(name):
            later = asyncio.get_running_loop().call_later(_ANSWERED_WITHIN, self._believe, name, status)
            self._doubted[name] = later
            return
        self._take_status(name, status)

    def _trust(self, name: str) -> None:
        """Do not wait any more for an answer of a pool to a status that says offline."""
        doubted = self._doubted.pop(name, None)
        if doubted is not None:
            doubted.cancel()

    def _believe(self, name: str, status: AgentStatus) -> None:
        del self._doubted[name]
        self._take_status(name, status)

    def _take_status(self, name: str, status: AgentStatus) -> None:
        before = self._statuses.get(name)
        was_online = self.is_online(name)
        self._statuses[name] = status
        if status.status == "online":
            self._met.setdefault(name)
        restarted = before is not None and status.started != before.started
        # The peer reconnected before its Last Will was published. The peer's session may still have lost messages.
        back = before is not None and status.epoch is not None and status.epoch != before.epoch
        self._compare(name, was_online, changed=restarted, back=restarted or back)

    def _on_card(self, message: InboundMessage) -> None:
        name = self._topics.agent_of_card(message.topic)
        card = self._retained.read(message, AgentCard, name)
        if name is None or card is None:
            return
        if card.name != name:
            self._faults.refuse(message, "a card for another name than its topic's", card.name)
            return
        before, was_online = self._cards.get(name), self.is_online(name)
        self._cards[name] = card
        self._compare(name, was_online, changed=before is None or _essence(before) != _essence(card))

    def _compare(self, name: str, was_online: bool, *, changed: bool, back: bool = False) -> None:
        online = self.is_online(name)
        if online != was_online:
            self._tell(name, "online" if online else "offline")
        elif changed:
            self._tell(name, "changed")
        if online and (not was_online or back):
            for listener in self.on_back:
                listener(name)

    def _forget(self, topic: str) -> None:
        name = self._topics.agent_of_card(topic) or self._topics.agent_of_status(topic)
        if name is None:
            return
        was_online = self.is_online(name)
        if self._topics.agent_of_card(topic) is not None:
            known = self._cards.pop(name, None)
            self._shown.pop(name, None)
        else:
            known = self._statuses.pop(name, None)
            self._met.pop(name, None)
        self._compare(name, was_online, changed=known is not None)

    def _tell(self, name: str, kind: Literal["online", "offline", "changed"]) -> None:
        size = self._retained.size_of(self._topics.agent_card(name))
        for watcher, wanted in tuple(self._watchers.items()):
            if wanted == name or (wanted is None and name != self._scope.agent_id):
                watcher.put(PeerChange(kind, name, self.card(name)), size)


def _essence(card: AgentCard) -> AgentCard:
    """The card without the fields that change with the peer's status."""
    return card.model_copy(update={"last_seen": "", "status": "online", "started": None})
