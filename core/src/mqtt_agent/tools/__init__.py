"""The MCP profile: tool servers offer tools, and tool clients find and call them."""

from mqtt_agent.tools.calling.answering import OnQuestion
from mqtt_agent.tools.calling.changes import ToolChange
from mqtt_agent.tools.calling.client import ToolClient
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.questions import ELICITATION, CallQuestion, Elicited
from mqtt_agent.tools.serving.context import SyncToolContext, ToolContext, ToolResult
from mqtt_agent.tools.serving.requests import ServerRequest
from mqtt_agent.tools.serving.server import ToolServer

__all__ = [
    "ELICITATION",
    "CallHandle",
    "CallQuestion",
    "Elicited",
    "OnQuestion",
    "ServerRequest",
    "SyncToolContext",
    "ToolChange",
    "ToolClient",
    "ToolContext",
    "ToolResult",
    "ToolServer",
]
