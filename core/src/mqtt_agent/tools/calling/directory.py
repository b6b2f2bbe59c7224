"""The live list of tools: a local copy of the retained cards below one namespace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.echo import Echo
from mqtt_agent.endpoints.retained import BARRIER, Retained, Source
from mqtt_agent.errors import ConnectionLost
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.hosts import Hosts
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Response, ServerCard, ToolCard, Topics, encode, new_call_id

__all__ = ["Directory"]

logger: logging.Logger = logging.getLogger(__name__)

_TAKEN_OVER_WITHIN = 3.0


class Directory(Catalog):
    """A catalog that follows the cards of a namespace.

    Args:
        connection: Where to listen.
        topics: The namespace.
        inbox: This client's own topic, which serves to find out when all retained cards have come.
        max_cards: How many cards to keep; more are ignored, and told once.
    """

    def __init__(self, connection: Connection, topics: Topics, inbox: str, max_cards: int) -> None:
        super().__init__()
        self._connection = connection
        self._topics = topics
        self._stale: set[str] = set()
        self._news = asyncio.Event()
        self._hosts = Hosts(connection, topics, self._put)
        self._faults = FaultLog(logger)
        source = Source(
            filters=[(topics.all_server_cards, self._on_server_card), (topics.all_tool_cards, self._on_tool_card)],
            forget=self._forget,
            without="tools are looked up one by one instead of listed",
            echo=Echo(connection, inbox, _word_to_itself),
            more=self._hosts_known,
        )
        self._retained = Retained(connection, source, topics.namespace, max_cards, self._faults)

    # Waiting

    def is_settled(self, tool: str) -> bool:
        """Whether a server of the tool has shown itself since the broker last forgot everything."""
        servers = self._serving.get(tool)
        return not servers or not servers <= self._stale

    async def settled(self, tool: str) -> None:
        """Wait until :meth:`is_settled`, at most 15 s: then a server that has not come back is taken for gone."""
        while not self.is_settled(tool):
            await self._news.wait()

    async def all_settled(self, tool: str) -> None:
        """Wait until every server of the tool has shown itself, or is taken for gone."""
        while not self._stale.isdisjoint(self._serving.get(tool, ())):
            await self._news.wait()

    async def back(self, servers: Iterable[str], deadline: float) -> None:
        """Wait until all these servers are online, at most until ``deadline`` in loop time."""
        loop = asyncio.get_running_loop()
        wanted = set(servers)
        while any(s not in self._servers or self._servers[s].status != "online" for s in wanted):
            try:
                await asyncio.wait_for(self._news.wait(), deadline - loop.time())
            except asyncio.TimeoutError:
                return

    async def taken_over(self, tool: str) -> None:
        """Wait a moment until a tool is served again, if a replica of a server that is gone stands by for that."""
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
        """Wait until all retained cards have been seen; False when the broker does not let us see them all."""
        return await self._retained.complete()

    # Following

    async def start(self) -> None:
        """Subscribe; the cards come in the background."""
        await self._retained.start()

    async def stop(self) -> None:
        """Unsubscribe and forget."""
        await self._retained.stop()
        await self._hosts.stop()
        self.clear()
        self._stale.clear()

    def on_reconnected(self, session_present: bool) -> None:
        """The connection is back: look at all cards anew."""
        if not session_present:
            # A broker that forgot us may have forgotten the cards too, and servers need a moment to show theirs again.
            self._stale = {
                server
                for server, card in self._servers.items()
                if card.status == "online" and not self._retained.is_current(self._topics.server_card(server))
            }
        self._retained.on_reconnected()

    async def barrier(self) -> bool:
        """Wait until everything that the broker had for us has come; False when it does not let us know."""
        return await self._retained.barrier()

    async def _hosts_known(self) -> None:
        if self._hosts.pending:
            await self._hosts.known()
            await self.barrier()

    async def look_up(self, tool: str, timeout: float) -> ToolCard | None:
        """Fetch one card by its exact topic, for where wildcards are not allowed.

        Args:
            tool: The tool's name.
            timeout: Seconds to wait for the card.
        """
        topic = self._topics.tool_card(tool)
        arrived = asyncio.Event()

        def on_card(message: InboundMessage) -> None:
            self._on_tool_card(message)
            arrived.set()

        with contextlib.suppress(ConnectionLost):  # then it is subscribed to when the connection is back
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

    # What comes in

    def _on_tool_card(self, message: InboundMessage) -> None:
        name = self._topics.tool_of_card(message.topic)
        card = self._retained.read(message, ToolCard, name)
        if name is None or card is None:
            return
        if card.tool != name:
            self._faults.tell(message.topic, "a card for another name than its topic's", card.tool)
            return
        self.put_tool(card)

    def _on_server_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        card = self._retained.read(message, ServerCard, server)
        if server is None or card is None:
            return
        if card.server != server:
            self._faults.tell(message.topic, "a card for another name than its topic's", card.server)
            return
        self._put(self._hosts.judge(card))

    def _put(self, card: ServerCard) -> None:
        if self.put_server(card):
            self._on_news(card.server)

    def _forget(self, topic: str) -> None:
        tool, server = self._topics.tool_of_card(topic), self._topics.server_of_card(topic)
        if tool is not None:
            self.remove_tool(tool)
        if server is not None:
            self._hosts.forget(server)
            self.remove_server(server)
            self._on_news(server)

    def _on_news(self, server: str) -> None:
        self._stale.discard(server)
        self._news.set()
        self._news = asyncio.Event()


def _word_to_itself() -> bytes:
    return encode(Response(call_id=BARRIER + new_call_id()))
