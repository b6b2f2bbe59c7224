"""Keeps the cards of tools and servers up to date: follows the retained cards, and waits for servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import weakref
from collections.abc import Awaitable, Callable, Iterable

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.dialect import BoundMarker
from mqtt_agent.endpoints.listing import Listing, succeeded
from mqtt_agent.endpoints.markers import MARKER_PREFIX, Marker
from mqtt_agent.endpoints.outlived import Outlived, identify_card
from mqtt_agent.endpoints.retained import PATIENCE, Retained, Source
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.calling.changes import ToolChanges
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.hosting_agents import HostingAgents
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Response, ServerCard, ToolCard, encode, is_identifier, new_call_id
from mqtt_agent.wire.cards import LISTED, MAX_LISTED, OFFLINE_CARD_EXPIRY

__all__ = ["RETURN_WITHIN", "LiveCatalog"]

logger: logging.Logger = logger_of(__name__)

_TAKEN_OVER_WITHIN = PATIENCE
"""Seconds to wait for a takeover. A replica first asks for other claims for 2 s, and its own connection may break."""
RETURN_WITHIN: float = 5.0
"""Seconds that a listing or a request waits for a server that was lost, and that may be about to come back."""
_SWEPT_AFTER = 1.0
"""Seconds after a tool's card until the client looks which servers are gone. It looks once for all cards till then."""


