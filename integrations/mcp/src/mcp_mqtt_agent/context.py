"""What the handlers of the face get with each request of an MCP client."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext

__all__ = ["Context"]

Context = ServerRequestContext[Any, Any]
