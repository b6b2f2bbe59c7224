"""Changes of the tool list, as :meth:`ToolClient.watch_tools` gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mqtt_agent.aio.feed import Feed
from mqtt_agent.wire import ToolCard

__all__ = ["ToolChange", "ToolChanges"]


@dataclass(frozen=True)
class ToolChange:
    """A change of one tool.

    Attributes:
        kind: ``online``: the tool can be called from now on. ``offline``: the tool cannot be called any more.
            ``changed``: the tool has another card, or other servers offer the tool.
        tool: The tool's name.
        card: The tool's card after the change, or None when the card was removed.
        servers: The ids of the replicas that serve the tool after the change.
    """

    kind: Literal["online", "offline", "changed"]
    tool: str
    card: ToolCard | None
    servers: tuple[str, ...]


class ToolChanges(Feed[ToolChange]):
    """An async iterator over the changes of a catalog. Only the latest 1,000 unread changes are kept."""
