"""The import paths that users rely on: each path still provides all its names of version 0.1."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

STORES = {"MemoryStore", "PostgresStore", "SqliteStore", "TaskStore"}
AGENTS = {"Agent", "PeerChange", "TaskContext", "TaskHandle"} | STORES
TOOLS = {"CallHandle", "ToolChange", "ToolClient", "ToolContext", "ToolResult", "ToolServer"}
TRANSPORT = {"TLS", "Connection", "EmbeddedBroker", "Password", "Token"}
PUBLIC = {
    "mqtt_agent": AGENTS
    | TOOLS
    | TRANSPORT
    | {"AgentCard", "AgentSkill", "ServerCard", "TaskEvent", "TaskState", "ToolCard", "__version__", "errors"}
    | {"TaskFailed", "TaskRejected", "ToolError"},
    "mqtt_agent.agents": AGENTS,
    "mqtt_agent.agents.store": STORES | {"TaskKey", "TaskRecord"},
    "mqtt_agent.errors": {"MQTTAgentError", "CallError", "ToolError", "TaskError", "TransportError", "StoreError"},
    "mqtt_agent.sync": {"Agent", "CallHandle", "TaskContext", "TaskHandle", "ToolClient", "ToolContext", "ToolServer"},
    "mqtt_agent.tools": TOOLS,
    "mqtt_agent.transport": TRANSPORT,
    "mqtt_agent.wire": {"AgentCard", "ServerCard", "Task", "TaskEvent", "TaskMessage", "TaskResult", "ToolCard"},
    "langchain_mqtt_agent": {"__version__", "MQTTLiveTools", "MQTTRemoteAgent", "MQTTTool", "MQTTToolkit"}
    | {"graph_agent", "serve_graph", "serve_tools", "tool_server"},
    "autogen_mqtt_agent": {"__version__", "AgentHost", "MQTTAgent", "MQTTWorkbench"}
    | {"mqtt_tools", "serve_agent", "serve_team"},
    "mcp_mqtt_agent": {"__version__", "Bridge", "Face"},
    "a2a_mqtt_agent": {"__version__", "Gateway", "Identity", "RemoteAgent"},
    "crewai_mqtt_agent": {"__version__", "MQTTAgent", "MQTTTool", "MQTTToolkit"}
    | {f"RemoteTask{kind}Event" for kind in ("Artifact", "Progress", "Status", "Stream")}
    | {"RemoteToolPartialEvent"}
    | {f"{verb}_{what}" for verb in ("host", "serve") for what in ("agent", "crew", "flow")},
}


HERE = [name for name in sorted(PUBLIC) if importlib.util.find_spec(name)]
"""CrewAI has its own virtual environment, in which this file runs too."""


def test_every_adapter_is_looked_at_in_one_of_the_two_environments() -> None:
    assert set(PUBLIC) - set(HERE) in (
        {"crewai_mqtt_agent"},
        {"autogen_mqtt_agent", "langchain_mqtt_agent", "mcp_mqtt_agent", "a2a_mqtt_agent"},
    )


@pytest.mark.parametrize("module", HERE)
def test_a_public_import_path_keeps_its_names(module: str) -> None:
    found = importlib.import_module(module)
    assert set(found.__all__) >= PUBLIC[module]
    assert all(hasattr(found, name) for name in found.__all__)
