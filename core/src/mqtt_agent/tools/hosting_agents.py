"""Follows the statuses of agents that host tool servers. When an agent is lost, its tool servers are lost too."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.outlived import Outlived, identify_status
from mqtt_agent.errors import TransportError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import AgentStatus, ServerCard, Topics, decode, is_identifier

__all__ = ["HostingAgents"]

logger: logging.Logger = logger_of(__name__)


class HostingAgents:
    """Follows the statuses of the agents that server cards name as their hosts.

    An MQTT connection has only one Last Will, and an agent uses the Last Will for its own status. So when an agent is
    lost, the cards of its tool servers still say online.

    Args:
        connection: The connection over which the statuses arrive.
        topics: The topics of the namespace.
        on_change: Called with each server card whose agent went online or offline. The card has the server's present
            status.
    """

    def __init__(self, connection: Connection, topics: Topics, on_change: Callable[[ServerCard], object]) -> None:
        self._connection = connection
        self._topics = topics
        self._on_change = on_change
        self._cards: dict[str, ServerCard] = {}
        self._statuses: dict[str, AgentStatus | None] = {}
        self._subscribing = BackgroundTasks()
        self._faults = FaultLog(logger)
        self._outlived = Outlived(identify_status)

    def with_true_status(self, card: ServerCard) -> ServerCard:
        """Remember a server card, and return it with status offline if its agent is offline."""
        agent = card.agent
        if agent is None or not is_identifier(agent):
            self._cards.pop(card.server, None)
            return card
        self._cards[card.server] = card
        if agent not in self._statuses:
            self._statuses[agent] = None
            self._subscribing.start(self._follow(agent))
        status = self._statuses[agent]
        if card.status == "online" and status is not None and status.status == "offline":
            lost = card.unavailable or f"agent {agent}, whose connection the server uses, is offline"
            return card.model_copy(update={"status": "offline", "unavailable": lost})
        return card

    def forget(self, server: str) -> None:
        """Forget the card of a server."""
        self._cards.pop(server, None)

    @property
    def pending(self) -> bool:
        """Whether subscriptions to agents' statuses are still being made."""
        return len(self._subscribing) > 0

    async def known(self) -> None:
        """Wait until these subscriptions are made; see :attr:`pending`."""
        await self._subscribing.wait()

    async def stop(self) -> None:
        """Unsubscribe, and forget all cards and statuses."""
        self._subscribing.cancel()
        for agent in list(self._statuses):
            await self._connection.unsubscribe(self._topics.agent_status(agent), self._on_status)
        self._statuses.clear()
        self._cards.clear()

    async def _follow(self, agent: str) -> None:
        try:
            await self._connection.subscribe(self._topics.agent_status(agent), self._on_status, snapshot=True)
        except TransportError as error:
            logger.info(
                "the status of agent %s cannot be read; the tool servers on this agent may look online after the agent"
                " was lost: %s",
                agent,
                error,
            )

    def _on_status(self, message: InboundMessage) -> None:
        agent = self._topics.agent_of_status(message.topic)
        if agent is None or agent not in self._statuses:
            return
        try:
            status = decode(AgentStatus, message.payload) if message.payload else None
        except WireError as error:
            self._faults.refuse(message, "an unreadable status", error)
            return
        if status is not None and status.probe:
            return
        before = self._statuses[agent]
        if before is not None and status is not None and status.status == "offline" and status.speaks_before(before):
            return  # a late Last Will of an earlier connection
        if status is not None and self._outlived.is_over(status, before, retained=message.retain):
            return
        self._statuses[agent] = status
        for card in [card for card in self._cards.values() if card.agent == agent]:
            self._on_change(self.with_true_status(card))
