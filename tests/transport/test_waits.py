"""How long a connection waits before each attempt to connect again."""

from __future__ import annotations

import pytest
from mqtt_agent.endpoints.retained import PATIENCE
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, ConnectionRefused, TokenNotIssued
from mqtt_agent.transport.waits import ReconnectWaits

UNREACHABLE = BrokerUnreachable("no answer")
REFUSED = ConnectionRefused("not authorized", reason_code=0x87)
LOST = ConnectionLost("broke while the client subscribed")


def waits_after_breaks(waits: ReconnectWaits, count: int) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        waits.note_break(1)
        found.append(waits.next_wait())
    return found


def waits_after_failures(waits: ReconnectWaits, count: int, *errors: Exception) -> list[float]:
    found: list[float] = []
    for _ in range(count):
        waits.note_failure(errors)
        found.append(waits.next_wait())
    return found


@pytest.mark.parametrize("will_delay", [1, 2, 5, 60])
def test_however_often_a_link_breaks_the_wait_is_shorter_than_the_will_delay(will_delay: int) -> None:
    waits = ReconnectWaits(will_delay)
    found = waits_after_breaks(waits, 50)
    assert found[0] <= 0.2
    assert max(found) <= will_delay / 2
    assert min(found[10:]) >= min(5, will_delay / 2) / 2, "a broker has few connects even if the client is to blame"


def test_without_a_will_delay_the_waits_after_breaks_grow_up_to_five_seconds() -> None:
    assert 2.5 <= max(waits_after_breaks(ReconnectWaits(0), 50)) <= 5


def test_after_a_link_that_lasted_the_first_wait_is_short_again() -> None:
    waits = ReconnectWaits(60)
    waits_after_breaks(waits, 10)
    waits.note_break(6)
    assert waits.next_wait() <= 0.2


@pytest.mark.parametrize("errors", [[LOST], [UNREACHABLE, LOST]])
def test_a_link_that_breaks_while_the_client_subscribes_counts_as_a_break(errors: list[Exception]) -> None:
    assert max(waits_after_failures(ReconnectWaits(5), 50, *errors)) <= 2.5


def test_a_client_finds_a_broker_that_was_away_for_long_before_its_peers_give_it_up() -> None:
    for errors in [UNREACHABLE], [UNREACHABLE, REFUSED]:
        found = waits_after_failures(ReconnectWaits(5), 50, *errors)
        assert found[0] <= 0.2
        assert 5 <= max(found) <= PATIENCE - 5  # the attempt itself takes time too


def test_a_client_that_is_refused_waits_for_up_to_half_a_minute() -> None:
    for error in REFUSED, TokenNotIssued("no token"):
        found = waits_after_failures(ReconnectWaits(5), 50, error)
        assert found[0] <= 0.2
        assert 15 <= max(found) <= 30


def test_the_waits_of_an_outage_do_not_go_on_in_the_next_one() -> None:
    waits = ReconnectWaits(5)
    for error in UNREACHABLE, REFUSED:
        waits_after_failures(waits, 10, error)
        assert waits_after_breaks(waits, 1)[0] <= 0.4
        assert waits_after_failures(waits, 1, error)[0] <= 0.2
