"""What the stores in a database have in common: one worker thread, and the count of the store's users."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, cast

from typing_extensions import override

from mqtt_agent.agents.store.base import Outline, TaskKey, TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.rows import Row, to_outline, to_record
from mqtt_agent.agents.store.worker import Engine, Worker
from mqtt_agent.aio.forks import in_child
from mqtt_agent.aio.seen import Seen
from mqtt_agent.errors import StoreError
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import TaskState

__all__ = ["ThreadedStore"]

logger: logging.Logger = logger_of(__name__)

_END_OF_KEY = 1 + len(TaskKey._fields)


class ThreadedStore(TaskStore):
    """A store in a database. Its worker thread runs from the first :meth:`open` to the last :meth:`close`.

    Args:
        name: The store's name in messages.
        repair: What a person can do to repair a damaged record, for the log.
    """

    def __init__(self, name: str, repair: str) -> None:
        self._name = name
        self._repair = repair
        self._lock = threading.Lock()
        self._users = 0
        self._told = Seen(1000)  # the damaged rows that were logged
        self._worker: Worker | None = None
        in_child(self._after_fork)

    def _after_fork(self) -> None:
        self._lock, self._users, self._worker = threading.Lock(), 0, None

    @abstractmethod
    def _make_engine(self) -> Engine:
        """Make what the worker thread uses."""

    @abstractmethod
    async def _probe(self, worker: Worker) -> None:
        """Wait until the store can be used."""

    @abstractmethod
    async def _fetch(
        self,
        agent: str,
        role: TaskRole,
        states: frozenset[TaskState],
        *,
        peer: str | None,
        unsettled: bool,
        after: int,
        limit: int,
    ) -> list[Row]:
        """Read rows in the order of their positions; see :meth:`find`."""

    @abstractmethod
    async def _fetch_outlined(
        self, agent: str, role: TaskRole, states: frozenset[TaskState], *, after: int, limit: int
    ) -> Sequence[Sequence[object]]:
        """Read the columns of :data:`OUTLINED` in the order of their positions; see :meth:`outlines`."""

    def _check_usable(self) -> None:
        """Raise :class:`StoreError` if this process can never use the store."""
        return

    @override
    async def open(self) -> None:
        with self._lock:
            self._users += 1
            if self._worker is None:
                self._worker = Worker(self._make_engine())
            worker = self._worker
        try:
            await self._probe(worker)
        except StoreError:
            if last := self._leave():
                await last.close()
            raise
        except BaseException:
            if last := self._leave():
                last.abandon()
            raise

    @override
    async def close(self) -> None:
        if last := self._leave():
            await last.close()

    @override
    async def find(
        self,
        agent: str,
        role: TaskRole,
        *,
        states: Collection[TaskState] | None = None,
        peer: str | None = None,
        unsettled: bool = False,
        after: int = 0,
        limit: int = 1000,
    ) -> list[TaskRecord]:
        wanted = frozenset(TaskState if states is None else map(TaskState, states))
        if not wanted or limit <= 0:
            return []
        records: list[TaskRecord] = []
        while True:
            left = limit - len(records)
            rows = await self._fetch(agent, role, wanted, peer=peer, unsettled=unsettled, after=after, limit=left)
            records += filter(None, map(self._read, rows))
            if len(rows) < left or len(records) == limit:
                return records
            after = rows[-1].position  # damaged rows were left out: the next rows take their place

    @override
    async def outlines(
        self, agent: str, role: TaskRole, states: Collection[TaskState], *, after: int = 0, limit: int = 1000
    ) -> list[Outline]:
        wanted = frozenset(map(TaskState, states))
        if not wanted or limit <= 0:
            return []
        outlines: list[Outline] = []
        while True:
            left = limit - len(outlines)
            rows = await self._fetch_outlined(agent, role, wanted, after=after, limit=left)
            outlines += filter(None, (self._read_outline(agent, role, row) for row in rows))
            if len(rows) < left or len(outlines) == limit:
                return outlines
            after = cast("int", rows[-1][0])  # as in find()

    def _read(self, row: Row) -> TaskRecord | None:
        """The record of a row; None for a damaged row, which is logged once."""
        try:
            return to_record(row)
        except StoreError as error:
            self._log_damaged(row[1:_END_OF_KEY], error)
            return None

    def _read_outline(self, agent: str, role: TaskRole, row: Sequence[object]) -> Outline | None:
        """The outline of a row; None for a damaged row, which is logged once."""
        try:
            return to_outline(agent, role, row)
        except StoreError as error:
            self._log_damaged((agent, role, *row[1:3]), error)
            return None

    def _log_damaged(self, key: tuple[object, ...], error: StoreError) -> None:
        if self._told.add(key):
            logger.error("%s: %s; this task is left out: %s to repair it", self._name, error, self._repair)

    def _submit(self, work: Any, *, writes: bool) -> Awaitable[Any]:
        """Run a job in the worker thread, see :meth:`Worker.submit`."""
        worker = self._worker
        if worker is None:
            self._check_usable()
            raise StoreError(f"task store {self._name} is not open; call open() first, or use 'async with'")
        return worker.submit(work, writes=writes)

    def _leave(self) -> Worker | None:
        """Remove a user. Returns the worker to close when no user is left, else None."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users:
                return None
            last, self._worker = self._worker, None
            return last
