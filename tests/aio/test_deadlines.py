"""One timer of the event loop watches the deadlines of many things."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mqtt_agent.aio.deadlines import Deadlines
from support import until


@dataclass
class Thing:
    name: str
    done: bool = False


class Watched:
    """Deadlines, and the things whose deadlines have come."""

    def __init__(self) -> None:
        self.over: list[tuple[str, float]] = []
        self.deadlines: Deadlines[Thing] = Deadlines(self._on_over)

    def _on_over(self, thing: Thing, timeout: float) -> None:
        thing.done = True
        self.over.append((thing.name, timeout))
        self.deadlines.note_end()

    def add(self, name: str, timeout: float) -> Thing:
        thing = Thing(name)
        self.deadlines.add(asyncio.get_running_loop().time() + timeout, thing, timeout)
        return thing

    def end(self, thing: Thing) -> None:
        thing.done = True
        self.deadlines.note_end()


async def test_deadlines_come_in_their_order_and_not_in_the_order_of_their_start() -> None:
    watched = Watched()
    watched.add("late", 0.03)
    watched.add("early", 0.01)
    watched.add("middle", 0.02)
    await until(lambda: len(watched.over) == 3)
    assert watched.over == [("early", 0.01), ("middle", 0.02), ("late", 0.03)]
    assert len(watched.deadlines) == 0


async def test_what_has_ended_has_no_deadline_any_more() -> None:
    watched = Watched()
    watched.end(watched.add("ended", 0.01))
    watched.add("open", 0.02)
    await until(lambda: watched.over)
    assert watched.over == [("open", 0.02)]


async def test_what_has_ended_is_forgotten_long_before_its_deadline() -> None:
    watched = Watched()
    kept = watched.add("open", 0.05)
    for number in range(1000):
        watched.end(watched.add(str(number), 3600))
    assert len(watched.deadlines) < 250
    assert not kept.done
    await until(lambda: watched.over)
    assert watched.over == [("open", 0.05)]


async def test_nothing_is_watched_after_the_end() -> None:
    watched = Watched()
    watched.add("never", 0.0)
    watched.deadlines.close()
    watched.add("later", 0.01)
    await until(lambda: watched.over)
    assert watched.over == [("later", 0.01)]
