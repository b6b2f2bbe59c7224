"""What changes about tools, for those who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mqtt_agent.aio.feed import Feed
from mqtt_agent.wire import ToolCard

__all__ = ["ToolChange", "ToolChanges"]


@dataclass(frozen=True)
class ToolChange:
    """Something about a tool is different now.

    Attributes:
        kind: ``online`` or ``offline`` when the tool can be called from now on, or cannot any more; ``changed`` when
            its card or the servers that offer it are others.
        tool: The tool's name.
        card: Its card as it is now, or None when it was removed.
        servers: The ids of the replicas that serve it now.
    """

    kind: Literal["online", "offline", "changed"]
    tool: str
    card: ToolCard | None
    servers: tuple[str, ...]


class ToolChanges(Feed[ToolChange]):
    """An async iterator over the changes of a catalog. At most the latest 1,000 wait to be read."""
