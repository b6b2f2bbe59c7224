"""The MCP profile: tool servers offer tools, and tool clients find and call them."""

from mqtt_agent.tools.calling.answering import OnQuestion
from mqtt_agent.tools.calling.changes import ToolChange
from mqtt_agent.tools.calling.client import ToolClient
from mqtt_agent.tools.calling.contents import Content
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.listening import ServerChange, ServerChanges
from mqtt_agent.tools.lists import Entries, ServerList, ToolList
from mqtt_agent.tools.questions import ELICITATION, CallQuestion, Elicited
from mqtt_agent.tools.serving.content_settings import ContentSettings
from mqtt_agent.tools.serving.context import SyncToolContext, ToolContext
from mqtt_agent.tools.serving.requests import ServerRequest
from mqtt_agent.tools.serving.results import SharedContent, ToolResult
from mqtt_agent.tools.serving.server import ToolServer

__all__ = [
    "ELICITATION",
    "CallHandle",
    "CallQuestion",
    "Content",
    "ContentSettings",
    "Elicited",
    "Entries",
    "OnQuestion",
    "ServerChange",
    "ServerChanges",
    "ServerList",
    "ServerRequest",
    "SharedContent",
    "SyncToolContext",
    "ToolChange",
    "ToolClient",
    "ToolContext",
    "ToolList",
    "ToolResult",
    "ToolServer",
]
