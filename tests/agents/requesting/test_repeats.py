"""How often a task is sent again because of messages that anybody may write."""

from __future__ import annotations

from mqtt_agent.agents.requesting.repeats import Repeats


def times(repeats: Repeats, task_id: str, asked: range) -> list[int]:
    return [now for now in asked if repeats.may(task_id, float(now))]


def test_a_task_may_be_sent_at_once_and_then_at_growing_intervals() -> None:
    assert times(Repeats(), "t", range(1000)) == [0, 5, 15, 35, 75, 155, 315, 615, 915]


def test_each_task_has_its_own_intervals() -> None:
    repeats = Repeats()
    assert [repeats.may(task_id, 0.0) for task_id in ("a", "b", "a", "b")] == [True, True, False, False]


def test_a_requester_that_asks_at_its_own_intervals_is_never_refused() -> None:
    repeats = Repeats()
    assert all(repeats.may("t", now) for now in (0.0, 10.0, 30.0, 70.0, 150.0, 310.0, 610.0, 910.0))


def test_a_task_that_was_left_alone_begins_anew() -> None:
    repeats = Repeats()
    assert times(repeats, "t", range(100)) == [0, 5, 15, 35, 75]
    assert times(repeats, "t", range(1000, 1010)) == [1000, 1005]


def test_any_number_of_tasks_takes_bounded_memory() -> None:
    repeats = Repeats()
    for number in range(20_000):
        assert repeats.may(str(number), 0.0)
    assert len(repeats._tasks) == 10_000  # pyright: ignore[reportPrivateUsage]
