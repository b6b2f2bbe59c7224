"""How a worker uses an SQLite file. Changes that are made at the same time share one transaction."""

from __future__ import annotations

import sqlite3
import threading
import traceback
import weakref
from collections.abc import Callable

from typing_extensions import override

from mqtt_agent.agents.store.database import file_of, leave_to_parent
from mqtt_agent.agents.store.worker import Engine, Job, Outcome
from mqtt_agent.aio.forks import around_fork, in_child
from mqtt_agent.errors import StoreError

__all__ = ["SqliteEngine"]

# These errors mean that the values of one job were bad. The job's statement did nothing, and the other jobs continue.
_BAD_VALUES = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.ProgrammingError,
    ArithmeticError,
    TypeError,
    ValueError,
)


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()
_forking = threading.Lock()
_releases: list[Callable[[], None]] = []
_BEFORE_FORK = 10.0
"""Seconds that a fork waits for SQLite. Without the wait, the child could get a lock of SQLite that nobody releases."""


def _before_fork() -> None:
    _forking.acquire()
    _releases.extend(release for engine in list(_engines) if (release := engine.hold(_BEFORE_FORK)) is not None)


def _after_fork_in_parent() -> None:
    while _releases:
        _releases.pop()()
    _forking.release()


@in_child
def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.Lock()
    _releases.clear()


around_fork(_before_fork, _after_fork_in_parent)


class SqliteEngine(Engine):
    """Runs jobs on an SQLite file.

    The work of a job is a function that is called with the connection. Only the last SQL statement of a work may change
    something, so that a failed job has changed nothing. A work returns no cursor: the end of a cursor in another thread
    resets a statement that this thread may be using for the next job.

    Args:
        connect: Opens the file.
        translate: Makes a :class:`StoreError` from an error of sqlite3.
        watch: Called when the file is open. Returns a function that raises :class:`StoreError` when the changes are not
            durable, because the file was deleted or replaced.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        translate: Callable[[BaseException], StoreError],
        watch: Callable[[], Callable[[], None]],
    ) -> None:
        self._connect = connect
        self._watch = watch
        self._translate = translate
        self._busy = threading.Lock()  # held while SQLite works
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[sqlite3.Connection, tuple[int, int]] | None = None
        self._check: Callable[[], None] = lambda: None
        _engines.add(self)
        in_child(self._after_fork)

    @override
    def open(self) -> None:
        with self._busy:
            self._connection = self._connect()
            self._opened = self._connection, file_of(self._connection)
            self._check = self._watch()

    @override
    def close(self) -> None:
        if self._connection is not None:
            with self._busy:
                _close(self._connection)
                self._opened = None

    @override
    def translate(self, error: BaseException) -> StoreError:
        return self._translate(error)

    @override
    def unusable(self) -> StoreError:
        return self._translate(sqlite3.ProgrammingError("it is closed"))

    def hold(self, timeout: float) -> Callable[[], None] | None:
        """Wait until SQLite is idle, and keep SQLite idle until the returned function is called.

        Args:
            timeout: Seconds to wait.

        Returns:
            The function that lets SQLite work again. None when SQLite was not idle in time.
        """
        return self._busy.release if self._busy.acquire(timeout=timeout) else None

    def _after_fork(self) -> None:
        if self._opened is not None:
            leave_to_parent(self._opened[1], self._opened[0])

    @override
    def run(self, batch: list[Job]) -> list[Outcome]:
        assert self._connection is not None
        with self._busy:
            return self._run(self._connection, batch)

    def _run(self, connection: sqlite3.Connection, batch: list[Job]) -> list[Outcome]:
        writes = any(job.writes for job in batch)
        outcomes: list[Outcome] = []
        try:
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                try:
                    outcomes.append(Outcome(job, job.work(connection)))
                except _BAD_VALUES as error:
                    if connection.in_transaction != writes or "API misuse" in str(error):
                        raise  # not the fault of one job's values: all jobs of the batch may be tried again
                    outcomes.append(self._failed(job, error, permanent=True))
            if writes:
                connection.execute("COMMIT")
            self._check()
        except BaseException as error:
            _roll_back(connection)
            return [self._failed(job, error) for job in batch]
        return outcomes

    def _failed(self, job: Job, error: BaseException, *, permanent: bool = False) -> Outcome:
        translated = self._translate(error)
        translated.permanent = translated.permanent or permanent
        traceback.clear_frames(error.__traceback__)  # a cursor in them must not end in the caller's thread
        return Outcome(job, error=translated)


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:  # SQLite has rolled back already, or rolls back when the file is opened next
        return


def _close(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error:  # all changes are committed: the next connection reads them from the write-ahead log
        pass
    finally:
        connection.close()
