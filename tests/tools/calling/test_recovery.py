"""The retry decision of a lost call: what becomes of a call when its server, or the connection, was lost."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
from mqtt_agent.tools.calling.recovery import Decision, Situation, decide

LOST_WITH_ITS_SERVER = Situation(
    held=False,
    tool_online=True,
    repeatable=False,
    server_ended=True,
    unconfirmed=False,
    all_answered=True,
    may_answer=True,
    group_left=True,
)
"""The process that had the call has ended, and the other servers of the tool do not have the call."""

TABLE: list[tuple[str, dict[str, bool], Decision]] = [
    ("must not run twice", {}, Decision.FAIL_AS_LOST),
    ("may run twice", {"repeatable": True}, Decision.SEND_AGAIN),
    ("is held by another server", {"held": True}, Decision.KEEP),
    ("is held by another server, and may run twice", {"held": True, "repeatable": True}, Decision.KEEP),
    ("is held by a server that finishes its calls", {"held": True, "tool_online": False}, Decision.KEEP),
    ("has no server left", {"tool_online": False}, Decision.FAIL_AS_LOST),
    ("has no server left, and may run twice", {"tool_online": False, "repeatable": True}, Decision.FAIL_AS_LOST),
    ("was with a server that may still be in its group", {"group_left": False}, Decision.FAIL_AS_LOST),
    (
        "may run twice, and was with a server that may still be in its group",
        {"repeatable": True, "group_left": False},
        Decision.SEND_AGAIN_LATER,
    ),
    (
        "may run twice, and a server did not answer",
        {"repeatable": True, "all_answered": False},
        Decision.SEND_AGAIN_LATER,
    ),
    ("was with a server that only lost its connection", {"server_ended": False}, Decision.SEND_AGAIN),
    (
        "was with a server that only lost its connection and does not answer",
        {"server_ended": False, "all_answered": False},
        Decision.KEEP,
    ),
    ("was not confirmed by the broker", {"server_ended": False, "unconfirmed": True}, Decision.SEND_AGAIN),
    (
        "was not confirmed by the broker, and a server did not answer",
        {"server_ended": False, "unconfirmed": True, "all_answered": False},
        Decision.ASK_AGAIN,
    ),
    (
        "was not confirmed by the broker, and a server never answers",
        {"server_ended": False, "unconfirmed": True, "all_answered": False, "may_answer": False},
        Decision.FAIL_AS_LOST,
    ),
]


@pytest.mark.parametrize(("changes", "decision"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_becomes_of_a_call_that(changes: dict[str, bool], decision: Decision) -> None:
    assert decide(dataclasses.replace(LOST_WITH_ITS_SERVER, **changes)) is decision


def situations() -> Iterator[Situation]:
    names = [field.name for field in dataclasses.fields(Situation)]
    for values in itertools.product((False, True), repeat=len(names)):
        yield Situation(**dict(zip(names, values, strict=True)))


def test_a_call_that_must_not_run_twice_is_sent_again_only_when_no_server_can_have_run_it() -> None:
    for call in situations():
        if not call.repeatable and decide(call) in (Decision.SEND_AGAIN, Decision.SEND_AGAIN_LATER):
            assert call.all_answered, call
            assert not call.held, call
            assert not call.server_ended, call


def test_a_call_that_may_run_twice_is_never_failed_while_its_tool_is_online() -> None:
    for call in situations():
        if call.repeatable and call.tool_online:
            assert decide(call) is not Decision.FAIL_AS_LOST, call


def test_a_call_that_a_server_has_is_left_to_that_server() -> None:
    assert {decide(call) for call in situations() if call.held} == {Decision.KEEP}
