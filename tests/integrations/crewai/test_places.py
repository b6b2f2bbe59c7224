"""A killed crew continues: each finished task is recognised by its place in the crew, and is not done again."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mqtt_agent import Agent, TaskHandle
from support import kill, soon, until

from .test_kills import Analyst, Start, analyst, planner, serve, start  # noqa: F401 # pyright: ignore

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

CREWS: dict[str, dict[str, Any]] = {
    "skipped-first": {"kinds": ["plain", "skipped", "plain", "plain"], "waits": [3]},
    "skipped-last": {"kinds": ["plain", "skipped", "plain"], "waits": [2]},
    "all-skipped": {"kinds": ["plain", "skipped", "skipped", "plain", "plain"], "waits": [4]},
    "taken": {"kinds": ["plain", "taken", "skipped", "plain"], "waits": [3]},
    "taken-waits": {"kinds": ["plain", "taken", "plain"], "waits": [1]},
    "async-first": {"kinds": ["async", "async", "plain"], "waits": [0]},
    "async-second": {"kinds": ["async", "async", "plain"], "waits": [1]},
    "async-row": {"kinds": ["plain", "async", "async", "async", "plain"], "waits": [2]},
    "async-skipped": {"kinds": ["async", "async", "skipped", "plain", "plain"], "waits": [4]},
    "last": {"kinds": ["plain", "async", "plain", "taken"], "waits": [3]},
    "hierarchical": {"kinds": ["plain", "skipped", "plain", "plain"], "waits": [3], "process": "hierarchical"},
}


def notes(gate: Path) -> list[str]:
    ledger = gate / "ledger"
    return ledger.read_text().splitlines() if ledger.exists() else []


def finished_before(about: dict[str, Any]) -> set[str]:
    """The artifacts of a crew that waits in its model, when all else that can be done is done."""
    [waits], kinds = about["waits"], about["kinds"]
    finished: set[str] = set()
    for place, kind in enumerate(kinds):
        beside = kinds[waits] == "async" and set(kinds[min(place, waits) : max(place, waits) + 1]) == {"async"}
        if kind != "skipped" and place != waits and (place < waits or beside):
            finished.add(f"task-{place + 1}")
    return finished


async def see_finished(handle: TaskHandle, wanted: set[str]) -> None:
    """Wait for the artifacts of tasks. The crew sends an artifact when the task's output is stored."""
    async for event in handle.events():
        wanted = wanted - {event.content}
        if not wanted:
            return


async def test_the_finished_tasks_of_a_killed_crew_run_once_whatever_is_between_them(
    serve: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    tmp_path: Path,
) -> None:
    host = serve("crew_of_kinds", "--max-concurrency", "20")
    given = {name: await planner.delegate("host", data={"name": name, **about}, wait_online=True)
             for name, about in CREWS.items()}  # fmt: skip
    seen = (see_finished(handle, finished_before(CREWS[name])) for name, handle in given.items())
    await soon(asyncio.gather(*seen), 90)
    wait = {f"{name} begins {about['waits'][0]}" for name, about in CREWS.items()}
    await until(lambda: wait <= set(notes(tmp_path)), 90)
    kill(host)
    (tmp_path / "open").touch()
    serve("crew_of_kinds", "--max-concurrency", "20")
    results = {name: await soon(handle.result(), 90) for name, handle in given.items()}
    assert results == {name: f"result {len(about['kinds']) - 1}" for name, about in CREWS.items()}
    times = Counter(notes(tmp_path))
    again = {f"{name} begins {about['waits'][0]}" for name, about in CREWS.items()}
    assert {what: count for what, count in times.items() if count != (2 if what in again else 1)} == {}
    ended = {what for what in times if " ends " in what}
    assert ended == {
        f"{name} ends {place}"
        for name, about in CREWS.items()
        for place, kind in enumerate(about["kinds"])
        if kind != "skipped"
    }
    made = {name: [each["name"] for each in handle.response.artifacts] for name, handle in given.items()}  # type: ignore
    assert made["skipped-first"] == ["task-1", "task-3", "task-4"]


async def test_a_question_of_a_task_is_never_answered_with_an_answer_for_another_task(
    serve: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    tmp_path: Path,
) -> None:
    async def question_of(handle: TaskHandle, number: int) -> None:
        await until(lambda: handle.question is not None and len(asked(handle)) == number, 90)

    def asked(handle: TaskHandle) -> set[str]:
        if handle.question is not None:
            seen.add(handle.question.data["input_id"])
        return seen

    seen: set[str] = set()
    host = serve("crew_of_kinds")
    handle = await soon(planner.delegate("host", data={"name": "q", "kinds": ["asks", "asks"]}, wait_online=True))
    await question_of(handle, 1)
    await handle.send("another one")
    await question_of(handle, 2)
    await handle.send("")
    await question_of(handle, 3)  # the question of the second task
    kill(host)
    serve("crew_of_kinds")
    await until(lambda: notes(tmp_path).count("q ends 1") == 2, 90)
    # The draft of the second task is the same text as the first draft of the first task, which had the answer
    # "another one".
    await until(lambda: handle.question is not None)
    await handle.send("")
    assert await soon(handle.result(), 30) == "a draft"
    assert Counter(notes(tmp_path)) == {"q begins 0": 2, "q ends 0": 2, "q begins 1": 2, "q ends 1": 2}


@pytest.mark.parametrize("kinds", [["plain", "remote-async"], ["plain", "skipped", "remote"], ["async", "remote"]])
async def test_a_remote_member_gets_the_same_task_after_a_kill_whatever_was_before_it(
    serve: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    analyst: Analyst,  # noqa: F811
    kinds: list[str],
) -> None:
    host = serve("crew_of_kinds")
    handle = await soon(planner.delegate("host", data={"name": "r", "kinds": kinds}, wait_online=True))
    await until(lambda: analyst.given, 90)
    kill(host)
    serve("crew_of_kinds")
    await until(lambda: handle.attempt == 2, 90)
    analyst.may_answer.set()
    assert await soon(handle.result(), 90) == "analysis 1"
    assert len(analyst.given) == 1


async def test_work_that_a_manager_has_delegated_is_not_given_again_after_a_kill(
    serve: Start,  # noqa: F811
    planner: Agent,  # noqa: F811
    analyst: Analyst,  # noqa: F811
) -> None:
    host = serve("crew_that_delegates")
    handle = await soon(planner.delegate("host", data={"topic": "rain"}, wait_online=True))
    await until(lambda: analyst.given, 90)
    kill(host)
    serve("crew_that_delegates")
    analyst.may_answer.set()
    assert await soon(handle.result(), 90) == "analysis 1"
    assert len(analyst.given) == 1
