"""What is in a namespace: every card and status as it was published, and how they change while one looks."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TypeVar

from mqtt_agent.errors import SubscriptionRefused, TopicNotAuthorized, WireError
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import AgentCard, AgentStatus, Message, ServerCard, ToolCard, Topics, decode, read_time
from mqtt_agent.wire.messages import MAX_CARD_PAYLOAD

__all__ = ["Picture", "look"]

M = TypeVar("M", bound=Message)
_QUIET = 0.3
_COMPLETE_WITHIN = 15.0
"""Seconds to wait for the end of the retained messages: they have ended when nothing arrives for ``_QUIET``."""


@dataclass
class Picture:
    """The cards and statuses of a namespace.

    Attributes:
        topics: The topics of the namespace.
        servers, tools, agents, statuses: The latest messages, by name.
        sizes: The size of each message in bytes, by topic.
        unreadable: Why a message cannot be read, by topic.
        refused: The topic filters that the broker does not allow.
        lives: The (``started``, ``status``) of each message that arrived, by name, in order.
        clocks: How many seconds the clock of each name is ahead of this machine's clock, as far as it is known.
    """

    topics: Topics
    servers: dict[str, ServerCard] = field(default_factory=dict[str, ServerCard])
    tools: dict[str, ToolCard] = field(default_factory=dict[str, ToolCard])
    agents: dict[str, AgentCard] = field(default_factory=dict[str, AgentCard])
    statuses: dict[str, AgentStatus] = field(default_factory=dict[str, AgentStatus])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    refused: list[str] = field(default_factory=list[str])
    lives: defaultdict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: defaultdict[str, list[tuple[str, str]]](list)
    )
    clocks: dict[str, float] = field(default_factory=dict[str, float])
    arrived: float = 0.0

    def online_servers(self) -> list[ServerCard]:
        """The servers that say that they are online, and whose agent, if they have one, says so too."""
        return [
            each
            for each in self.servers.values()
            if each.status == "online" and (each.agent is None or self.is_online(each.agent))
        ]

    def is_online(self, agent: str) -> bool:
        """Whether an agent says that it is online."""
        said = self.statuses.get(agent) or self.agents.get(agent)
        return said is not None and said.status == "online"

    def online_names(self) -> set[str]:
        """The names of everything that is online."""
        servers = self.online_servers()
        names = {each.shared_name for each in servers} | {each.server for each in servers}
        names |= {tool for each in servers for tool in each.tools}
        return names | {name for name in {*self.agents, *self.statuses} if self.is_online(name)}

    def take(self, message: InboundMessage) -> None:
        """Add a message to the picture."""
        self.arrived = time.monotonic()
        topics, topic = self.topics, message.topic
        self.sizes[topic] = len(message.payload)
        if name := topics.server_of_card(topic):
            self._keep(self.servers, name, self._read(message, ServerCard))
        elif name := topics.tool_of_card(topic):
            self._keep(self.tools, name, self._read(message, ToolCard))
        elif name := topics.agent_of_card(topic):
            self._keep(self.agents, name, self._read(message, AgentCard))
        elif name := topics.agent_of_status(topic):
            status = self._read(message, AgentStatus)
            if status is None or not status.probe:
                self._keep(self.statuses, name, status)

    def _keep(self, where: dict[str, M], name: str, said: M | None) -> None:
        if said is None:
            where.pop(name, None)
            return
        where[name] = said
        if isinstance(said, (ServerCard, AgentStatus)) and said.started:
            self.lives[name].append((said.started, said.status))
        written = getattr(said, "last_seen", None) or getattr(said, "timestamp", "")
        moment = read_time(written)
        if moment is not None and getattr(said, "status", "") == "online":
            ahead = moment - time.time()
            if ahead > 0:  # a retained card may be old, so only a card from the future says something
                self.clocks[name] = ahead

    def _read(self, message: InboundMessage, model: type[M]) -> M | None:
        self.unreadable.pop(message.topic, None)
        if not message.payload:
            self.sizes.pop(message.topic, None)
            return None
        try:
            return decode(model, message.payload, MAX_CARD_PAYLOAD)
        except WireError as error:
            self.unreadable[message.topic] = str(error)
            return None


async def look(connection: Connection, topics: Topics) -> Picture:
    """Subscribe to all cards and statuses, and wait until the retained ones have arrived.

    The picture goes on changing while the connection is up.
    """
    picture = Picture(topics)
    picture.arrived = time.monotonic()
    for topic_filter in (
        topics.all_server_cards,
        topics.all_tool_cards,
        topics.all_agent_statuses,
        topics.all_agent_cards,
    ):
        try:
            await connection.subscribe(topic_filter, picture.take, qos=0, snapshot=True)
        except (TopicNotAuthorized, SubscriptionRefused):
            picture.refused.append(topic_filter)
    # A marker message needs a right that this login may not have, so a quiet moment is the end of the list.
    deadline = time.monotonic() + _COMPLETE_WITHIN
    while (left := min(picture.arrived + _QUIET, deadline) - time.monotonic()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left)
    return picture
