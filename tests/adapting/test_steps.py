"""Calls and tasks that are followed in steps: nothing is missed between two steps, and no work is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext, TaskEvent, ToolContext
from mqtt_agent.adapting.steps import CallSteps, TaskSteps
from mqtt_agent.errors import CallCanceled, TaskTimeout, ToolFailed
from support import becomes, soon, until

from tests.tools.conftest import MakeClient, MakeServer


async def partials_of(call: CallSteps, client: Any) -> list[Any]:
    partials: list[Any] = []
    while not call.over:
        partials += await soon(call.advance(client))
    return partials


async def test_a_call_gives_each_partial_and_then_its_result(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def crawl(pages: int, ctx: ToolContext) -> int:
        for page in range(pages):
            await ctx.stream(f"page {page}")
        return pages

    await soon(server.start())
    client = await make_client()
    call = CallSteps("crawl", {"pages": 3}, timeout=10)
    assert await partials_of(call, client) == ["page 0", "page 1", "page 2"]
    assert call.handle.response is not None
    assert call.handle.response.result == 3


async def test_a_step_without_news_ends_after_its_patience(make_server: MakeServer, make_client: MakeClient) -> None:
    server, go_on = make_server(), asyncio.Event()

    @server.tool
    async def wait() -> str:
        await go_on.wait()
        raise RuntimeError("no luck")

    await soon(server.start())
    client = await make_client()
    call = CallSteps("wait", {}, timeout=10, patience=0.01)
    assert await soon(call.advance(client)) == []
    assert not call.over
    go_on.set()
    with pytest.raises(ToolFailed, match="no luck"):
        await partials_of(call, client)


async def test_a_call_that_is_canceled_while_its_first_step_makes_the_call_is_canceled(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, canceled = make_server(), asyncio.Event()

    @server.tool
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.set()
            raise

    await soon(server.start())
    client = await make_client()
    call = CallSteps("hang", {}, timeout=10)
    await call.cancel(client)  # as if the first step had not heard of it
    with pytest.raises(CallCanceled):
        await partials_of(call, client)


async def events_of(task: TaskSteps, agent: Agent) -> list[TaskEvent]:
    events: list[TaskEvent] = []
    while not task.over:
        event = await soon(task.next(agent))
        events += [] if event is None else [event]
    return events


async def test_a_task_gives_each_event_and_then_its_result(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await task.stream("one")
        await task.stream("two")
        return "done"

    task = TaskSteps(lambda agent: agent.delegate("writer", "x"), timeout=10)
    assert not task.under_way
    await soon(task.begin(planner))
    events = await events_of(task, planner)
    assert [event.content for event in events if event.type == "partial"] == ["one", "two"]
    assert await soon(task.result(planner)) == "done"
    assert not task.under_way


async def test_a_question_is_asked_once_also_by_steps_that_take_the_task_up_later(
    writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Which city?")

    first = TaskSteps(lambda agent: agent.delegate("writer", "x", task_id="t-1"), timeout=None)
    await soon(first.begin(planner))
    await until(lambda: first.handle.question)
    await soon(first.leave(planner))
    later = TaskSteps(lambda agent: agent.resume("t-1"), timeout=None)
    await soon(later.begin(planner))
    asked: list[str | None] = []
    while not later.over:
        event = await soon(later.next(planner))
        if event is not None and later.asks(event):
            asked.append(event.content)
            await soon(later.send(planner, "Oslo", event.data["input_id"]))
            assert later.answered(event.data["input_id"])
    assert asked == ["Which city?"]
    assert await soon(later.result(planner)) == "Oslo"


async def test_a_task_past_its_timeout_goes_on(writer: Agent, planner: Agent) -> None:
    go_on = asyncio.Event()

    @writer.on_task
    async def handle(task: TaskContext) -> str:
        await go_on.wait()
        return "done"

    task = TaskSteps(lambda agent: agent.delegate("writer", "x"), timeout=0.05)
    await soon(task.begin(planner))
    with pytest.raises(TaskTimeout, match=r"no result from writer after 0\.05 s; it goes on"):
        await events_of(task, planner)
    await soon(task.leave(planner))
    go_on.set()
    assert await soon(task.result(planner)) == "done"


@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_task_whose_first_step_is_canceled_is_canceled_at_the_peer(
    writer: Agent, planner: Agent, turns: int
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> None:
        await asyncio.Event().wait()

    reasons: list[str] = []

    async def give_up(handle: Any, reason: str) -> None:
        reasons.append(reason)
        await handle.cancel(reason)

    await becomes(lambda: planner.peer("writer"))
    task = TaskSteps(lambda agent: agent.delegate("writer", "x"), timeout=None, give_up=give_up)
    beginning = asyncio.ensure_future(task.begin(planner))
    for _ in range(turns):
        await asyncio.sleep(0)
    beginning.cancel()
    await asyncio.wait([beginning])
    await soon(task.leave(planner, "the caller is gone"))

    async def all_over() -> bool:
        return all(handle.done for handle in await planner.delegations())

    await becomes(all_over)
    given = await planner.delegations()
    assert [str(handle.state) for handle in given] == ["canceled"] * len(given)
    assert len(reasons) == len(given)
