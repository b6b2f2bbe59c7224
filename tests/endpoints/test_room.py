"""A limited room is shared among senders."""

from __future__ import annotations

from itertools import count, takewhile

from mqtt_agent.endpoints.room import Room


def fill(room: Room, sender: str, *, proven: bool = True) -> int:
    """Take pieces of one until a sender may take no more; returns how many."""
    return sum(1 for _ in takewhile(lambda _: room.take(sender, 1, proven=proven), count()))


def test_one_sender_gets_half_and_each_later_one_a_part_of_what_is_left() -> None:
    room = Room(100)
    assert fill(room, "first") in (50, 51)
    assert fill(room, "second") in (24, 25, 26)
    assert fill(room, "third") > 10
    assert not room.take("fourth", 50, proven=True)


def test_senders_that_nothing_proves_take_nothing_from_the_others_whatever_names_they_choose() -> None:
    room = Room(100)
    while any(room.take(f"stranger-{number}", 1, proven=False) for number in range(200)):
        pass
    assert room.take("friend", 100, proven=True)


def test_what_is_given_back_can_be_taken_again() -> None:
    room = Room(4)
    assert [room.take("a", 2, proven=True), room.take("a", 2, proven=True), room.take("a", 1, proven=True)] == [
        True,
        True,
        False,
    ]
    room.leave("a", 1, proven=True)
    room.leave("a", 3, proven=True)
    room.leave("nobody", 0, proven=True)
    assert room.take("b", 4, proven=True)
