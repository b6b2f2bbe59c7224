"""Finds out which other servers offer the tools of a server, and follows these servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.copies import CardQuestion
from mqtt_agent.endpoints.outlived import Outlived, identify_card
from mqtt_agent.errors import TopicNotAuthorized, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.hosting_agents import HostingAgents
from mqtt_agent.tools.serving.probe import Inquiry
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import ServerCard, ToolCard, decode

__all__ = ["KnownName", "Rivals", "place_of"]

logger: logging.Logger = logger_of(__name__)

_ASK_AGAIN = 5.0
"""Seconds until a server that nobody listens for is asked again. It may be about to reconnect."""


class KnownName(Protocol):
    """What a server knows of a tool's name."""

    @property
    def card(self) -> ToolCard | None:
        """The latest card of the tool."""

    @property
    def writers(self) -> set[str]:
        """The names of the other servers whose cards of the tool have arrived."""
        ...


class Rivals:
    """The cards of the other servers that offer, claim or wait for the same tools.

    :meth:`look` reads the cards of all servers once. :meth:`follow` follows some of them by their exact topics. So a
    server without a conflict reads no cards of other servers, and a server on standby follows only the servers for
    which it waits.

    Args:
        scope: What all parts of the server share.
        barrier: Waits until every message that the broker had queued for this connection has arrived.
        names: The server's tools, each with the latest card of the tool. The server changes this dict.
        on_news: Called when a card that matters has changed.
    """

    def __init__(
        self,
        scope: Scope,
        barrier: Callable[[], Awaitable[bool]],
        names: Mapping[str, KnownName],
        on_news: Callable[[], None],
    ) -> None:
        self._scope = scope
        self._connection = scope.connection
        self._topics = scope.topics
        self._barrier = barrier
        self._names = names
        self._on_news = on_news
        self._cards: dict[str, ServerCard] = {}
        self._absent: dict[str, ServerCard] = {}
        """The cards of servers that say online although nobody listens, until a newer card arrives."""
        self._followed: set[str] = set()
        self._arrived: set[str] = set()
        """The servers of which a card has arrived since the latest look began."""
        self._looking = False
        self._hosting_agents = HostingAgents(scope.connection, scope.topics, self._put)
        self._news = asyncio.Event()
        self._question = CardQuestion(scope.connection, self._topics.client_query(scope.server_id), scope.server_id)
        self._believes_all = not scope.dialect.required
        self._inquiry = Inquiry(scope)
        self._outlived = Outlived(identify_card)

    def cards(self) -> list[ServerCard]:
        """The cards of the other servers that are online and matter, as far as they are known."""
        cards = self._cards.values()
        return [card for card in cards if card.status == "online" and self._absent.get(card.server) != card]

    async def look(self) -> list[ServerCard]:
        """Read the cards of all servers, and return those that are online and matter.

        Raises:
            TransportError: The connection ended.
        """
        everything = self._topics.all_server_cards
        self._arrived.clear()
        fresh = not self._looking
        if not self._looking:
            self._cards = {server: card for server, card in self._cards.items() if server in self._followed}
            self._looking = True
            try:
                await self._connection.subscribe(everything, self._on_card, qos=0, snapshot=True)
            except TopicNotAuthorized as error:
                self._looking = False
                logger.warning(
                    "the broker does not let server %s see which servers offer its tools too: %s",
                    self._scope.server_id,
                    error,
                )
                return []
        if await self._barrier() and fresh and not self._connection.keeps_retained_apart:
            # A card that was removed between an earlier look and the subscription of :meth:`follow` is still here.
            self._cards = {server: card for server, card in self._cards.items() if server in self._arrived}
        wanted: list[tuple[str, Handler]] = [(everything, self._on_card)]
        if not self._believes_all:
            wanted += [(self._topics.tool_card(tool), partial(self._on_copied_tool, tool)) for tool in self._names]
        await self._question.ask(wanted)
        if self._hosting_agents.pending:
            await self._hosting_agents.known()
            await self._barrier()
        if not self._connection.sends_retained_once:
            self._looking = False
            await self._connection.unsubscribe(everything, self._on_card)
        return self.cards()

    # Who has a name

    def owners(self, tools: Iterable[str]) -> dict[str, list[ServerCard]]:
        """The tools that servers of other names have, each with the cards of these servers, the earliest first."""
        cards, name = self.cards(), self._scope.name
        own = {tool for card in cards if card.shared_name == name for tool in card.tools}
        elected = {card.shared_name for card in cards if card.standby is False and (card.tools or card.claims)}
        taken: dict[str, list[ServerCard]] = {}
        for tool in tools:
            owners = [card for card in cards if card.shared_name != name and self._has(card, tool, elected)]
            if owners and tool not in own:  # a replica of this server has the name already
                taken[tool] = sorted(owners, key=place_of)
        return taken

    def believes(self, card: ServerCard, tool: str) -> bool:
        """Whether the server of a card may offer a tool.

        Every server can list any tool in its own server card. With ``bound="require"``, the broker lets only the
        servers of a tool write the tool's card, so a server is believed after such a card has arrived.
        """
        return self._believes_all or card.shared_name in self._names[tool].writers

    def _on_copied_tool(self, tool: str, message: InboundMessage) -> None:
        with contextlib.suppress(WireError):
            card = decode(ToolCard, message.payload, self._scope.max_payload)
            if card.tool == tool and tool in self._names:
                self._names[tool].writers.add(card.server)

    def _has(self, card: ServerCard, tool: str, elected: set[str]) -> bool:
        if not self.believes(card, tool):
            return False
        if tool in card.tools or tool in (card.claims or ()):
            return True
        # Replicas in an election keep the names of their server until one of them has taken over.
        published = self._names[tool].card
        holds = published is not None and published.server == card.shared_name
        undecided = card.standby is not None and card.shared_name not in elected
        return holds and undecided and tool not in (card.refused or ())

    def will_give_way(self, taken: Mapping[str, list[ServerCard]], place: tuple[str, str]) -> bool:
        """Whether the other servers only claim the names now, and started later. Such servers give up their claims.

        Args:
            taken: The tools, each with the cards of the servers that have the name.
            place: The place of this server.
        """
        own = self.earliest(place)
        owners = [(tool, card) for tool, cards in taken.items() for card in cards]
        return all(tool not in card.tools and place_of(card) > own for tool, card in owners)

    def earliest(self, place: tuple[str, str]) -> tuple[str, str]:
        """The earliest place of this server, whose own place is given, and its replicas."""
        replicas = [place_of(card) for card in self.cards() if card.shared_name == self._scope.name]
        return min([place, *replicas])

    def _matters(self, card: ServerCard) -> bool:
        """Whether a card is about one of the server's tools."""
        names = self._names
        if any(tool in names for tool in (*card.tools, *(card.claims or ()))):
            return True
        return any(name.card is not None and name.card.server == card.shared_name for name in names.values())

    # Following servers

    async def follow(self, servers: Iterable[str]) -> None:
        """Follow exactly the cards of these servers from now on.

        Args:
            servers: The ids of the servers.
        """
        wanted = set(servers)
        self._inquiry.hear_only(wanted)
        for server in self._followed - wanted:
            await self._connection.unsubscribe(self._topics.server_card(server), self._on_card)
        new, self._followed = wanted - self._followed, wanted
        for server in new:
            await self._connection.subscribe(self._topics.server_card(server), self._on_card, qos=0, snapshot=True)

    async def find_absent(self, cards: Iterable[ServerCard]) -> None:
        """Take servers for gone that say online although nobody is subscribed to their query topics, or nobody answers.

        Such a server is asked twice, with 5 s in between. A server that does not answer queries is not asked.
        See :class:`Inquiry`.

        Args:
            cards: The cards of the servers.
        """
        silent = [card for card in cards if "query" in (card.features or ())]
        # A server to which this one proves nothing shows its card, and sends no answer.
        await self.follow(self._followed | {card.server for card in silent})
        for again in (False, True):
            told = await asyncio.gather(*map(self._inquiry.is_gone, silent))
            silent = [card for card, gone in zip(silent, told, strict=True) if gone]
            if not silent:
                return
            if not again:
                await self.news(_ASK_AGAIN)
        for card in silent:
            latest = self._cards.get(card.server)
            # The same card may have arrived again. When it does not say when it was written, that is when it arrived.
            if latest is not None and latest.model_copy(update={"last_seen": card.last_seen}) == card:
                logger.warning(
                    "server %s says online, but does not take or does not answer queries: server %s treats it as gone",
                    card.server,
                    self._scope.server_id,
                )
                self._absent[card.server] = latest

    def hear(self, name: str) -> None:
        """Note that a server of this name has spoken: none of these servers counts as gone any more."""
        self._inquiry.hear(name)
        for server in [server for server, card in self._absent.items() if card.shared_name == name]:
            del self._absent[server]

    async def news(self, timeout: float) -> None:
        """Wait until a card that matters has changed, at most ``timeout`` seconds."""
        self._news.clear()
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._news.wait(), timeout)

    async def stop(self) -> None:
        """Unsubscribe, and forget all cards."""
        await self.follow(())
        await self._question.stop()
        await self._connection.unsubscribe(self._topics.all_server_cards, self._on_card)
        await self._hosting_agents.stop()
        self._cards.clear()
        self._absent.clear()

    def _on_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        if server is None or server == self._scope.server_id:
            return
        try:
            card = decode(ServerCard, message.payload, self._scope.max_payload) if message.payload else None
        except WireError:
            logger.debug("the card on %s cannot be read", message.topic)
            return
        if card is not None and card.server != server:
            return
        self._arrived.add(server)
        before = self._cards.get(server)
        if card is not None and self._outlived.is_over(card, before, retained=message.retain):
            return
        if card is not None and card.status == "online" and not message.retain:
            self._inquiry.hear(server)
        if card is None or not (before is not None or self._matters(card)):
            self._hosting_agents.forget(server)
            if self._cards.pop(server, None) is not None:
                self._tell()
        elif before is None or card.status == "online" or not card.speaks_before(before):  # else: a late Last Will
            self._put(self._hosting_agents.with_true_status(card))

    def _put(self, card: ServerCard) -> None:
        if self._cards.get(card.server) != card:
            self._cards[card.server] = card
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._on_news()


def place_of(card: ServerCard) -> tuple[str, str]:
    """Orders servers by the time at which they started. A card that does not say the time is the last."""
    return card.started or "~", card.server
