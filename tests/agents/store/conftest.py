"""The stores on which every rule is tested."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent.agents.store import MemoryStore, SqliteStore, TaskKey, TaskRecord, TaskRole, TaskStore
from support import soon

STORES: dict[str, Callable[[Path], TaskStore]] = {
    "memory": lambda path: MemoryStore(),
    "sqlite": SqliteStore,
}
AGENT = "a2a/v1/writer"

_numbers = itertools.count(1)


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


@pytest.fixture(params=STORES)
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
