"""The words for changes of a server's resources and prompts, which are MCP's own."""

from __future__ import annotations

from mqtt_agent.wire.events import LISTEN, LISTS, RESOURCE_UPDATED, URIS, listened

__all__ = ["LISTEN", "LISTS", "RESOURCE_UPDATED", "URIS", "listened"]
