"""The stores on which every rule is tested."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from databases import shared_pooler, shared_postgres
from mqtt_agent.agents.store import MemoryStore, PostgresStore, SqliteStore, TaskKey, TaskRecord, TaskRole, TaskStore
from support import soon

_numbers = itertools.count(1)


def on_postgres(path: Path) -> PostgresStore:
    """A store in a schema of its own."""
    return PostgresStore(shared_postgres().url(), schema=f"test_{next(_numbers)}")


def behind_a_pooler(path: Path) -> PostgresStore:
    """A store in a schema of its own, which is reached through a pooler in transaction mode."""
    return PostgresStore(shared_pooler().url(), schema=f"test_{next(_numbers)}")


STORES: dict[str, Callable[[Path], TaskStore]] = {
    "memory": lambda path: MemoryStore(),
    "sqlite": SqliteStore,
    "postgres": on_postgres,
    "pooler": behind_a_pooler,
}
AGENT = "a2a/v1/writer"


def new_record(
    task_id: str | None = None,
    *,
    agent: str = AGENT,
    role: TaskRole = "received",
    requester: str = "",
    **fields: Any,
) -> TaskRecord:
    """A record with an id of its own."""
    task_id = task_id or f"task-{next(_numbers)}"
    values: dict[str, Any] = {
        "peer": "planner",
        "task": {"task_id": task_id, "prompt": "write"},
        "digest": "0",
        **fields,
    }
    return TaskRecord(TaskKey(agent, role, task_id, requester), **values)


@pytest.fixture(params=[name for name in STORES if name != "pooler"])  # test_model and test_processes have the pooler
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TaskStore]:
    """An open store of each kind, empty."""
    store = STORES[request.param](tmp_path / "tasks.db")
    await soon(store.open())
    yield store
    await soon(store.close())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path for an SQLite store, where no file is yet."""
    return tmp_path / "tasks.db"
