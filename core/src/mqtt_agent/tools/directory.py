"""The live list of tools: a local copy of the retained cards below one namespace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

from mqtt_agent.errors import ConnectionLost, NotAuthorized, TransportError, WireError
from mqtt_agent.faultlog import FaultLog
from mqtt_agent.tools.catalog import Catalog
from mqtt_agent.tools.hosts import Hosts
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Message, Response, ServerCard, ToolCard, Topics, decode, encode, new_call_id

__all__ = ["BARRIER", "PATIENCE", "Directory"]

logger = logging.getLogger(__name__)

BARRIER = "barrier-"
PATIENCE = 15.0
"""Seconds that servers get to show themselves again after a broker has forgotten everything."""
_MAX_CARD = 256 * 1024
_SNAPSHOT_TIMEOUT = 5.0
_TAKEN_OVER_WITHIN = 3.0

C = TypeVar("C", bound=Message)


class Directory(Catalog):
    """A catalog that follows the cards of a namespace.

    Args:
        connection: Where to listen.
        topics: The namespace.
        barrier_topic: A topic that this client may publish and subscribe to: its own inbox. A message to oneself,
            sent after subscribing, comes back after the retained cards, and so tells that all have been seen.
        max_cards: How many cards to keep; more are ignored, and told once.
    """

    def __init__(self, connection: Connection, topics: Topics, barrier_topic: str, max_cards: int) -> None:
        super().__init__()
        self._connection = connection
        self._topics = topics
        self._barrier_topic = barrier_topic
        self._max_cards = max_cards
        self._seen: dict[str, int] = {}
        self._stale: set[str] = set()
        self._news = asyncio.Event()
        self._barriers: dict[str, asyncio.Event] = {}
        self._hosts = Hosts(connection, topics, self._put)
        self._faults = FaultLog(logger)
        self._complete: asyncio.Task[bool] | None = None
        self._forgetting: asyncio.TimerHandle | None = None

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
        if self._complete is None:
            return False
        try:
            return await asyncio.shield(self._complete)
        except TransportError:
            return False

    # Following

    async def start(self) -> None:
        """Subscribe; the cards come in the background."""
        # QoS 0 on purpose: brokers cap what they queue for QoS 1 (Mosquitto: 1,000), and would leave cards out.
        allowed = True
        for topic_filter, handler in self._filters():
            try:
                await self._connection.subscribe(topic_filter, handler, qos=0, snapshot=True)
            except NotAuthorized as error:
                allowed = False
                logger.warning("%s; tools are looked up one by one instead of listed", error)
        await self._connection.subscribe(self._barrier_topic, self._on_inbox)
        self._complete = asyncio.create_task(self._snapshot(allowed, patience=0))

    async def stop(self) -> None:
        """Unsubscribe and forget."""
        if self._complete is not None:
            self._complete.cancel()
            self._complete = None
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        for topic_filter, handler in [*self._filters(), (self._barrier_topic, self._on_inbox)]:
            await self._connection.unsubscribe(topic_filter, handler)
        await self._hosts.stop()
        self.clear()
        self._stale.clear()
        self._seen.clear()

    def _filters(self) -> list[tuple[str, Callable[[InboundMessage], None]]]:
        return [
            (self._topics.all_server_cards, self._on_server_card),
            (self._topics.all_tool_cards, self._on_tool_card),
        ]

    async def _snapshot(self, allowed: bool, patience: float) -> bool:
        epoch = self._connection.epoch
        if not await self.barrier() or not allowed:
            return False
        if self._hosts.pending:
            await self._hosts.known()
            await self.barrier()
        # What is not among the retained cards any more was removed while we were away.
        if patience:
            self._forgetting = asyncio.get_running_loop().call_later(patience, self._forget_unseen, epoch)
        else:
            self._forget_unseen(epoch)
        return True

    def _forget_unseen(self, epoch: int) -> None:
        for topic in [topic for topic, seen in self._seen.items() if seen < epoch]:
            self._forget(topic)

    def on_reconnected(self, session_present: bool) -> None:
        """The connection is back: look at all cards anew."""
        if not session_present:
            # A broker that forgot us may have forgotten the cards too, and servers need a moment to show theirs again.
            epoch = self._connection.epoch
            self._stale = {
                server
                for server, card in self._servers.items()
                if card.status == "online" and self._seen.get(self._topics.server_card(server), 0) < epoch
            }
        self._complete = asyncio.create_task(self._snapshot(True, PATIENCE))

    async def barrier(self) -> bool:
        """Wait until everything that the broker had for us has come; False when it does not let us know."""
        call_id = BARRIER + new_call_id()
        came = self._barriers[call_id] = asyncio.Event()
        try:
            await self._connection.publish(self._barrier_topic, encode(Response(call_id=call_id)))
            await asyncio.wait_for(came.wait(), _SNAPSHOT_TIMEOUT)
        except (TransportError, asyncio.TimeoutError) as error:
            logger.info("cannot tell when all cards have been seen: %s", error or "no echo of our own message")
            return False
        finally:
            del self._barriers[call_id]
        return True

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

    def _on_inbox(self, message: InboundMessage) -> None:
        if BARRIER.encode() not in message.payload[:200]:
            return
        try:
            barrier = self._barriers.get(decode(Response, message.payload).call_id)
        except WireError:
            return
        if barrier is not None:
            barrier.set()

    def _on_tool_card(self, message: InboundMessage) -> None:
        name = self._topics.tool_of_card(message.topic)
        card = self._read(message, ToolCard, name)
        if name is None or card is False:
            return
        if card is None:
            self._forget(message.topic)
            return
        assert isinstance(card, ToolCard)
        if card.tool != name:
            self._faults.tell(message.topic, "a card for another name than its topic's", card.tool)
            return
        self.put_tool(card)

    def _on_server_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        card = self._read(message, ServerCard, server)
        if server is None or card is False:
            return
        if card is None:
            self._forget(message.topic)
            return
        assert isinstance(card, ServerCard)
        if card.server != server:
            self._faults.tell(message.topic, "a card for another name than its topic's", card.server)
            return
        self._put(self._hosts.judge(card))

    def _put(self, card: ServerCard) -> None:
        if self.put_server(card):
            self._on_news(card.server)

    def _read(self, message: InboundMessage, model: type[C], name: str | None) -> C | Literal[False] | None:
        """The card; None when it was removed, False when it is to be ignored."""
        if name is None:
            self._faults.tell(message.topic, "a card for an impossible name", "")
            return False
        if not message.payload:
            return None
        known = message.topic in self._seen
        if not known and len(self._seen) >= self._max_cards:
            self._faults.tell(self._topics.namespace, "too many cards", f"more than {self._max_cards} are ignored")
            return False
        try:
            card = decode(model, message.payload, _MAX_CARD)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable card", error)
            return False
        self._seen[message.topic] = self._connection.epoch
        return card

    def _forget(self, topic: str) -> None:
        self._seen.pop(topic, None)
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
