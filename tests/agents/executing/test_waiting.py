"""Tasks that wait for a slot: they expire in time while their agent runs, and they take no memory while they wait."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from datetime import datetime, timezone
from typing import Any

import pytest
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskState
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.wire import Task
from support import soon, until
from typing_extensions import override

from ..conftest import MakeAgent


async def wait_for_ever(task: TaskContext) -> None:
    await asyncio.Event().wait()


def in_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(time.time() + seconds, timezone.utc)


async def test_a_task_that_waits_does_not_expire_in_the_store_of_an_agent_that_has_stopped(
    make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    store = MemoryStore()
    writer = make_agent("writer", store=store, max_concurrency=1, drain_timeout=0)
    writer.on_task(wait_for_ever)
    await soon(writer.start())
    await soon(planner.delegate("writer"))
    await until(lambda: writer.running_tasks == 1)
    moment = in_seconds(1.5)
    late = await soon(planner.delegate("writer", expires_at=moment))
    await until(lambda: writer._executor.waiting == 1)
    await soon(writer.stop())
    await until(lambda: time.time() > moment.timestamp() + 0.1)
    record = await store.get(TaskKey(f"{namespace}/writer", "received", late.task_id, "planner"))
    assert record is not None
    assert record.state is TaskState.SUBMITTED, "the next start ends it, or another process that uses the store"


class Watched(MemoryStore):
    """A store that knows which of the records that it gave away are still in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._given: list[weakref.ref[TaskRecord]] = []

    @property
    def in_memory(self) -> list[str]:
        gc.collect()
        return [record.task_id for each in self._given if (record := each()) is not None]

    def _give(self, record: TaskRecord) -> None:
        self._given.append(weakref.ref(record))

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        stored, added = await super().add(record)
        self._give(stored)
        return stored, added

    @override
    async def find(self, *args: Any, **options: Any) -> list[TaskRecord]:
        found = await super().find(*args, **options)
        for record in found:
            self._give(record)
        return found


@pytest.mark.parametrize("since", ["now", "an earlier process"])
async def test_a_task_that_waits_and_has_an_end_is_not_kept_in_memory(
    since: str, make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    store = Watched()
    writer = make_agent("writer", store=store, max_concurrency=1)
    writer.on_task(wait_for_ever)
    task = Task(task_id="t-1", sender="planner", to="writer", prompt="write", expires_at="2099-12-31T23:59:59Z")
    if since == "an earlier process":
        for task_id in ("t-0", "t-1"):
            content = task.model_dump(by_alias=True, exclude_none=True)
            record = TaskRecord(
                TaskKey(f"{namespace}/writer", "received", task_id, "planner"), "planner", content, task.digest
            )
            record.expires_at = time.time() + 3600
            await store.add(record)
        await soon(writer.start())
    else:
        await soon(writer.start())
        await soon(planner.delegate("writer"))
        await until(lambda: writer.running_tasks == 1)
        await soon(planner.delegate("writer", task_id="t-1", expires_at=task.expires_at))
    await until(lambda: (writer.running_tasks, writer._executor.waiting) == (1, 1))
    await until(lambda: "t-1" not in store.in_memory)
