"""Stores, which keep an agent's tasks: the rules for every store, an SQLite file, PostgreSQL, and memory."""

from mqtt_agent.agents.store.base import (
    ACTIVE,
    OPEN,
    RESERVED_SEQS,
    Changes,
    Outline,
    TaskKey,
    TaskRecord,
    TaskRole,
    TaskStore,
)
from mqtt_agent.agents.store.memory import MemoryStore
from mqtt_agent.agents.store.paths import default_store_path
from mqtt_agent.agents.store.postgres import PostgresStore
from mqtt_agent.agents.store.sqlite import SqliteStore

__all__ = [
    "ACTIVE",
    "OPEN",
    "RESERVED_SEQS",
    "Changes",
    "MemoryStore",
    "Outline",
    "PostgresStore",
    "SqliteStore",
    "TaskKey",
    "TaskRecord",
    "TaskRole",
    "TaskStore",
    "default_store_path",
]
