"""The thread that uses a database. Work that is submitted at the same time is run together, as one batch."""

from __future__ import annotations

import asyncio
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from mqtt_agent.errors import StoreError

__all__ = ["Engine", "Job", "Outcome", "Worker"]

MAX_BATCH = 1000
"""How many jobs one batch has at most. In a larger batch, the first job would wait long for its end."""

TOLD_AT_ONCE = 100
"""How many jobs of a batch end in one turn of an event loop. All who wait for them work in the next turn."""


class Job(NamedTuple):
    """Work for the database, and the future of the caller who waits for its result.

    Attributes:
        work: The work, in the form that the engine runs.
        writes: Whether the work may change something.
        future: The caller's future.
        loop: The event loop of the future.
    """

    work: Any
    writes: bool
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        job: The job.
        value: Its result.
        error: Why it failed; None when it has not failed. Each job has an exception of its own, because each asyncio
            task that waits adds its traceback.
    """

    job: Job
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Resolve the future. Call this in the future's event loop."""
        future = self.job.future
        if future.done():  # the asyncio task that waited was canceled
            return
        if self.error is None:
            future.set_result(self.value)
        else:
            future.set_exception(self.error)


class Engine(ABC):
    """What a worker does with one kind of database. All methods but :meth:`hurry` are called in the worker's thread."""

    @abstractmethod
    def open(self) -> None:
        """Connect to the database. When this raises, every job fails with this error."""

    @abstractmethod
    def run(self, batch: list[Job]) -> list[Outcome]:
        """Run jobs in their order, and return when their changes are durable. Never raises an error of the database."""

    @abstractmethod
    def close(self) -> None:
        """Leave the database. Also called when :meth:`open` has failed."""

    @abstractmethod
    def translate(self, error: BaseException) -> StoreError:
        """Make a :class:`StoreError` from an error of the database's driver."""

    @abstractmethod
    def unusable(self) -> StoreError:
        """The error of a job that comes after the end."""

    def hurry(self) -> None:
        """The worker is to end soon: wait for nothing any more. Called in any thread."""
        return


class Worker:
    """Runs jobs on a database in a thread, one batch after the other, in the order in which they were submitted.

    A job's future is done when the job's changes are durable. While a batch is written, further jobs gather for the
    next batch. This makes many small changes fast. Jobs may come from any thread and event loop.

    Args:
        engine: Uses the database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closing = False
        self._waiting: list[Outcome] = []
        self._tellers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Teller] = weakref.WeakKeyDictionary()
        self._thread = threading.Thread(target=self._main, name="mqtt-agent-store", daemon=True)
        self._thread.start()

    def submit(self, work: Any, *, writes: bool) -> asyncio.Future[Any]:
        """Run a job.

        Args:
            work: The work, in the form that the engine runs.
            writes: Whether the work may change something.

        Returns:
            A future of the work's result.

        Raises:
            StoreError: The worker is closed.
        """
        job = _new_job(work, writes=writes)
        with self._lock:
            if self._closing:
                raise self._engine.unusable()
            self._jobs.put(job)
        return job.future

    async def close(self) -> None:
        """Finish all jobs, leave the database and end the thread."""
        end = _new_job(None, writes=False)
        self._end([Outcome(end)])
        await end.future
        self._thread.join()

    def abandon(self) -> None:
        """Close like :meth:`close`, without waiting."""
        self._end([])

    def _end(self, waiting: list[Outcome]) -> None:
        with self._lock:
            self._waiting += waiting
            self._closing = True
            self._jobs.put(None)
        self._engine.hurry()

    def _main(self) -> None:
        failure: BaseException | None = None
        try:
            self._engine.open()
        except BaseException as error:
            failure = error
        try:
            while batch := self._next():
                self._deliver(self._run(batch, failure))
        finally:
            self._engine.close()
            self._deliver(self._waiting)

    def _deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Resolve the futures, waking each event loop once."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for outcome in outcomes:
            by_loop.setdefault(outcome.job.loop, []).append(outcome)
        for loop, told in by_loop.items():
            teller = self._tellers.get(loop)
            if teller is None:
                teller = self._tellers[loop] = _Teller(loop)
            try:
                loop.call_soon_threadsafe(teller.tell, told)
            except RuntimeError:  # the loop is closed: nothing waits for the job any more
                continue

    def _run(self, batch: list[Job], failure: BaseException | None) -> Iterable[Outcome]:
        if failure is None:
            try:
                return self._engine.run(batch)
            except BaseException as error:  # whoever waits for a job must get an answer, also for a fault of our own
                failure = error
        return [Outcome(job, error=self._engine.translate(failure)) for job in batch]

    def _next(self) -> list[Job]:
        """Wait for jobs, and return up to 1,000 of them. Returns an empty list when the worker is closed."""
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


def _new_job(work: Any, *, writes: bool) -> Job:
    loop = asyncio.get_running_loop()
    return Job(work, writes, loop.create_future(), loop)


class _Teller:
    """Resolves the futures of one event loop, in order, and only some of them in each turn of the loop.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._left: deque[Outcome] = deque()
        self._has_turn = False  # whether the next turn of the loop goes on here

    def tell(self, outcomes: list[Outcome]) -> None:
        """Resolve the futures of these outcomes, after those of earlier calls. Call this in the event loop."""
        self._left.extend(outcomes)
        if not self._has_turn:
            self._tell_some()

    def _tell_some(self) -> None:
        some = min(len(self._left), TOLD_AT_ONCE)
        for _ in range(some):
            self._left.popleft().tell()
        loop = self._loop()
        # Another batch may end in this turn. So this has the next turn too, unless it has told of a single job only.
        self._has_turn = some > 1 and loop is not None
        if self._has_turn and loop is not None:
            loop.call_soon(self._tell_some)
