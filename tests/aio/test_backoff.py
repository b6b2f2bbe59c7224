"""The waits between two attempts grow, up to a limit, and are spread."""

from __future__ import annotations

from mqtt_agent.aio.backoff import Backoff


def test_each_wait_is_up_to_twice_as_long_as_the_last_one_until_the_longest() -> None:
    backoff = Backoff(1, 10)
    for longest in (1, 2, 4, 8, 10, 10, 10):
        assert longest / 2 <= backoff.next_wait() <= longest
    backoff.reset()
    assert 0.5 <= backoff.next_wait() <= 1


def test_the_waits_of_many_clients_differ() -> None:
    assert len({Backoff(1, 10).next_wait() for _ in range(20)}) > 10


def test_no_number_of_attempts_is_too_high() -> None:
    backoff = Backoff(0.2, 30)
    assert all(backoff.next_wait() <= 30 for _ in range(5000))
