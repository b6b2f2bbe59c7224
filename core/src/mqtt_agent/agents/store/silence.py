"""Ends the use of a connection on which a database has been silent for too long.

PostgreSQL ends statements that take too long, but only as long as its process runs. A server whose disk hangs, or a
proxy whose server is gone, keeps the connection open and never answers. Then the thread that waits would wait for ever,
also when the database is long since there again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from typing import Protocol

from mqtt_agent.aio.forks import in_child

__all__ = ["Silence"]

_LOOK_EVERY = 1.0
"""Seconds between two looks, at most."""


class _Connection(Protocol):
    @property
    def closed(self) -> bool: ...

    def fileno(self) -> int: ...


class Silence:
    """Watches one connection at a time. A thread that all watches of the process share ends it.

    Args:
        limit: For how many seconds the database may be silent while its connection is used.
    """

    def __init__(self, limit: float) -> None:
        self.limit: float = limit
        self._lock = threading.Lock()
        self._use: tuple[float, _Connection] | None = None
        self._patience = limit

    @contextlib.contextmanager
    def ended(self, connection: _Connection, limit: float | None = None) -> Generator[None]:
        """While this context lasts, the connection is used: it is broken off when the database is silent for too long.

        Args:
            connection: The connection.
            limit: Another limit, in seconds, for this use.
        """
        self._patience = self.limit if limit is None else limit
        self._use = time.monotonic() + self._patience, connection
        _watch(self)
        try:
            yield
        finally:
            with self._lock:  # the connection's number may belong to another connection from now on
                self._use = None

    def heard(self) -> None:
        """Note that the database has answered, or has taken what was sent.

        The thread that uses the connection calls this.
        """
        use = self._use
        if use is not None:
            self._use = time.monotonic() + self._patience, use[1]

    @contextlib.contextmanager
    def closing(self) -> Generator[None]:
        """While this context lasts, nothing breaks the connection off."""
        with self._lock:
            yield

    @property
    def used(self) -> bool:
        """Whether the connection is used now."""
        return self._use is not None

    def look(self) -> None:
        """Break the connection off, if the database is silent for too long. Its user then finds that it is lost."""
        use = self._use
        if use is None or time.monotonic() < use[0]:
            return
        with self._lock:
            if self._use is use:
                with contextlib.suppress(Exception):  # the driver may find at this moment that the connection is lost
                    _shut_down(use[1])


def _shut_down(connection: _Connection) -> None:
    if not connection.closed:
        same = socket.socket(fileno=connection.fileno())
        try:
            same.shutdown(socket.SHUT_RDWR)
        finally:
            same.detach()  # the driver closes it


_watched: set[Silence] = set()
"""The watches of connections that are used, or were used until a moment ago."""
_changing = threading.Lock()
_thread: threading.Thread | None = None


def _watch(silence: Silence) -> None:
    global _thread
    with _changing:
        if silence in _watched:
            return
        _watched.add(silence)
        if _thread is None:
            thread = threading.Thread(target=_look, name="mqtt-agent-silence", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there are too many threads, or the program ends: the connection is used all the same
                _watched.discard(silence)
            else:
                _thread = thread


def _look() -> None:
    """Look at the connections, until none is used."""
    global _thread
    while True:
        with _changing:
            _watched.difference_update([each for each in _watched if not each.used])
            watched = list(_watched)
            if not watched:
                _thread = None
                return
        for each in watched:
            each.look()
        time.sleep(min(_LOOK_EVERY, *(each.limit / 4 for each in watched)))


@in_child
def _after_fork() -> None:
    global _watched, _changing, _thread
    _watched, _changing, _thread = set[Silence](), threading.Lock(), None
