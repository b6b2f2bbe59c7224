"""The MCP profile: serving and calling tools."""

from mqtt_agent.tools.changes import ToolChange
from mqtt_agent.tools.client import ToolClient
from mqtt_agent.tools.context import SyncToolContext, ToolContext, ToolResult
from mqtt_agent.tools.handle import CallHandle
from mqtt_agent.tools.server import ToolServer

__all__ = ["CallHandle", "SyncToolContext", "ToolChange", "ToolClient", "ToolContext", "ToolResult", "ToolServer"]
