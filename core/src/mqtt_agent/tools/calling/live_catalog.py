"""Keeps the live list of tools: follows the retained cards of one namespace, and waits for servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.dialect import BoundMarker
from mqtt_agent.endpoints.markers import MARKER_PREFIX, Marker
from mqtt_agent.endpoints.retained import Retained, Source
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.hosting_agents import HostingAgents
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Response, ServerCard, ToolCard, encode, new_call_id

__all__ = ["LiveCatalog"]

logger: logging.Logger = logging.getLogger(__name__)

_TAKEN_OVER_WITHIN = 3.0  # seconds


class LiveCatalog(Catalog):
    """A catalog that follows the cards of a namespace.

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
        self._news = asyncio.Event()
        """Set, and then replaced by a new event, whenever a server card has arrived or is gone."""
        self._hosting_agents = HostingAgents(scope.connection, topics, self._put)
        self._faults = FaultLog(logger)
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
            more=self._hosting_agents_known,
        )
        self._retained = Retained(scope.connection, source, topics.namespace, max_cards, self._faults)

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
                await asyncio.wait_for(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                return

    async def taken_over(self, tool: str) -> None:
        """Wait until a replica on standby has taken over a tool that no server serves; at most 3 s.

        Returns at once when the tool is served, or when no replica is on standby for the tool.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _TAKEN_OVER_WITHIN
        while not self.is_online(tool):
            if not self.has_standby(tool):
                return
            try:
                await asyncio.wait_for(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                return

    async def complete(self) -> bool:
        """Wait until all retained cards have arrived; False when the broker does not allow the client to see all."""
        return await self._retained.complete()

    async def barrier(self) -> bool:
        """Wait until every message that the broker had queued for the client has arrived.

        Returns:
            Whether they have arrived; False when the client cannot find out.
        """
        return await self._retained.barrier()

    # Following

    async def start(self) -> None:
        """Subscribe to the cards, which then arrive in the background."""
        await self._retained.start()

    async def stop(self) -> None:
        """Unsubscribe, and forget all cards."""
        await self._retained.stop()
        await self._hosting_agents.stop()
        self.clear()
        self._stale.clear()

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

    async def _hosting_agents_known(self) -> None:
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

    def _on_server_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        card = self._retained.read(message, ServerCard, server)
        if server is None or card is None:
            return
        if card.server != server:
            self._faults.refuse(message, "a card for another name than its topic's", card.server)
            return
        self._put(self._hosting_agents.with_true_status(card))

    def _put(self, card: ServerCard) -> None:
        if self.put_server(card):
            self._on_news(card.server)

    def _forget(self, topic: str) -> None:
        tool, server = self._topics.tool_of_card(topic), self._topics.server_of_card(topic)
        if tool is not None:
            self.remove_tool(tool)
        if server is not None:
            self._hosting_agents.forget(server)
            self.remove_server(server)
            self._on_news(server)

    def _on_news(self, server: str) -> None:
        self._stale.discard(server)
        self._news.set()
        self._news = asyncio.Event()


def _make_marker() -> bytes:
    return encode(Response(call_id=MARKER_PREFIX + new_call_id()))
