"""What ends the use of a connection on which a database is silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from mqtt_agent.agents.store import silence
from mqtt_agent.agents.store.silence import Silence
from support import until


class Connected:
    """A connection to a server that never answers."""

    def __init__(self) -> None:
        self.ours, self.server = socket.socketpair()
        self.ours.settimeout(20)
        self.server.settimeout(20)

    @property
    def closed(self) -> bool:
        return self.ours.fileno() < 0

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.server.close()


class Lost(Connected):
    """A connection of which the driver finds at the very moment of the look that it is lost."""

    looks = 0

    def fileno(self) -> int:
        self.looks += 1
        raise OSError("the connection is lost")


@pytest.fixture
def connected() -> Iterator[Connected]:
    with contextlib.closing(Connected()) as made:
        yield made


async def test_a_use_that_lasts_too_long_ends_and_one_that_is_over_does_not(connected: Connected) -> None:
    watch = Silence(0.02)
    with watch.ended(connected):
        assert connected.ours.recv(1) == b""
    with contextlib.closing(Connected()) as other:
        with watch.ended(other):
            pass
        await until(lambda: silence._thread is None)  # nothing is used any more
        other.ours.send(b"1")
        assert other.server.recv(1) == b"1"


def test_a_connection_that_is_lost_at_the_moment_of_the_look_keeps_no_other_from_its_end(connected: Connected) -> None:
    with contextlib.closing(Lost()) as lost, Silence(0.02).ended(lost):
        with Silence(0.06).ended(connected):
            assert connected.ours.recv(1) == b""
        assert lost.looks > 0


def test_a_connection_is_used_also_when_no_thread_can_start(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watch = Silence(0.02)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with watch.ended(connected):
            connected.ours.send(b"1")
            assert connected.server.recv(1) == b"1"
    with watch.ended(connected):  # the next use is watched again
        assert connected.ours.recv(1) == b""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The time that the test chooses, in ``now``. Nothing looks by itself."""
    clock = {"now": 0.0}
    monkeypatch.setattr(silence, "_watch", lambda _: None)
    monkeypatch.setattr(time, "monotonic", lambda: clock["now"])
    return clock


def test_a_database_that_goes_on_is_not_silent(connected: Connected, clock: dict[str, float]) -> None:
    watch = Silence(10)
    connected.ours.setblocking(False)
    with watch.ended(connected):
        for clock["now"] in (9.0, 18.0, 27.0):
            watch.look()
            watch.heard()
        with pytest.raises(BlockingIOError):
            connected.ours.recv(1)
        clock["now"] = 38.0
        watch.look()
        assert connected.ours.recv(1) == b""
    watch.heard()  # after the use
    assert not watch.used


def test_one_use_may_have_a_limit_of_its_own(connected: Connected, clock: dict[str, float]) -> None:
    watch = Silence(10)
    connected.ours.setblocking(False)
    with watch.ended(connected, 100):
        clock["now"] = 50.0
        watch.look()
        watch.heard()
        clock["now"] = 149.0
        watch.look()
        with pytest.raises(BlockingIOError):
            connected.ours.recv(1)
