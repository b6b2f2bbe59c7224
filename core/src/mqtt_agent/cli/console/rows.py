"""The rows of the console's lists of tool servers, tools and agents."""

from __future__ import annotations

from typing import Any

from mqtt_agent.cli.console.work import Work, short
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import AgentStatus, ServerCard, Topics

__all__ = ["Cards", "Rows"]

Rows = dict[str, dict[str, Any]]
"""The rows of one list, by the name of what each row shows."""


class Cards:
    """The cards of a namespace, and the names of those whose connection was lost.

    Args:
        topics: The topics of the namespace.
    """

    def __init__(self, topics: Topics) -> None:
        self.picture: Picture = Picture(topics)
        self._topics = topics
        self._lost: set[str] = set()

    def take(self, message: InboundMessage) -> str | None:
        """Add a card or a status.

        Returns:
            The name of a replica or an agent whose connection was lost just now; None for any other message.
        """
        topics, picture = self._topics, self.picture
        server, agent = topics.server_of_card(message.topic), topics.agent_of_status(message.topic)
        name = server or agent
        if name is None:
            picture.take(message)
            return None
        where: Any = picture.servers if server else picture.statuses
        before: ServerCard | AgentStatus | None = where.get(name)
        picture.take(message)
        now: ServerCard | AgentStatus | None = where.get(name)
        if now is None or now.status == "online":
            self._lost.discard(name)
        elif before is not None and before.status == "online" and _written(now) <= _written(before):
            # A Last Will was written when its connection was opened, and a farewell is written when it is sent.
            self._lost.add(name)
            return name
        return None

    def server_of(self, tool: str) -> str:
        """The server that offers a tool."""
        card = self.picture.tools.get(tool)
        return short(card.server if card is not None else tool)

    def shared(self, name: str) -> str:
        """The server to which a replica belongs; any other name as it is."""
        card = self.picture.servers.get(name)
        return name if card is None else short(card.shared_name)

    def servers(self, work: Work) -> Rows:
        """One row for each replica, with what the replica has done since the console was opened."""
        online, running = {each.server for each in self.picture.online_servers()}, work.running()
        rows: Rows = {}
        for each in sorted(self.picture.servers.values(), key=lambda each: (each.shared_name, each.server)):
            status = "on standby" if each.standby else "online" if each.server in online else "offline"
            load = work.loads.get(short(each.server))
            rows[each.server] = {
                "name": short(each.shared_name),
                "replica": short(each.server),
                "status": status,
                "lost": each.server in self._lost or (each.agent is not None and each.agent in self._lost),
                "tools": [short(tool) for tool in each.tools],
                "since": short(each.started or each.last_seen),
                "running": sum(running[tool] for tool in each.tools),
                "answered": load.answered if load else 0,
                "failed": load.failed if load else 0,
                "minute": load.in_a_minute() if load else 0,
                "mean": load.seconds / load.answered if load else None,
            }
        return rows

    def tools(self) -> Rows:
        """One row for each tool."""
        served = {tool for each in self.picture.online_servers() for tool in each.tools}
        return {
            name: {
                "name": name,
                "status": "online" if name in served else "offline",
                "server": short(card.server),
                "description": short(card.description),
            }
            for name, card in sorted(self.picture.tools.items())
        }

    def agents(self) -> Rows:
        """One row for each agent."""
        return {
            name: {
                "name": name,
                "status": "online" if self.picture.is_online(name) else "offline",
                "lost": name in self._lost,
                "pool": bool(card.pool),
                "capabilities": [short(each) for each in card.capabilities],
                "description": short(card.description),
            }
            for name, card in sorted(self.picture.agents.items())
        }


def _written(said: ServerCard | AgentStatus) -> str:
    return said.last_seen if isinstance(said, ServerCard) else said.timestamp
