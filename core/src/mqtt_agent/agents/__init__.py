"""The A2A profile: agents, and the tasks that agents give each other."""

from mqtt_agent.agents.agent import Agent
from mqtt_agent.agents.executing.context import TaskContext
from mqtt_agent.agents.lists import PeerList
from mqtt_agent.agents.peers import PeerChange
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.store import MemoryStore, PostgresStore, SqliteStore, TaskStore

__all__ = [
    "Agent",
    "MemoryStore",
    "PeerChange",
    "PeerList",
    "PostgresStore",
    "SqliteStore",
    "TaskContext",
    "TaskHandle",
    "TaskStore",
]
