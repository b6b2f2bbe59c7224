"""The cards of a server's replicas, as one replica sees them: which other replicas are online, and in which order."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mqtt_agent.endpoints.outlived import Outlived, identify_card
from mqtt_agent.errors import WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.hosting_agents import HostingAgents
from mqtt_agent.tools.serving.probe import Inquiry
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard, decode

__all__ = ["ReplicaCards", "place_in_line"]

logger: logging.Logger = logger_of(__name__)


class ReplicaCards:
    """Follows the server cards of all replicas that have the same name.

    Args:
        scope: What all parts of the server share.
        on_own_card: Called with each message on the topic of this replica's own card.
        on_news: Called when the card of another replica has changed.
    """

    def __init__(
        self, scope: Scope, on_own_card: Callable[[InboundMessage], None], on_news: Callable[[], None]
    ) -> None:
        self._connection = scope.connection
        self._topics = scope.topics
        self._server_id = scope.server_id
        self._name = scope.name
        self._max_payload = scope.max_payload
        self._on_own_card = on_own_card
        self._on_news = on_news
        self._cards: dict[str, tuple[int, ServerCard]] = {}
        """The latest card of each replica, and the epoch of our connection in which the card arrived."""
        self._absent: dict[str, ServerCard] = {}
        """The cards of replicas that say online although nobody listens, until a newer card arrives."""
        self._hosting_agents = HostingAgents(scope.connection, scope.topics, self._on_true_status)
        self._outlived = Outlived(identify_card)
        self._inquiry = Inquiry(scope)

    async def start(self) -> None:
        """Subscribe to the cards.

        Raises:
            TransportError: The broker refuses the subscription, or the connection was lost.
        """
        await self._connection.subscribe(self._topics.all_server_cards, self._on_card, qos=0, snapshot=True)

    async def stop(self) -> None:
        """Unsubscribe, and forget all cards."""
        await self._connection.unsubscribe(self._topics.all_server_cards, self._on_card)
        await self._hosting_agents.stop()
        self._cards.clear()
        self._absent.clear()

    def own(self, epoch: int) -> ServerCard | None:
        """This replica's own card, if the card has arrived in this epoch of the connection."""
        seen, card = self._cards.get(self._server_id, (0, None))
        return card if seen == epoch else None

    def others(self) -> list[ServerCard]:
        """The cards of the other replicas that are online, in the order of their places in line."""
        epoch = self._connection.epoch
        cards = [card for seen, card in self._cards.values() if seen == epoch and card.status == "online"]
        others = [c for c in cards if c.server != self._server_id and self._absent.get(c.server) != c]
        return sorted(others, key=place_in_line)

    async def is_gone(self, card: ServerCard) -> bool:
        """Whether nobody listens to the queries of a replica; see :meth:`Inquiry.is_gone`."""
        return await self._inquiry.is_gone(card)

    def take_for_gone(self, card: ServerCard) -> None:
        """Ignore a replica that says online although nobody listens, until the replica publishes a newer card."""
        self._absent[card.server] = card

    def _on_card(self, message: InboundMessage) -> None:
        server = self._topics.server_of_card(message.topic)
        if server == self._server_id:
            self._on_own_card(message)
        card: ServerCard | None = None
        try:
            card = decode(ServerCard, message.payload, self._max_payload) if message.payload else None
        except WireError:
            logger.debug("the card on %s cannot be read", message.topic)
        if server is None or (card is not None and (card.server != server or card.shared_name != self._name)):
            return
        if card is None:
            self._hosting_agents.forget(server)
            self._cards.pop(server, None)
        elif server == self._server_id:
            self._cards[server] = self._connection.epoch, card
        else:
            _, before = self._cards.get(server, (0, None))
            if self._outlived.is_over(card, before, retained=message.retain):
                return
            if card.status == "online" and not message.retain:
                self._inquiry.hear(server)
            self._cards[server] = self._connection.epoch, self._hosting_agents.with_true_status(card)
        if server != self._server_id:
            self._on_news()

    def _on_true_status(self, card: ServerCard) -> None:
        seen, _ = self._cards.get(card.server, (0, None))
        self._cards[card.server] = seen, card
        self._on_news()


def place_in_line(card: ServerCard) -> tuple[str, str]:
    """A replica's place in the line of replicas that may serve. The smallest place is the first in line."""
    return card.since or card.started or "", card.server
