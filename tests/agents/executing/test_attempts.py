"""Only the latest attempt at a task changes its record: an old process cannot end the task of the next process."""

from __future__ import annotations

import asyncio

import pytest
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskState
from mqtt_agent.agents.store import ACTIVE, TaskKey, TaskRecord
from mqtt_agent.errors import TaskCanceled
from support import soon, until

from ..conftest import MakeAgent


async def begin_the_next_attempt(store: MemoryStore, key: TaskKey) -> TaskRecord:
    """Do what another process with the same agent id does when it starts."""
    assert await store.change(key, ACTIVE, state=TaskState.SUBMITTED)
    record = await store.claim(key.agent)
    assert record is not None
    assert record.attempt == 2
    return record


@pytest.mark.parametrize("old_attempt", ["returns", "fails", "saves", "asks"])
async def test_an_old_attempt_changes_nothing(
    old_attempt: str, make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    store, began, go = MemoryStore(), asyncio.Event(), asyncio.Event()
    refused: list[str] = []
    writer = make_agent("writer", store=store)

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        began.set()
        await go.wait()
        if old_attempt == "fails":
            raise OSError("no disk")
        try:
            if old_attempt == "saves":
                await task.save("page 1")
            elif old_attempt == "asks":
                await task.ask("Which year?")
        except TaskCanceled:
            refused.append(old_attempt)
            raise
        return "too late"

    await soon(writer.start())
    await soon(planner.delegate("writer", task_id="t-1"))
    await soon(began.wait())
    key = TaskKey(f"{namespace}/writer", "received", "t-1", "planner")
    record = await begin_the_next_attempt(store, key)
    go.set()
    await until(lambda: writer.running_tasks == 0)
    assert await store.get(key) == record
    assert refused == ([old_attempt] if old_attempt in ("saves", "asks") else [])
