"""The thread that uses the database. Changes that are made at the same time share one transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from mqtt_agent.agents.store.database import file_of, leave_to_parent
from mqtt_agent.aio.forks import around_fork, in_child
from mqtt_agent.errors import StoreError

__all__ = ["Writer"]

T = TypeVar("T")

MAX_BATCH = 1000
"""How many jobs one transaction has at most. In a longer transaction, the first job would wait long for its commit."""

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


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_forking = threading.Lock()
_releases: list[Callable[[], None]] = []
_BEFORE_FORK = 10.0
"""Seconds that a fork waits for SQLite. Without the wait, the child could get a lock of SQLite that nobody releases."""


def _before_fork() -> None:
    _forking.acquire()
    _releases.extend(release for writer in list(_writers) if (release := writer.hold(_BEFORE_FORK)) is not None)


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


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        if self.future.done():  # the asyncio task that waited was canceled
            return
        if self.error is None:
            self.future.set_result(self.value)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs jobs on a database, one after the other, in the order in which they were submitted.

    A job's future is done when the job's transaction is committed. While a transaction is written to the disk, further
    jobs gather for the next transaction. This makes many small changes fast. Jobs may come from any thread and event
    loop.

    Args:
        connect: Opens the database. Called in the writer's thread; when it fails, every job fails.
        translate: Makes a :class:`StoreError` from an error of sqlite3.
        watch: Called in the writer's thread when the database is open. Returns a function that raises
            :class:`StoreError` when the changes are not durable, because the file was deleted or replaced.
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
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._busy = threading.Lock()  # held while SQLite works
        self._opened: tuple[sqlite3.Connection, tuple[int, int]] | None = None
        _writers.add(self)
        in_child(self._after_fork)
        self._closing = False
        self._waiting: list[tuple[_Job, _Outcome]] = []
        self._check: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._main, name="mqtt-agent-store", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> asyncio.Future[T]:
        """Run a job.

        Args:
            work: The job, which is called with the connection. Only the job's last SQL statement may change something,
                so that a failed job has changed nothing.
            writes: Whether the job may change something.

        Returns:
            A future of what the job returns.

        Raises:
            StoreError: The writer is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._put(_Job(work, writes, future, loop))
        return future

    async def close(self) -> None:
        """Finish all jobs, close the database and end the thread."""
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        self._end([(_Job(_nothing, False, closed, loop), _Outcome(closed))])
        await closed
        self._thread.join()

    def abandon(self) -> None:
        """Close like :meth:`close`, without waiting."""
        self._end([])

    def _end(self, waiting: list[tuple[_Job, _Outcome]]) -> None:
        with self._lock:
            self._waiting += waiting
            self._closing = True
            self._jobs.put(None)

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._closing:
                raise self._translate(sqlite3.ProgrammingError("it is closed"))
            self._jobs.put(job)

    def _main(self) -> None:
        connection: sqlite3.Connection | None = None
        failure: BaseException | None = None
        with self._busy:
            try:
                connection = self._connect()
                self._opened = connection, file_of(connection)
                self._check = self._watch()
            except BaseException as error:
                failure = error
        try:
            while batch := self._next():
                if connection is None or failure is not None:
                    assert failure is not None
                    _deliver([(job, self._failed(job, failure)) for job in batch])
                else:
                    with self._busy:
                        outcomes = self._run(connection, batch)
                    _deliver(outcomes)
        finally:
            if connection is not None:
                with self._busy:
                    _close(connection)
                    self._opened = None
            _deliver(self._waiting)

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

    def _next(self) -> list[_Job]:
        """Wait for jobs, and return up to 1,000 of them. Returns an empty list when the writer is closed."""
        job = self._jobs.get()
        if job is None:
            return []
        batch = [job]
        while len(batch) < MAX_BATCH:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if job is None:
                self._jobs.put(None)  # put the end mark back for the next call
                break
            batch.append(job)
        return batch

    def _run(self, connection: sqlite3.Connection, batch: list[_Job]) -> list[tuple[_Job, _Outcome]]:
        writes = any(job.writes for job in batch)
        outcomes: list[tuple[_Job, _Outcome]] = []
        try:
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                try:
                    outcomes.append((job, _Outcome(job.future, job.work(connection))))
                except _BAD_VALUES as error:
                    if connection.in_transaction != writes:
                        raise
                    outcomes.append((job, self._failed(job, error, permanent=True)))
            if writes:
                connection.execute("COMMIT")
            self._check()
        except BaseException as error:
            _roll_back(connection)
            return [(job, self._failed(job, error)) for job in batch]
        return outcomes

    def _failed(self, job: _Job, error: BaseException, *, permanent: bool = False) -> _Outcome:
        # A new exception for each job: each asyncio task that waits adds its own traceback.
        translated = self._translate(error)
        translated.permanent = translated.permanent or permanent
        return _Outcome(job.future, error=translated)


def _deliver(outcomes: list[tuple[_Job, _Outcome]]) -> None:
    """Resolve the futures, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for job, outcome in outcomes:
        by_loop.setdefault(job.loop, []).append(outcome)
    for loop, told in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell, told)
        except RuntimeError:  # the loop is closed: nothing waits for the job any more
            continue


def _tell(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


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


def _nothing(connection: sqlite3.Connection) -> None:
    return
