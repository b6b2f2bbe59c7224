"""Tasks of code that a framework runs again: the same place means the same task, and questions keep their order."""

from __future__ import annotations

from typing import Any

import pytest
from mqtt_agent import Agent, TaskContext, TaskEvent
from mqtt_agent.adapting.replaying import Delegation, ReplayedTask, Request
from mqtt_agent.errors import PeerUnavailable, TaskFailed
from support import soon


def task_at(place: str, *, replayed: bool = True, **options: Any) -> ReplayedTask:
    return ReplayedTask(Delegation("writer", Request("x"), place, replayed, **options), patience=None)


async def question_of(task: ReplayedTask, agent: Agent) -> TaskEvent:
    while not task.over:
        event = await soon(task.next(agent))
        if event is not None and task.asks(event):
            return event
    raise AssertionError("the peer asked nothing")


async def result_of(task: ReplayedTask, agent: Agent) -> Any:
    while not task.over:
        await soon(task.next(agent))
    return await soon(task.result(agent))


async def test_code_that_runs_again_finds_its_task_and_the_question_that_stopped_it(
    writer: Agent, planner: Agent
) -> None:
    runs: list[str] = []

    @writer.on_task
    async def handle(task: TaskContext) -> Any:
        runs.append(task.id)
        await task.artifact("map", "a map")
        return await task.ask("Which city?", {"type": "string"})

    first = task_at("place")
    await soon(first.begin(planner))
    question = first.question_of(await question_of(first, planner))
    assert question == {
        "type": "input-required",
        "peer": "writer",
        "task_id": "place",
        "input_id": question["input_id"],
        "round": 1,
        "prompt": "Which city?",
        "schema": {"type": "string"},
    }
    await soon(first.save_round(planner, question))
    await soon(first.leave(planner))

    again = task_at("place")
    await soon(again.begin(planner))
    assert again.rounds == [question]
    await soon(again.send(planner, "Oslo", question["input_id"]))
    assert await result_of(again, planner) == "Oslo"
    assert runs == ["place"]
    assert {**again.about, "elapsed_ms": None} == {
        "peer": "writer",
        "task_id": "place",
        "attempt": 1,
        "elapsed_ms": None,
        "artifacts": again.handle.response.artifacts if again.handle.response else None,
    }


async def test_after_a_task_without_a_result_the_code_gets_a_new_task_without_the_earlier_questions(
    writer: Agent, planner: Agent
) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        city = await task.ask("Which city?")
        if task.id == "place":
            raise RuntimeError(f"no map of {city}")
        return f"{task.id}: {city}"

    first = task_at("place")
    await soon(first.begin(planner))
    question = first.question_of(await question_of(first, planner))
    await soon(first.save_round(planner, question))
    await soon(first.send(planner, "Oslo", question["input_id"]))
    with pytest.raises(TaskFailed, match="no map of Oslo"):
        await result_of(first, planner)

    second = task_at("place")
    await soon(second.begin(planner))
    assert second.handle.task_id == "place.1"
    assert second.rounds == []
    asked = await question_of(second, planner)
    await soon(second.send(planner, "Rome", asked.data["input_id"]))
    assert await result_of(second, planner) == "place.1: Rome"


async def test_a_task_that_was_given_up_is_not_found_again(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        if task.id == "place":
            await task.ask("Which city?")
        return task.id

    first = task_at("place")
    await soon(first.begin(planner))
    await question_of(first, planner)
    await soon(first.leave(planner, "nobody can answer"))
    again = task_at("place")
    await soon(again.begin(planner))
    assert await result_of(again, planner) == "place.1"


async def test_code_that_is_not_run_again_gives_its_task_without_a_search(writer: Agent, planner: Agent) -> None:
    @writer.on_task
    async def handle(task: TaskContext) -> str:
        return task.id

    once = task_at("place", replayed=False)
    await soon(once.begin(planner))
    assert await result_of(once, planner) == "place"


async def test_a_peer_that_must_be_online_gets_no_task_while_it_is_offline(planner: Agent) -> None:
    wanted = task_at("place", require_online=True)
    with pytest.raises(PeerUnavailable, match="the task was not sent"):
        await soon(wanted.begin(planner))
    assert await planner.delegations() == []
