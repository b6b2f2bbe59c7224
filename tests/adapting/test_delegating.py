"""A task that is given for a framework: whenever the framework cancels its side, the peer's work ends too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from mqtt_agent import Agent, TaskContext, TaskHandle, TaskState
from mqtt_agent.adapting.delegating import begun, check_online, delegated, while_online
from mqtt_agent.errors import PeerUnavailable, TaskFailed, TaskTimeout
from support import soon, until

from tests.agents.conftest import MakeAgent


class Work:
    """A handler that runs until it is canceled or let go."""

    def __init__(self, agent: Agent) -> None:
        self.begun = asyncio.Event()
        self.canceled = asyncio.Event()
        self.let_go = asyncio.Event()
        agent.on_task(self.handle)

    async def handle(self, task: TaskContext) -> str:
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.canceled.set()
            raise
        return "done"


async def follow(handle: TaskHandle) -> object:
    return await handle.result()


async def test_a_task_is_followed_to_its_result(writer: Agent, planner: Agent) -> None:
    work = Work(writer)
    giving = asyncio.ensure_future(delegated(lambda: planner.delegate("writer", "x"), follow))
    await soon(work.begun.wait())
    work.let_go.set()
    assert await soon(giving) == "done"
    assert not work.canceled.is_set()


async def test_what_the_follower_raises_reaches_the_caller_and_a_task_that_is_over_is_left_alone(
    writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def fail(task: TaskContext) -> None:
        raise TaskFailed("no paper", code="E_PAPER")

    with pytest.raises(TaskFailed, match="no paper"):
        await soon(delegated(lambda: planner.delegate("writer", "x"), follow))


async def test_a_caller_that_is_canceled_while_it_follows_cancels_the_peers_work(writer: Agent, planner: Agent) -> None:
    work = Work(writer)
    giving = asyncio.ensure_future(delegated(lambda: planner.delegate("writer", "x"), follow))
    await soon(work.begun.wait())
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(giving)
    await soon(work.canceled.wait())


@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_caller_that_is_canceled_at_any_step_of_giving_leaves_no_work_behind(
    make_agent: MakeAgent, steps: int
) -> None:
    writer, planner = make_agent("writer"), make_agent("planner")
    work = Work(writer)
    await soon(writer.start())
    await soon(planner.start())
    given: list[TaskHandle] = []

    async def give() -> TaskHandle:
        given.append(await planner.delegate("writer", "x", wait_online=True))
        return given[0]

    giving = asyncio.ensure_future(delegated(give, follow))
    for _ in range(steps):
        await asyncio.sleep(0)
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(giving)
    await until(lambda: given)
    with pytest.raises(Exception, match="cancel"):
        await soon(given[0].result())
    assert given[0].state is TaskState.CANCELED
    await until(lambda: writer.running_tasks == 0)
    assert work.begun.is_set() == work.canceled.is_set()


async def test_a_caller_that_is_canceled_while_the_task_is_stored_cancels_the_task(
    writer: Agent, planner: Agent
) -> None:
    work, held, go = Work(writer), asyncio.Event(), asyncio.Event()

    async def give() -> TaskHandle:
        handle = await planner.delegate("writer", "x")
        held.set()
        await go.wait()  # the task is at its peer, and its caller has not heard of the task yet
        return handle

    giving = asyncio.ensure_future(begun(give))
    await soon(held.wait())
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(giving)
    await soon(work.begun.wait())
    assert not work.canceled.is_set()
    go.set()
    await soon(work.canceled.wait())


async def test_a_task_past_its_timeout_is_canceled(writer: Agent, planner: Agent) -> None:
    work = Work(writer)
    handles: list[TaskHandle] = []

    async def follow_when_begun(handle: TaskHandle) -> object:
        handles.append(handle)
        return await handle.result()

    with pytest.raises(TaskTimeout, match=r"writer has not answered within 0\.2 s; the task is canceled") as raised:
        await soon(delegated(lambda: planner.delegate("writer", "x"), follow_when_begun, timeout=0.2))
    assert raised.value.task_id == handles[0].task_id
    await until(lambda: handles[0].done)
    assert handles[0].state is TaskState.CANCELED
    assert work.begun.is_set() == work.canceled.is_set()


async def test_another_way_to_give_up_can_leave_the_task_to_the_next_attempt(writer: Agent, planner: Agent) -> None:
    work, left = Work(writer), asyncio.Event()

    async def leave(handle: TaskHandle) -> None:
        left.set()

    giving = asyncio.ensure_future(delegated(lambda: planner.delegate("writer", "x"), follow, give_up=leave))
    await soon(work.begun.wait())
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(giving)
    await soon(left.wait())
    work.let_go.set()
    await until(lambda: writer.running_tasks == 0)
    assert not work.canceled.is_set()


async def test_a_task_that_cannot_be_given_is_an_error_of_the_caller(planner: Agent) -> None:
    with pytest.raises(PeerUnavailable):
        await soon(delegated(lambda: planner.delegate("nobody", "x"), follow))


@pytest.mark.parametrize(("state", "words"), [("never", "has never been seen"), ("stopped", "is offline")])
async def test_a_peer_that_is_away_is_told_with_advice(
    make_agent: MakeAgent, planner: Agent, state: str, words: str
) -> None:
    if state == "stopped":
        writer = make_agent("writer")
        Work(writer)
        await soon(writer.start())
        await soon(check_online(planner, "writer", "start it"))
        await soon(writer.stop())
    check: Callable[[], Awaitable[None]] = lambda: check_online(planner, "writer", "start it")  # noqa: E731

    async def becomes_away() -> None:
        while True:
            await check()
            await asyncio.sleep(0)

    with pytest.raises(PeerUnavailable, match=f"agent 'writer' {words} in namespace .*; start it"):
        await soon(becomes_away())


async def test_work_of_a_peer_that_comes_back_in_time_goes_on(make_agent: MakeAgent, planner: Agent) -> None:
    writer = make_agent("writer", drain_timeout=0)
    work = Work(writer)
    await soon(writer.start())
    handle = await soon(planner.delegate("writer", "x"))
    waiting = asyncio.ensure_future(while_online(planner, handle, handle.result(), grace=60))
    await soon(work.begun.wait())
    await soon(writer.stop())
    work.let_go.set()
    await soon(writer.start())
    assert await soon(waiting) == "done"


async def test_a_peer_that_stays_away_longer_than_the_grace_is_unavailable(
    make_agent: MakeAgent, planner: Agent
) -> None:
    writer = make_agent("writer", drain_timeout=0)
    work = Work(writer)
    await soon(writer.start())
    handle = await soon(planner.delegate("writer", "x"))
    ended = asyncio.Event()

    async def read() -> object:
        try:
            return await handle.result()
        finally:
            ended.set()

    waiting = asyncio.ensure_future(while_online(planner, handle, read(), grace=0.2))
    await soon(work.begun.wait())
    await soon(writer.stop())
    with pytest.raises(PeerUnavailable, match=r"'writer' went offline and has not come back within 0\.2 s") as raised:
        await soon(waiting)
    assert (raised.value.task_id, raised.value.peer) == (handle.task_id, "writer")
    await soon(ended.wait())


async def test_what_the_work_raises_reaches_the_caller_while_the_peer_is_online(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def fail(task: TaskContext) -> None:
        raise TaskFailed("no paper")

    handle = await soon(planner.delegate("writer", "x"))
    with pytest.raises(TaskFailed, match="no paper"):
        await soon(while_online(planner, handle, handle.result(), grace=60))
