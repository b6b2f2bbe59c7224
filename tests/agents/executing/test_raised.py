"""Whatever a handler of tasks raises ends its task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext
from mqtt_agent.errors import TaskFailed
from support import soon


class PanicException(BaseException):
    """As a panic of Rust code, such as that of Polars, which is no ``Exception``."""


RAISED = [PanicException("out of range"), SystemExit(3), GeneratorExit(), StopAsyncIteration()]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_an_exception_that_is_no_exception_ends_its_task_and_not_the_agent(
    writer: Agent, planner: Agent, error: BaseException
) -> None:
    @writer.on_task("async")
    async def handle(task: TaskContext) -> Any:
        raise error

    @writer.on_task("plain")
    def handle_in_thread(task: Any) -> Any:
        raise error

    writer.on_task("echo")(lambda task: task.prompt)
    for kind in ("async", "plain"):
        with pytest.raises(TaskFailed) as failed:
            await soon(planner.request("writer", type=kind))
        assert failed.value.type == type(error).__name__
    assert await soon(planner.request("writer", "still here", type="echo")) == "still here"


async def test_a_handler_that_awaits_the_stop_of_its_own_agent_is_told_at_once(writer: Agent, planner: Agent) -> None:
    ends: list[asyncio.Task[None]] = []

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        if task.prompt == "now":
            await writer.stop()
        ends.append(asyncio.create_task(writer.stop()))
        return "bye"

    with pytest.raises(TaskFailed, match=r"a handler of agent writer cannot await stop\(\)"):
        await soon(planner.request("writer", "now"))
    assert await soon(planner.request("writer", "soon")) == "bye"
    await soon(ends[0])
