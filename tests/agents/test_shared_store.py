"""Several agents may keep their tasks in one store: none of them touches the tasks of another."""

from __future__ import annotations

import asyncio

from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon

from .conftest import MakeAgent


async def test_an_agent_that_starts_leaves_the_tasks_of_the_others_alone(make_agent: MakeAgent, planner: Agent) -> None:
    store, began, go = MemoryStore(), asyncio.Event(), asyncio.Event()
    done: list[tuple[str, str]] = []
    writer = make_agent("writer", store=store, max_concurrency=1)
    painter = make_agent("painter", store=store)

    @writer.on_task
    async def write(task: TaskContext) -> str:
        began.set()
        await go.wait()
        done.append(("writer", task.id))
        return "written"

    @painter.on_task
    async def paint(task: TaskContext) -> str:
        done.append(("painter", task.id))
        return "painted"

    await soon(writer.start())
    tasks = [await soon(planner.delegate("writer", task_id=f"t-{number}")) for number in (1, 2)]
    await soon(began.wait())
    await soon(painter.start())
    assert await soon(planner.request("painter", task_id="t-3")) == "painted"
    go.set()
    assert [await soon(task.result()) for task in tasks] == ["written", "written"]
    assert done == [("painter", "t-3"), ("writer", "t-1"), ("writer", "t-2")]
