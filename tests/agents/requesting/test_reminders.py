"""When an open task is sent again: at intervals that grow up to a limit."""

from __future__ import annotations

import asyncio
from itertools import accumulate, islice

import pytest
from mqtt_agent.agents.requesting import reminders
from mqtt_agent.agents.requesting.reminders import Reminders
from support import soon


@pytest.mark.rule("ASK-2")
async def test_the_intervals_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminders, "_FIRST", 0.02)
    monkeypatch.setattr(reminders, "_MAX", 0.08)
    loop, times = asyncio.get_running_loop(), list[float]()
    waiting = Reminders()
    began = loop.time()
    waiting.add("t-1", "scout", None, at_once=True)
    for _ in range(12):  # without the limit, the last interval would take 40 s
        assert await soon(waiting.due(10)) == (["t-1"], [])
        times.append(loop.time())
    earliest = accumulate([0.0, 0.02, 0.04, *[0.08] * 9], initial=began)
    for time, soonest in zip(times, islice(earliest, 1, None), strict=True):
        assert time >= soonest - 0.01


async def test_a_dropped_task_is_not_due(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Reminders()
    for task_id in ("t-1", "t-2"):
        waiting.add(task_id, "scout", None, at_once=True)
    waiting.drop("t-1")
    assert await soon(waiting.due(10)) == (["t-2"], [])


async def test_no_more_tasks_are_due_at_once_than_asked_for() -> None:
    waiting = Reminders()
    for number in range(5):
        waiting.add(f"t-{number}", "scout", None, at_once=True)
    first, _ = await soon(waiting.due(3))
    second, _ = await soon(waiting.due(3))
    assert (len(first), len(second)) == (3, 2)
    assert sorted(first + second) == [f"t-{number}" for number in range(5)]


async def test_the_tasks_of_a_peer_that_is_back_are_due_soon_and_no_others() -> None:
    waiting = Reminders()
    waiting.add("t-1", "scout", None)
    waiting.add("t-2", "other", None)
    waiting.hurry("scout")
    assert await soon(waiting.due(10), 5) == (["t-1"], [])


async def test_tasks_that_are_hurried_twice_are_due_once() -> None:
    waiting = Reminders()
    for number in range(3):
        waiting.add(f"t-{number}", "scout", None)
    waiting.hurry("scout")
    waiting.hurry()
    due: list[str] = []
    while len(due) < 3:
        due += (await soon(waiting.due(10), 5))[0]
    assert sorted(due) == ["t-0", "t-1", "t-2"]
    waiting.add("last", "scout", None, at_once=True)
    assert await soon(waiting.due(10)) == (["last"], [])


async def test_a_peer_that_comes_back_again_and_again_fills_no_queue() -> None:
    waiting, names = Reminders(), [f"t-{number}" for number in range(10)]
    for name in names:
        waiting.add(name, "scout", None)
    for _ in range(50):
        waiting.hurry("scout")
        for name in names:
            waiting.add(name, "scout", None, at_once=True)
    assert len(waiting._queue) + len(waiting._hurried) <= 3 * len(names)
    due: list[str] = []
    while len(due) < len(names):
        due += (await soon(waiting.due(10), 5))[0]
    assert sorted(due) == names


async def test_a_task_stays_canceled_when_an_older_record_of_it_is_added_again() -> None:
    waiting = Reminders()
    waiting.add("t-1", "scout", None, canceled=True)
    waiting.add("t-1", "scout", None, at_once=True)
    entry = waiting.get("t-1")
    assert entry is not None
    assert entry.canceled
    assert await soon(waiting.due(10)) == (["t-1"], [])


@pytest.mark.rule("ASK-11")
async def test_an_unknown_task_is_due_at_once_and_then_waits_as_if_it_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminders, "_SOON", 0.05)
    loop, waiting = asyncio.get_running_loop(), Reminders()
    waiting.add("t-1", "scout", None)
    began = loop.time()
    for wait in (0.0, 0.05, 0.05):
        waiting.send_whole("t-1")
        assert await soon(waiting.due(10), 5) == (["t-1"], [])
        assert loop.time() - began >= wait - 0.001
        began = loop.time()
    entry = waiting.get("t-1")
    assert entry is not None
    assert entry.unknown
    waiting.put_off("t-1")
    assert not entry.unknown
    for _ in range(30):  # an executor that says nothing else is not sent the task without end
        waiting.send_whole("t-1")
    assert entry.soon == 20
