"""A store that is slow or fails costs an executor neither a slot nor a result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

from mqtt_agent import Agent, MemoryStore, TaskContext, TaskState, errors
from mqtt_agent.agents.store import TaskKey, TaskRecord, TaskRole
from mqtt_agent.wire import Task
from support import becomes, soon, until
from typing_extensions import override

from ..conftest import MakeAgent


async def square(task: TaskContext) -> int:
    return task.data**2


def waiting_task(namespace: str) -> TaskRecord:
    task = Task(task_id="t-1", sender="planner", to="writer", data=3)
    content = task.model_dump(by_alias=True, exclude_none=True)
    return TaskRecord(TaskKey(f"{namespace}/writer", "received", "t-1", "planner"), "planner", content, task.digest)


async def test_a_store_that_fails_between_two_tasks_costs_no_slot_and_no_task(
    make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    class Failing(MemoryStore):
        """A store that finds no task at first, then fails to count the tasks."""

        claims = counts = 0

        @override
        async def claim(self, agent: str) -> TaskRecord | None:
            self.claims += 1
            return None if self.claims == 1 else await super().claim(agent)

        @override
        async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
            self.counts += 1
            if self.counts == 2:
                raise errors.StoreError("disk full")
            return await super().count(agent, role, states)

    store = Failing()
    waiting = waiting_task(namespace)
    await store.add(waiting)
    writer = make_agent("writer", store=store, max_concurrency=1)
    writer.on_task(square)
    await soon(writer.start())
    await until(lambda: store.counts == 2)
    assert await soon(planner.request("writer", data=4)) == 16

    async def is_done() -> bool:
        record = await store.get(waiting.key)
        return record is not None and record.result is not None

    await becomes(is_done)


async def test_a_store_that_fails_to_begin_a_task_leaves_no_task_behind(make_agent: MakeAgent, planner: Agent) -> None:
    class Failing(MemoryStore):
        """A store that fails to begin a task, as often as the test says."""

        fails = 0

        @override
        async def claim(self, agent: str) -> TaskRecord | None:
            if self.fails:
                self.fails -= 1
                raise errors.StoreError("disk full")
            return await super().claim(agent)

    go = asyncio.Event()
    store = Failing()
    writer = make_agent("writer", store=store, max_concurrency=1)

    @writer.on_task
    async def handle(task: TaskContext) -> int:
        await go.wait()
        return await square(task)

    await soon(writer.start())
    tasks = [await soon(planner.delegate("writer", data=number)) for number in range(4)]
    await until(lambda: writer._executor.waiting == 3)
    store.fails = 2
    go.set()
    assert [await soon(task.result()) for task in tasks] == [0, 1, 4, 9]


async def test_a_slot_is_free_after_a_restart_that_interrupts_the_search_for_a_task(
    make_agent: MakeAgent, planner: Agent, namespace: str
) -> None:
    class Hanging(MemoryStore):
        """A store whose first search for a task never ends."""

        claims = 0

        @override
        async def claim(self, agent: str) -> TaskRecord | None:
            self.claims += 1
            if self.claims == 1:
                await asyncio.Event().wait()
            return await super().claim(agent)

    store = Hanging()
    await store.add(waiting_task(namespace))
    writer = make_agent("writer", store=store, max_concurrency=1)
    writer.on_task(square)
    await soon(writer.start())
    await until(lambda: store.claims == 1)
    await soon(writer.stop(), 20)
    await soon(writer.start())
    assert await soon(planner.request("writer", data=4)) == 16


async def test_a_task_that_expires_while_its_result_is_being_stored_is_completed(
    make_agent: MakeAgent, planner: Agent
) -> None:
    storing, expired = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        """A store that stores a result only after the task has expired."""

        @override
        async def change(self, key: TaskKey, expected: Any, **changes: Any) -> TaskRecord | None:
            if changes.get("result") is not None:
                storing.set()
                await expired.wait()
            return await super().change(key, expected, **changes)

    writer = make_agent("writer", store=Slow())
    writer.on_task(square)
    await soon(writer.start())
    moment = time.time() + 1
    task = await soon(planner.delegate("writer", data=4, expires_at=datetime.fromtimestamp(moment, timezone.utc)))
    await soon(storing.wait())
    await until(lambda: time.time() > moment + 0.1)
    expired.set()
    assert await soon(task.result()) == 16
