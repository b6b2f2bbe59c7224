"""MQTT.Agent: MCP tool calls and A2A agent messages over an MQTT 5 broker.

>>> async with ToolClient("agent-a", broker="mqtt://localhost:1883") as client:  # doctest: +SKIP
...     print(await client.call("forecast", {"city": "Oslo"}))
"""

from mqtt_agent import errors
from mqtt_agent.agents import (
    Agent,
    MemoryStore,
    PeerChange,
    PostgresStore,
    SqliteStore,
    TaskContext,
    TaskHandle,
    TaskStore,
)
from mqtt_agent.errors import TaskFailed, TaskRejected, ToolError
from mqtt_agent.tools import CallHandle, ToolChange, ToolClient, ToolContext, ToolResult, ToolServer
from mqtt_agent.transport import (
    TLS,
    Capabilities,
    Connection,
    EmbeddedBroker,
    IssuedToken,
    Password,
    Token,
    TokenService,
    probe,
)
from mqtt_agent.version import __version__
from mqtt_agent.wire import AgentCard, AgentSkill, Part, ServerCard, TaskEvent, TaskMessage, TaskState, ToolCard

__all__ = [
    "TLS",
    "Agent",
    "AgentCard",
    "AgentSkill",
    "CallHandle",
    "Capabilities",
    "Connection",
    "EmbeddedBroker",
    "IssuedToken",
    "MemoryStore",
    "Part",
    "Password",
    "PeerChange",
    "PostgresStore",
    "ServerCard",
    "SqliteStore",
    "TaskContext",
    "TaskEvent",
    "TaskFailed",
    "TaskHandle",
    "TaskMessage",
    "TaskRejected",
    "TaskState",
    "TaskStore",
    "Token",
    "TokenService",
    "ToolCard",
    "ToolChange",
    "ToolClient",
    "ToolContext",
    "ToolError",
    "ToolResult",
    "ToolServer",
    "__version__",
    "errors",
    "probe",
]
