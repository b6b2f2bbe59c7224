"""Messages about tasks that no handle follows, such as after a restart, still change the store of the requester."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from mqtt_agent import Agent, MemoryStore, TaskContext
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.wire import TaskState
from support import becomes, soon, until

from ..conftest import MakeAgent


class Questioner:
    """A handler that asks for a year when the test says so, and returns the answer."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def handle(self, task: TaskContext) -> object:
        self.begun.set()
        await self.go.wait()
        return await task.ask("Which year?")


@pytest.fixture
def questioner() -> Questioner:
    return Questioner()


@pytest.fixture
async def restarted(
    make_agent: MakeAgent, namespace: str, questioner: Questioner
) -> tuple[Agent, Callable[[], Awaitable[TaskRecord]], MemoryStore]:
    """A requester that was restarted while its task ``t-1`` runs, and how to read the task's record in its store."""
    store = MemoryStore()
    writer, planner = make_agent("writer"), make_agent("planner", store=store)
    writer.on_task(questioner.handle)
    await soon(writer.start())
    await soon(planner.start())
    await soon(planner.delegate("writer", task_id="t-1"))
    await soon(questioner.begun.wait())

    async def record() -> TaskRecord:
        found = await store.get(TaskKey(f"{namespace}/planner", "delegated", "t-1"))
        assert found is not None
        return found

    async def works() -> bool:
        return (await record()).state is TaskState.WORKING

    await becomes(works)
    await soon(planner.stop())
    await soon(planner.start())
    assert planner._delegations._tasks.handles == {}
    return planner, record, store


Restarted = tuple[Agent, Callable[[], Awaitable[TaskRecord]], MemoryStore]


@pytest.mark.rule("EVENT-8")
async def test_events_and_the_result_of_a_task_that_nobody_follows_are_stored(
    restarted: Restarted, questioner: Questioner
) -> None:
    planner, record, _ = restarted

    async def asks() -> bool:
        return (await record()).state is TaskState.INPUT_REQUIRED

    questioner.go.set()
    await becomes(asks)
    assert planner._delegations._tasks.handles == {}
    task = await soon(planner.resume("t-1"))
    await until(lambda: task.question is not None)
    await soon(task.send(2024))
    assert await soon(task.result()) == 2024


@pytest.mark.rule("EVENT-8", "ASK-6")
async def test_the_stored_answer_to_the_question_of_a_task_that_nobody_follows_is_sent_again(
    restarted: Restarted, questioner: Questioner, namespace: str
) -> None:
    planner, record, store = restarted
    key = TaskKey(f"{namespace}/planner", "delegated", "t-1")
    # The answer of an earlier process, which was stored and got lost before its executor had it.
    await store.change(key, [TaskState.WORKING], inputs=[{"input_id": "1", "answer": 2024}])
    questioner.go.set()

    async def ended() -> bool:
        return (await record()).state is TaskState.COMPLETED

    await becomes(ended)
    assert planner._delegations._tasks.handles == {}
    result = (await record()).result
    assert result is not None
    assert result["result"] == 2024


async def test_an_answer_about_a_task_that_nobody_follows_puts_the_next_question_off(
    restarted: Restarted, questioner: Questioner
) -> None:
    planner, _, _ = restarted
    await until(lambda: not planner._delegations._resender._unanswered)

    def due() -> float:
        return planner._delegations._tasks.reminders._entries["t-1"].due

    before = due()
    questioner.go.set()
    await until(lambda: due() > before)
