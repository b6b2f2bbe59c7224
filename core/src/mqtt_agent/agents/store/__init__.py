"""Where tasks are kept."""

from mqtt_agent.agents.store.base import ACTIVE, OPEN, RESERVED_SEQS, Changes, TaskKey, TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.memory import MemoryStore

__all__ = [
    "ACTIVE",
    "OPEN",
    "RESERVED_SEQS",
    "Changes",
    "MemoryStore",
    "TaskKey",
    "TaskRecord",
    "TaskRole",
    "TaskStore",
]
