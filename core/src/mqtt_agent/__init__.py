"""MQTT.Agent: MCP tool calls and A2A agent messages over an MQTT 5 broker.

>>> async with ToolClient("agent-a", broker="mqtt://localhost:1883") as client:  # doctest: +SKIP
...     print(await client.call("forecast", {"city": "Oslo"}))
"""

from mqtt_agent import errors
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import CallHandle, ToolChange, ToolClient, ToolContext, ToolServer
from mqtt_agent.transport import TLS, Connection, EmbeddedBroker, Password, Token
from mqtt_agent.version import __version__
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = [
    "TLS",
    "CallHandle",
    "Connection",
    "EmbeddedBroker",
    "Password",
    "ServerCard",
    "Token",
    "ToolCard",
    "ToolChange",
    "ToolClient",
    "ToolContext",
    "ToolError",
    "ToolServer",
    "__version__",
    "errors",
]
