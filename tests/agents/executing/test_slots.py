"""The end of a task needs no slot: a task expires or is canceled at once while another handler has the only slot."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from mqtt_agent import Agent, MemoryStore, TaskContext, TaskHandle, TaskState, errors
from mqtt_agent.adapting.apart import run_apart
from support import becomes, soon, until

from ..conftest import MakeAgent


class Writer:
    """An agent with one slot. Its handlers of type ``hold`` keep the slot, and the others ask a question."""

    def __init__(self, agent: Agent, planner: Agent) -> None:
        self.agent = agent
        self.go_on = asyncio.Event()
        self.ended: dict[str, str] = {}  # the exception with which a handler's question ended, by task id
        self.most = 0
        self._planner = planner
        self._running = 0
        agent.on_task("hold")(self._hold)
        agent.on_task("ask")(self._ask)
        agent.on_task("ask in a thread")(self._ask_in_thread)

    async def _hold(self, task: TaskContext) -> str:
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await self.go_on.wait()
        finally:
            self._running -= 1
        return "held"

    async def _ask(self, task: TaskContext) -> Any:
        try:
            return await task.ask("Well?")
        except BaseException as error:
            self.ended[task.id] = type(error).__name__
            raise

    def _ask_in_thread(self, task: Any) -> Any:
        try:
            return task.ask("Well?")
        except BaseException as error:
            self.ended[task.id] = type(error).__name__
            raise

    async def give(self, type: str, seconds: float | None = None) -> TaskHandle:
        """Give a task that expires after a time, or never."""
        expires_at = None if seconds is None else datetime.now(timezone.utc) + timedelta(seconds=seconds)
        return await soon(self._planner.delegate("writer", type=type, expires_at=expires_at))

    async def is_in(self, task: TaskHandle, state: TaskState) -> None:
        """Wait until a task is in a state at the writer."""

        async def reached() -> bool:
            records = await self.agent.store.find(f"{self.agent.namespace}/writer", "received", states=(state,))
            return any(record.task_id == task.task_id for record in records)

        await becomes(reached)

    async def has_one_slot(self) -> None:
        """Check that the agent has one slot, and not more or less."""
        self.go_on.clear()
        tasks = [await self.give("hold") for _ in range(3)]
        await self.is_in(tasks[0], TaskState.WORKING)
        self.go_on.set()
        for task in tasks:
            assert await soon(task.result()) == "held"
        assert self.most == 1


@pytest.fixture
async def writer(make_agent: MakeAgent, planner: Agent, namespace: str) -> AsyncIterator[Writer]:
    made = Writer(make_agent("writer", max_concurrency=1, store=MemoryStore()), planner)
    await soon(made.agent.start())
    yield made
    made.go_on.set()


@pytest.fixture(params=["ask", "ask in a thread"])
def ask(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_a_task_that_waits_for_an_answer_expires_without_a_slot(writer: Writer, ask: str) -> None:
    asking = await writer.give(ask, 1.5)
    await writer.is_in(asking, TaskState.INPUT_REQUIRED)
    holding = await writer.give("hold")
    await writer.is_in(asking, TaskState.FAILED)
    with pytest.raises(errors.TaskExpired, match="not finished by"):
        await soon(asking.result())
    await until(lambda: asking.task_id in writer.ended)
    writer.go_on.set()
    assert await soon(holding.result()) == "held"
    await writer.has_one_slot()


async def test_a_task_that_waits_for_an_answer_is_canceled_without_a_slot(writer: Writer, ask: str) -> None:
    asking = await writer.give(ask)
    await writer.is_in(asking, TaskState.INPUT_REQUIRED)
    holding = await writer.give("hold")
    await writer.is_in(holding, TaskState.WORKING)
    await soon(asking.cancel())
    with pytest.raises(errors.TaskCanceled):
        await soon(asking.result())
    await until(lambda: asking.task_id in writer.ended)
    if ask != "ask":
        assert writer.ended[asking.task_id] == "TaskCanceled"
    writer.go_on.set()
    assert await soon(holding.result()) == "held"
    await writer.has_one_slot()


@pytest.mark.parametrize("how", ["expires", "is canceled"])
async def test_a_task_that_was_answered_and_waits_for_its_slot_ends_without_a_slot(
    writer: Writer, ask: str, how: str
) -> None:
    asking = await writer.give(ask, 1.5 if how == "expires" else None)
    await until(lambda: asking.question)
    holding = await writer.give("hold")
    await writer.is_in(holding, TaskState.WORKING)
    await soon(asking.send("yes"))
    if how == "is canceled":
        await soon(asking.cancel())
    await writer.is_in(asking, TaskState.FAILED if how == "expires" else TaskState.CANCELED)
    await until(lambda: asking.task_id in writer.ended)
    writer.go_on.set()
    assert await soon(holding.result()) == "held"
    await writer.has_one_slot()


async def test_a_stopped_agent_ends_the_handlers_that_wait_for_an_answer(writer: Writer, ask: str) -> None:
    asking = await writer.give(ask)
    await writer.is_in(asking, TaskState.INPUT_REQUIRED)
    await soon(writer.agent.stop())
    await until(lambda: asking.task_id in writer.ended)
    await soon(writer.agent.start())
    await soon(asking.send("yes"))
    assert await soon(asking.result()) == "yes"
    await writer.has_one_slot()


@pytest.mark.rule("TASK-12")
@pytest.mark.parametrize("life", ["first", "second"])
async def test_a_task_that_waits_for_a_slot_expires_without_a_slot(writer: Writer, life: str) -> None:
    holding = await writer.give("hold")
    await writer.is_in(holding, TaskState.WORKING)
    waiting = await writer.give("hold", 2)
    following = await writer.give("hold")
    await writer.is_in(following, TaskState.SUBMITTED)
    if life == "second":
        await soon(writer.agent.stop())
        await soon(writer.agent.start())
    await writer.is_in(waiting, TaskState.FAILED)
    with pytest.raises(errors.TaskExpired, match="not finished by"):
        await soon(waiting.result())
    writer.go_on.set()
    assert await soon(asyncio.gather(holding.result(), following.result())) == ["held", "held"]
    assert writer.most == 1
    await writer.has_one_slot()


async def test_a_framework_that_blocks_keeps_its_slot_after_a_cancel(writer: Writer) -> None:
    go_on, begun, told = threading.Event(), threading.Event(), asyncio.Event()

    async def block() -> None:
        begun.set()
        go_on.wait(20)

    @writer.agent.on_task("framework")
    async def framework(task: TaskContext) -> None:
        try:
            await run_apart(block, "framework")
        finally:
            told.set()

    blocking = await writer.give("framework")
    await until(begun.is_set)
    await soon(blocking.cancel())
    await soon(told.wait())
    with pytest.raises(errors.TaskCanceled):
        await soon(blocking.result())
    waiting = await writer.give("hold")
    await writer.is_in(waiting, TaskState.SUBMITTED)
    go_on.set()
    await writer.is_in(waiting, TaskState.WORKING)
    writer.go_on.set()
    await writer.has_one_slot()


async def test_threads_that_end_late_keep_their_slots(writer: Writer) -> None:
    go_on, begun = threading.Event(), threading.Event()

    @writer.agent.on_task("ask and clean up")
    def ask_and_clean_up(task: Any) -> None:
        try:
            task.ask("Well?")
        finally:
            begun.set()
            go_on.wait(20)

    asking = await writer.give("ask and clean up")
    await writer.is_in(asking, TaskState.INPUT_REQUIRED)
    await soon(asking.cancel())
    await until(begun.is_set)
    waiting = await writer.give("hold")
    await writer.is_in(waiting, TaskState.SUBMITTED)
    go_on.set()
    await writer.is_in(waiting, TaskState.WORKING)
    writer.go_on.set()
    await writer.has_one_slot()