class LiveCatalog(Catalog):
    """A catalog that follows the cards of the wanted tools, or of a whole namespace.

    A client follows each tool that it calls by the exact topic of the tool's card, and the servers of the tool by the
    exact topics of their cards: the tool's card lists them. The client follows all cards only while this is needed: for
    a minute after each listing, while somebody watches all tools, and for tools whose cards do not list their servers.
    So when a server starts, only the clients that call its tools get messages.

    Args:
        scope: What all parts of the client share. The client sends itself messages over its inbox, to find out when
            all retained cards have arrived.
        max_cards: How many cards to keep. Further cards are ignored, with one warning.
    """

    def __init__(self, scope: Scope, max_cards: int) -> None:
        super().__init__(proves=scope.dialect.required)
        self._connection = scope.connection
        self._topics = topics = scope.topics
        self._stale: set[str] = set()
        """Servers whose cards have not arrived again since the broker lost the client's session."""
        self._offline_since: dict[str, float] = {}
        """Loop time at which the card of an offline server was published, where the broker says how old the card is."""
        self._lost_since: dict[str, float] = {}
        """Loop time at which the client saw that a server does not serve any more what it has."""
        self._news = asyncio.Event()
        """Set, and then replaced by a new event, whenever a server card has arrived or is gone."""
        self._hosting_agents = HostingAgents(scope.connection, topics, self._put)
        self._outlived = Outlived(identify_card)
        self._faults = FaultLog(logger)
        self._wanted: dict[str, asyncio.Task[bool]] = {}
        """The tools that are followed. Each task ends when the cards of the tool and of its servers have arrived."""
        self._found: set[str] = set()
        """The tools of these whose servers are known, or for which no server was found."""
        self._servers_wanted: dict[str, asyncio.Task[bool]] = {}
        """The servers that are followed by the exact topics of their cards."""
        self._held: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
        """The servers that are followed whatever the cards of the tools list, each for an object that exists."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks()
        own = topics.bound.responses(scope.agent_id, scope.agent_id)
        source = Source(
            filters=[(topics.all_server_cards, self._on_server_card), (topics.all_tool_cards, self._on_tool_card)],
            forget=self._forget,
            without="tools are looked up one by one instead of listed",
            marker=BoundMarker(
                Marker(scope.connection, own, _make_marker, scope.bound_inbox),
                Marker(scope.connection, scope.inbox, _make_marker),
                scope.dialect,
            ),
            question=(topics.client_query(scope.agent_id), scope.agent_id),
            more=self._wait_for_servers,
        )
        self._retained = Retained(scope.connection, source, topics.namespace, max_cards, self._faults)
        self._listing = Listing(self._retained, self._is_watched, self._is_kept)

    # Waiting

    def is_settled(self, tool: str) -> bool:
        """Whether the card of a server of the tool has arrived since the broker last lost the client's session.

        Also true when no server offers the tool.
        """
        servers = self._serving.get(tool)
        return not servers or not servers <= self._stale

    async def settled(self, tool: str) -> None:
        """Wait until :meth:`is_settled`, at most 15 s. Then, a server whose card has not arrived counts as gone."""
        while not self.is_settled(tool):
            await self._news.wait()

    async def all_settled(self, tool: str) -> None:
        """Wait until the cards of all servers of the tool have arrived, at most 15 s; see :meth:`settled`."""
        while not self._stale.isdisjoint(self._serving.get(tool, ())):
            await self._news.wait()

    async def back(self, servers: Iterable[str], deadline: float) -> None:
        """Wait until all these servers are online.

        Args:
            servers: The ids of the servers.
            deadline: Loop time at which to stop waiting.
        """
        loop = asyncio.get_running_loop()
        wanted = set(servers)
        while any(s not in self._servers or self._servers[s].status != "online" for s in wanted):
            try:
                await within(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                return

    async def taken_over(self, tool: str, deadline: float | None = None) -> None:
        """Wait until a replica on standby has taken over a tool that no server serves; at most 15 s.

        Returns at once when the tool is served, or when no replica is on standby for the tool.

        Args:
            tool: The tool's name.
            deadline: Loop time at which to stop waiting, if that is earlier.
        """
        loop = asyncio.get_running_loop()
        deadline = min(loop.time() + _TAKEN_OVER_WITHIN, math.inf if deadline is None else deadline)
        while not self.is_online(tool):
            if not self.has_standby(tool):
                return
            try:
                await within(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                return

    async def returned(self, missing: Callable[[], Iterable[ServerCard]]) -> None:
        """Wait until no server of these is missing any more that may be about to come back: for 5 s after its loss.

        The wait is never longer than 5 s. Otherwise servers that are lost and come back in turn would never let it end.

        Args:
            missing: Returns the cards of the servers that are missing now.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + RETURN_WITHIN
        while True:
            now = loop.time()
            left = min(end, max(map(self.returns_until, missing()), default=now)) - now
            if left <= 0:
                return
            try:
                await within(self._news.wait(), left)
            except asyncio.TimeoutError:
                return

    def returns_until(self, card: ServerCard) -> float:
        """Loop time until which a server that was lost may be about to come back. It is past if nobody saw the loss."""
        return self._lost_since.get(card.server, -RETURN_WITHIN) + RETURN_WITHIN

    def server_news(self) -> Awaitable[object]:
        """What can be awaited until a server card arrives or is gone after this call."""
        return self._news.wait()

    async def complete(self, *, once: bool = False) -> bool:
        """Follow all cards for a while, and wait until all of them have arrived.

        Args:
            once: Whether to follow all cards no longer than that.

        Returns:
            False when the broker does not let the client see all of them.
        """
        return await self._listing.complete(once=once)

    async def barrier(self) -> bool:
        """Wait until every message that the broker had queued for the client has arrived.

        Returns:
            Whether they have arrived; False when the client cannot find out.
        """
        return await self._retained.barrier()

    # Following

    async def start(self) -> None:
        """Prepare to follow cards. A first marker finds out which topics this client may read."""
        await self._retained.prepare()
        self._tasks.start(self._retained.barrier())

    async def stop(self) -> None:
        """Unsubscribe, and forget all cards."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._listing.stop()
        self._tasks.cancel()
        await self._retained.stop()
        await self._hosting_agents.stop()
        self.clear()
        self._stale.clear()
        self._offline_since.clear()
        self._lost_since.clear()
        self._wanted.clear()
        self._found.clear()
        self._servers_wanted.clear()

    def watch(self) -> ToolChanges:
        """Iterate over the changes of all tools from now on, until the iterator is closed or no longer referenced."""
        changes = super().watch()
        self._tasks.start(self.complete())
        return changes

    def is_found(self, tool: str) -> bool:
        """Whether :meth:`find` has found out which servers the tool has. From then on, their cards are followed."""
        return tool in self._found

    async def find(self, tool: str, timeout: float | None = None) -> None:
        """Follow a tool from now on, and wait until a server of the tool is known, or until there is none.

        Args:
            tool: The tool's name.
            timeout: Seconds to wait at most; None means no limit.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        following = self._want(tool)
        while tool not in self._serving and not following.done():
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return
            news = asyncio.ensure_future(self._news.wait())
            try:
                await asyncio.wait([following, news], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
        if self._wanted.get(tool) is following:
            self._found.add(tool)

    async def get(self, tool: str, timeout: float) -> ToolCard | None:
        """The card of a tool, which is followed from now on if there is such a tool; see :meth:`look_up`."""
        await self.find(tool, timeout)
        card = self.tool(tool) or await self.look_up(tool, timeout)
        self.forget_unknown(tool)
        return card

    def forget_unknown(self, tool: str) -> None:
        """Stop following a tool if it has no card and no server: strangers may choose the names of tools."""
        if tool in self._wanted and tool not in self._tools and tool not in self._mentioned:
            self._wanted.pop(tool).cancel()
            self._found.discard(tool)
            self._retained.leave_soon(self._filters_of_tool(tool))

    def follow_server(self, server: str, holder: object | None = None) -> None:
        """Follow the card of a server from now on.

        Args:
            server: The id of the server.
            holder: Follow the card at least as long as this object exists, also while the server is offline.
        """
        if is_identifier(server):
            if holder is not None:
                self._held[holder] = server
            following = self._servers_wanted.get(server)
            if following is None or (following.done() and not succeeded(following)):
                self._servers_wanted[server] = self._tasks.start(self._retained.follow(self._filters_of_server(server)))

    def _want(self, tool: str) -> asyncio.Task[bool]:
        following = self._wanted.get(tool)
        if following is None or (following.done() and not succeeded(following)):
            following = self._wanted[tool] = self._tasks.start(self._begin(tool))
        return following

    async def _begin(self, tool: str) -> bool:
        for card in list(self._servers.values()):
            if tool in _tools_of(card) and not _lists_itself_again(card):
                self.follow_server(card.server)
        seen = await self._retained.follow(self._filters_of_tool(tool))
        await self._wait_for_servers()
        return await self.complete() and seen if self._needs_all(tool) else seen

    def _needs_all(self, tool: str) -> bool:
        """Whether a tool may have servers that only a subscription to all server cards shows."""
        if self._connection.keeps_retained_apart or not self._connection.shared_subscriptions:
            return True
        card = self._tools.get(tool)
        return card is not None and (card.replicas is None or len(card.replicas) >= MAX_LISTED)

    def _filters_of_tool(self, tool: str) -> list[tuple[str, Handler]]:
        return [(self._topics.tool_card(tool), self._on_tool_card)]

    def _filters_of_server(self, server: str) -> list[tuple[str, Handler]]:
        return [(self._topics.server_card(server), self._on_server_card)]

    def _is_watched(self) -> bool:
        return not all(watcher.closed for watcher in self._watchers) or any(map(self._needs_all, self._wanted))

    def _is_kept(self, topic: str) -> bool:
        return self._topics.tool_of_card(topic) in self._wanted or (
            self._topics.server_of_card(topic) in self._servers_wanted
        )

    def _follow_servers_of(self, card: ToolCard) -> None:
        """Follow the servers that a tool's card lists, and soon no longer those that are gone for good."""
        for server in _listed(card):
            self.follow_server(server)
        if self._needs_all(card.tool) and not self._listing.active:
            self._tasks.start(self.complete())
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_SWEPT_AFTER, self._leave_servers)

    def _leave_servers(self) -> None:
        """Follow the servers no longer that no card of a wanted tool lists, and that are offline."""
        self._sweeping = None
        listed = {server for tool in self._wanted if tool in self._tools for server in _listed(self._tools[tool])}
        listed.update(self._held.values())
        for server, following in list(self._servers_wanted.items()):
            if server not in listed and following.done() and not self.is_server_online(server):
                del self._servers_wanted[server]
                self._retained.leave_soon(self._filters_of_server(server), drop=True)

    def on_reconnected(self, session_present: bool) -> None:
        """The connection is back: the broker sends all retained cards again.

        Args:
            session_present: Whether the broker kept the client's session.
        """
        if not session_present:
            # A broker that lost the session may have lost the retained cards too, and servers need some time to
            # publish their cards again.
            self._stale = {
                server
                for server, card in self._servers.items()
                if card.status == "online" and not self._retained.is_current(self._topics.server_card(server))
            }
        self._retained.on_reconnected()

    async def look_up(self, tool: str, timeout: float) -> ToolCard | None:
        """Fetch the card of one tool by its exact topic, for brokers that do not allow the client to see all cards.

        Args:
            tool: The tool's name.
            timeout: Seconds to wait for the card.
        """
        topic = self._topics.tool_card(tool)
        arrived = asyncio.Event()

        def on_card(message: InboundMessage) -> None:
            self._on_tool_card(message)
            arrived.set()

        with contextlib.suppress(ConnectionLost):  # the subscription is made when the connection is back
            await self._connection.subscribe(topic, on_card, qos=0, snapshot=True)
        try:
            waiting = [asyncio.ensure_future(arrived.wait()), asyncio.ensure_future(self.barrier())]
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not arrived.is_set() and waiting[1].done() and not waiting[1].result():
                await asyncio.wait(waiting[:1], timeout=timeout)
            for task in waiting:
                task.cancel()
        finally:
            await self._connection.unsubscribe(topic, on_card)
        return self._tools.get(tool)

    async def _wait_for_servers(self) -> None:
        """Wait for the cards of servers, and the statuses of agents, that are followed because of other cards."""
        while pending := [each for each in self._servers_wanted.values() if not each.done()]:
            await asyncio.wait(pending)
        if self._hosting_agents.pending:
            await self._hosting_agents.known()
            await self.barrier()

    # Cards that arrive

    def _on_tool_card(self, message: InboundMessage) -> None:
        name = self._topics.tool_of_card(message.topic)
        card = self._retained.read(message, ToolCard, name)
        if name is None or card is None:
            return
        if card.tool != name:
            self._faults.refuse(message, "a card for another name than its topic's", card.tool)
            return
        self.put_tool(card)
        if name in self._wanted:
            self._follow_servers_of(card)

    def _on_server_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        card = self._retained.read(message, ServerCard, server)
        if server is None or card is None:
            return
        if card.server != server:
            self._faults.refuse(message, "a card for another name than its topic's", card.server)
            return
        self._note_age(card, message.message_expiry)
        before = self.server(server)
        if self._outlived.is_over(card, before, retained=message.retain):
            lost = None if before is None else before.unavailable
            card = card.model_copy(update={"status": "offline", "unavailable": lost})
        offers_wanted = not self._wanted.keys().isdisjoint(_tools_of(card))
        if offers_wanted and server not in self._servers_wanted and not _lists_itself_again(card):
            self.follow_server(server)
        self._put(self._hosting_agents.with_true_status(card))

    def _size_of(self, tool: str) -> int:
        return self._retained.size_of(self._topics.tool_card(tool))

    def _note_age(self, card: ServerCard, left: float | None) -> None:
        """Note since when a server is offline: a broker takes the time that a message has waited off its expiry."""
        if card.status == "online" or left is None:
            self._offline_since.pop(card.server, None)
        else:
            self._offline_since[card.server] = asyncio.get_running_loop().time() - max(0, OFFLINE_CARD_EXPIRY - left)

    def offline_since(self, server: str) -> float | None:
        """Loop time at which a server went offline; None when this is not known."""
        return self._offline_since.get(server)

    def _put(self, card: ServerCard) -> None:
        before = self._servers.get(card.server)
        if self.put_server(card):
            if card.unavailable is None:
                self._lost_since.pop(card.server, None)
            elif before is not None and before.unavailable is None:
                self._lost_since[card.server] = asyncio.get_running_loop().time()
            self._on_news(card.server)

    def _forget(self, topic: str) -> None:
        tool, server = self._topics.tool_of_card(topic), self._topics.server_of_card(topic)
        if tool is not None:
            self.remove_tool(tool)
        if server is not None:
            self._hosting_agents.forget(server)
            self._offline_since.pop(server, None)
            self._lost_since.pop(server, None)
            self.remove_server(server)
            self._on_news(server)

    def _on_news(self, server: str) -> None:
        self._stale.discard(server)
        self._news.set()
        self._news = asyncio.Event()


def _listed(card: ToolCard) -> list[str]:
    """The ids of the servers that the card of a tool names. A server of v0.1 has its name as its id."""
    replicas = [each for each in card.replicas or () if each.startswith(f"{card.server}:")]
    return [card.server, *replicas[:MAX_LISTED]]


def _tools_of(card: ServerCard) -> list[str]:
    """The tools that a server offers, or for whose names it waits."""
    return [*card.tools, *(card.claims or ()), *(card.refused or ())]


def _lists_itself_again(card: ServerCard) -> bool:
    """Whether a server is gone, and will be in the cards of its tools if it comes back. Many replicas may be gone."""
    return card.status != "online" and LISTED in (card.features or ())


def _make_marker() -> bytes:
    return encode(Response(call_id=MARKER_PREFIX + new_call_id()))
