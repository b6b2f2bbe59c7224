"""Task ids: the same task twice is one task, and another task with the id is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, TaskContext
from mqtt_agent.errors import TaskCanceled, TaskRejected, TaskTimeout
from mqtt_agent.wire import TaskEvent
from support import soon, until

from ..conftest import MakeAgent

RUN_ON = [Mosquitto]


class Gate:
    """Handlers that count their runs and wait for the gate."""

    def __init__(self, *agents: Agent) -> None:
        self.ran: list[Any] = []
        self.canceled = 0
        self.open = asyncio.Event()
        for agent in agents:
            agent.on_task(self._handle)

    async def _handle(self, task: TaskContext) -> Any:
        self.ran.append(task.prompt)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        return task.prompt


@pytest.fixture
async def gate(writer: Agent, make_agent: MakeAgent) -> Gate:
    other = make_agent("other")
    made = Gate(writer, other)
    await soon(other.start())
    return made


async def test_an_id_in_use_is_refused_for_other_content_or_another_peer(gate: Gate, planner: Agent) -> None:
    first = await soon(planner.delegate("writer", "one", task_id="x"))
    with pytest.raises(TaskRejected, match="names another task already"):
        await soon(planner.delegate("writer", "two", task_id="x"))
    with pytest.raises(TaskRejected, match="agent writer has the other task") as caught:
        await soon(planner.request("other", "one", task_id="x"))
    assert caught.value.code == "conflict"
    gate.open.set()
    assert await soon(first.result()) == "one"
    assert gate.ran == ["one"]


@pytest.mark.rule("TASK-4")
async def test_the_same_task_shares_the_result_and_each_caller_has_its_own_timeout(gate: Gate, planner: Agent) -> None:
    long = asyncio.ensure_future(planner.request("writer", "one", task_id="x", timeout=20))
    await until(lambda: gate.ran)
    with pytest.raises(TaskTimeout):
        await soon(planner.request("writer", "one", task_id="x", timeout=0.05))
    gate.open.set()
    assert await soon(long) == "one"
    assert gate.ran == ["one"]


@pytest.mark.parametrize("canceled", [0, 1])
async def test_canceling_one_caller_does_not_cancel_the_other(canceled: int, gate: Gate, planner: Agent) -> None:
    callers = [asyncio.ensure_future(planner.request("writer", "one", task_id="x"))]
    await until(lambda: gate.ran)
    callers.append(asyncio.ensure_future(planner.request("writer", "one", task_id="x")))
    await until(lambda: planner._delegations._callers["x"] == 2)  # pyright: ignore[reportPrivateUsage]
    callers[canceled].cancel()
    await asyncio.wait([callers[canceled]])
    gate.open.set()
    assert await soon(callers[1 - canceled]) == "one"
    assert (gate.ran, gate.canceled) == (["one"], 0)


async def test_a_request_that_is_canceled_leaves_a_delegated_task_alone(gate: Gate, planner: Agent) -> None:
    task = await soon(planner.delegate("writer", "one", task_id="x"))
    await until(lambda: gate.ran)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(planner.request("writer", "one", task_id="x"), 0.2)
    gate.open.set()
    assert await soon(task.result()) == "one"


async def test_the_last_caller_that_is_canceled_cancels_the_task(gate: Gate, planner: Agent) -> None:
    callers = [asyncio.ensure_future(planner.request("writer", "one", task_id="x")) for _ in range(2)]
    await until(lambda: gate.ran)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    await until(lambda: gate.canceled)
    with pytest.raises(TaskCanceled):
        await soon((await soon(planner.resume("x"))).result())


async def test_a_request_that_is_canceled_at_once_leaves_nothing_behind(gate: Gate, planner: Agent) -> None:
    delegations = planner._delegations  # pyright: ignore[reportPrivateUsage]
    await soon(planner.peers())
    for ticks in range(3):
        caller = asyncio.ensure_future(planner.request("writer", "one", task_id=f"x-{ticks}"))
        for _ in range(ticks):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
    await until(lambda: not delegations._tasks.handles)  # pyright: ignore[reportPrivateUsage]
    assert not delegations._callers  # pyright: ignore[reportPrivateUsage]


async def test_a_request_that_is_canceled_after_its_result_leaves_nothing_behind(gate: Gate, planner: Agent) -> None:
    delegations = planner._delegations  # pyright: ignore[reportPrivateUsage]
    over, never = asyncio.Event(), asyncio.Event()

    async def on_event(event: TaskEvent) -> None:
        if event.status == "completed":
            over.set()
            await never.wait()

    caller = asyncio.ensure_future(planner.request("writer", "one", on_event=on_event))
    gate.open.set()
    await soon(over.wait())
    await until(lambda: not delegations._tasks.handles)  # pyright: ignore[reportPrivateUsage]
    caller.cancel()
    await asyncio.wait([caller])
    assert not delegations._callers  # pyright: ignore[reportPrivateUsage]
