"""The list of cards that ``Agent.peers()`` returns."""

from __future__ import annotations

from collections.abc import Sequence

from mqtt_agent.display import Table, coloured, escaped
from mqtt_agent.wire import AgentCard

__all__ = ["PeerList"]


class PeerList(Table[AgentCard]):
    """A list of cards, which a notebook shows as a table with a row for each peer."""

    _what = "peer"
    _columns = ("agent", "capabilities", "description", "status", "last seen")

    def _row(self, item: AgentCard) -> Sequence[str]:
        name, can = f"<b>{escaped(item.name)}</b>", escaped(", ".join(item.capabilities))
        return name, can, escaped(item.description), coloured(item.status), escaped(item.last_seen)
