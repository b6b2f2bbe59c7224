"""Cancels of tasks that have not arrived, and of many tasks, while the store fails."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from mqtt_agent import MemoryStore, TaskContext, errors
from mqtt_agent.agents.executing import early_cancels
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.wire import TaskState
from support import soon, until
from typing_extensions import override

from ..conftest import MakeAgent


class Fragile(MemoryStore):
    """A store that does not write the records of some tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    def _check(self, key: TaskKey) -> None:
        if key.task_id in self.refused:
            raise errors.StoreError("disk full", permanent=True)

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        self._check(record.key)
        return await super().add(record)

    @override
    async def change(self, key: TaskKey, *arguments: Any, **changes: Any) -> TaskRecord | None:
        if changes.get("state") == "canceled":
            self._check(key)
        return await super().change(key, *arguments, **changes)


async def test_a_cancel_that_the_store_does_not_take_does_not_count(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_cancels, "_MOST_OF_ONE", 2)
    store = Fragile()
    writer = make_agent("writer", store=store)
    await soon(writer.start())

    async def cancel(task_id: str) -> bool:
        return await soon(writer._received.cancel(task_id, "scout", None, None, None))

    store.refused.add("t-1")
    for _ in range(3):
        with pytest.raises(errors.StoreError):
            await cancel("t-1")
    store.refused.clear()
    assert [await cancel(f"t-{number}") for number in (1, 2, 3)] == [True, True, False]


async def test_one_cancel_that_is_not_stored_keeps_no_other_handler_running(make_agent: MakeAgent) -> None:
    store, begun, canceled = Fragile(), list[str](), list[str]()
    writer = make_agent("writer", store=store)

    @writer.on_task
    async def wait(task: TaskContext) -> None:
        begun.append(task.id)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.append(task.id)
            raise

    planner = make_agent("planner")
    await soon(asyncio.gather(writer.start(), planner.start()))
    names = [f"t-{number}" for number in range(3)]
    for name in names:
        await soon(planner.delegate("writer", "wait", task_id=name))
    await until(lambda: len(begun) == len(names))
    [given, *_] = await store.find(writer._scope.owner, "received")
    assert given.reply_to is not None
    store.refused.add("t-1")
    with pytest.raises(errors.StoreError):
        await soon(writer._received.cancel_all(names, "planner", None, given.reply_to))
    assert sorted(canceled) == ["t-0", "t-2"]


@pytest.mark.rule("ALIMIT-8")
@pytest.mark.parametrize("retention", [None, math.inf, 7200.0])
async def test_a_cancel_without_its_task_is_kept_for_an_hour_also_when_tasks_are_kept_for_ever(
    make_agent: MakeAgent, retention: float | None
) -> None:
    store = MemoryStore()
    writer = make_agent("writer", store=store, retention=retention)
    over = TaskRecord(writer._received.key("t-0", "scout"), "scout", {"task_id": "t-0"}, "0", TaskState.COMPLETED)
    await soon(writer.start())
    await store.add(over)
    assert await soon(writer._received.cancel("t-1", "scout", None, None, None))

    async def kept(seconds: float) -> set[str]:
        """The tasks that are kept after some time."""
        await store.sweep(writer._scope.owner, time.time() + seconds - writer._retention._seconds)
        return {each.task_id for each in await store.find(writer._scope.owner, "received")}

    assert await kept(3590) == {"t-0", "t-1"}
    assert await kept(3610) == {"t-0"}
