"""Tool servers that live on an agent's connection: they are there as long as the agent is."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import TransportError, WireError
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import AgentStatus, ServerCard, Topics, decode, is_identifier

__all__ = ["Hosts"]

logger: logging.Logger = logging.getLogger(__name__)


class Hosts:
    """Follows the statuses of the agents that server cards name.

    A connection has one will only, and an agent's is its status: nobody but the agent can tell that its tools are gone.

    Args:
        connection: Where to listen.
        topics: The namespace.
        on_change: Called with each server card whose agent came or went, with the status that is true now.
    """

    def __init__(self, connection: Connection, topics: Topics, on_change: Callable[[ServerCard], object]) -> None:
        self._connection = connection
        self._topics = topics
        self._on_change = on_change
        self._cards: dict[str, ServerCard] = {}
        self._statuses: dict[str, AgentStatus | None] = {}
        self._following = BackgroundTasks()
        self._faults = FaultLog(logger)

    def judge(self, card: ServerCard) -> ServerCard:
        """The card with the status that is true now."""
        agent = card.agent
        if agent is None or not is_identifier(agent):
            self._cards.pop(card.server, None)
            return card
        self._cards[card.server] = card
        if agent not in self._statuses:
            self._statuses[agent] = None
            self._following.start(self._follow(agent))
        status = self._statuses[agent]
        if card.status == "online" and status is not None and status.status == "offline":
            return card.model_copy(update={"status": "offline"})
        return card

    def forget(self, server: str) -> None:
        """A server has no card any more."""
        self._cards.pop(server, None)

    @property
    def pending(self) -> bool:
        """Whether agents were named that are not followed yet."""
        return len(self._following) > 0

    async def known(self) -> None:
        """Wait until all agents that were named are followed."""
        await self._following.wait()

    async def stop(self) -> None:
        """Follow nobody any more."""
        self._following.cancel()
        for agent in self._statuses:
            await self._connection.unsubscribe(self._topics.agent_status(agent), self._on_status)
        self._statuses.clear()
        self._cards.clear()

    async def _follow(self, agent: str) -> None:
        try:
            await self._connection.subscribe(self._topics.agent_status(agent), self._on_status, snapshot=True)
        except TransportError as error:
            logger.info("cannot tell when agent %s, which serves tools, is gone: %s", agent, error)

    def _on_status(self, message: InboundMessage) -> None:
        agent = self._topics.agent_of_status(message.topic)
        if agent is None or agent not in self._statuses:
            return
        try:
            status = decode(AgentStatus, message.payload) if message.payload else None
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable status", error)
            return
        before = self._statuses[agent]
        if before is not None and status is not None and status.status == "offline" and status.speaks_before(before):
            return
        self._statuses[agent] = status
        for card in [card for card in self._cards.values() if card.agent == agent]:
            self._on_change(self.judge(card))
