"""Unread items are kept in bounded memory."""

from __future__ import annotations

from mqtt_agent.aio.latest import Latest

MIB = 1024 * 1024


def test_the_oldest_are_dropped_when_there_are_too_many() -> None:
    items: Latest[int] = Latest()
    for number in range(1003):
        items.put(number)
    assert (len(items), items.dropped, items.take()) == (1000, 3, 3)


def test_the_oldest_are_dropped_when_they_take_too_much_memory_and_the_newest_is_kept() -> None:
    items: Latest[int] = Latest()
    for number in range(5):
        items.put(number, 30 * MIB)
    assert items.take_all() == [3, 4]
    assert items.dropped == 3
    items.put(5, 100 * MIB)
    items.put(6, 1)
    assert items.take_all() == [6]
    items.put(7, 60 * MIB)
    assert (items.take(), len(items)) == (7, 0)
