"""The stored answers of a server stay within their limits: number, age and size."""

from __future__ import annotations

import time

import pytest
from mqtt_agent.tools.serving.replay import ReplayStore

REQUEST = ("tool", b"")


def key(number: int) -> tuple[str, str, bool]:
    return "caller", f"{number:03}", False


@pytest.mark.rule("CALL-11")
def test_the_oldest_answers_are_dropped_when_there_are_too_many() -> None:
    store = ReplayStore(max_entries=3, max_age=600)
    for number in range(5):
        store.put(key(number), b"%d" % number, REQUEST)
    assert len(store) == 3
    assert [store.get(key(number)) for number in range(5)] == [None, None] + [(b"%d" % n, REQUEST) for n in (2, 3, 4)]


@pytest.mark.rule("CALL-11")
def test_the_oldest_answers_are_dropped_when_they_are_too_large() -> None:
    size = len("caller") + 3 + 100
    store = ReplayStore(max_entries=1000, max_age=600, max_bytes=3 * size)
    for number in range(100):
        store.put(key(number), b"x" * 100, REQUEST)
        store.put(key(number), b"y" * 100, REQUEST)  # replaces the first answer
    assert len(store) == 3
    assert [number for number in range(100) if store.get(key(number))] == [97, 98, 99]


@pytest.mark.rule("CALL-11")
def test_an_answer_is_dropped_when_its_time_is_over() -> None:
    store = ReplayStore(max_entries=10, max_age=0.05)
    store.put(key(1), b"1", REQUEST)
    ends = time.monotonic() + 0.05
    while time.monotonic() < ends:
        time.sleep(0.01)  # no event announces the end
    assert store.get(key(1)) is None
    assert len(store) == 0
    store.put(key(2), b"2", REQUEST)
    while time.monotonic() < ends + 0.1:
        time.sleep(0.01)
    store.put(key(3), b"3", REQUEST)
    assert len(store) == 1, "an answer whose time is over makes room, also when nobody asks for it"


def test_a_store_without_room_says_before_which_time_calls_may_be_forgotten() -> None:
    store = ReplayStore(max_entries=2, max_age=600)
    began = time.time()
    store.put(key(1), b"1", REQUEST)
    store.put(key(2), b"2", REQUEST)
    assert store.forgotten == 0.0, "nothing is forgotten"
    after = time.time()
    store.put(key(3), b"3", REQUEST)
    assert began - 0.01 <= store.forgotten <= after + 0.01, "the call that was dropped cannot have been sent later"
