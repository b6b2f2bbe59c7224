"""The store in an SQLite file, which keeps tasks when their process dies."""

from __future__ import annotations

import functools
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from typing_extensions import Unpack, override

from mqtt_agent.agents.store.base import ACTIVE, Changes, TaskKey, TaskRecord, TaskRole
from mqtt_agent.agents.store.database import OVER, Synchronous, check_process, connect, translate
from mqtt_agent.agents.store.rows import (
    OUTLINED,
    Row,
    at_position,
    claim_row,
    decide_change,
    encode_changes,
    to_record,
    to_row,
)
from mqtt_agent.agents.store.threaded import ThreadedStore
from mqtt_agent.agents.store.watch import FileWatch
from mqtt_agent.agents.store.worker import Worker
from mqtt_agent.agents.store.writer import SqliteEngine
from mqtt_agent.wire import TaskState

__all__ = ["SqliteStore"]

T = TypeVar("T")

ROLES: tuple[TaskRole, ...] = get_args(TaskRole)
_COLUMNS = ", ".join(Row._fields)
_OUTLINED = ", ".join(OUTLINED)
_NEW = Row._fields[1:]

# Each statement names its index. SQLite must not choose another index from its statistics, and a statement fails when
# it cannot use its index. A search in several states merges the sorted results of one search for each state. The role
# is part of the text: one index has the rows of one role only, and for a bound role SQLite would plan each call again.
INSERT = (
    f"INSERT INTO tasks ({', '.join(_NEW)}) VALUES ({', '.join('?' * len(_NEW))})"
    " ON CONFLICT (agent, role, task_id, requester) DO NOTHING"
)
OLDEST = (
    f"SELECT {_COLUMNS} FROM tasks INDEXED BY tasks_by_state"
    f" WHERE agent = ? AND role = 'received' AND state = '{TaskState.SUBMITTED}' ORDER BY position LIMIT 1"
)
REOPEN = (
    f"UPDATE tasks INDEXED BY tasks_by_state SET state = '{TaskState.SUBMITTED}', updated_at = ?"
    f" WHERE agent = ? AND role = 'received' AND state IN ({', '.join(repr(state.value) for state in sorted(ACTIVE))})"
)
SWEEP = (
    "DELETE FROM tasks WHERE position IN (SELECT position FROM tasks INDEXED BY tasks_over"
    f" WHERE {OVER} AND agent = ? AND updated_at < ? ORDER BY updated_at, position LIMIT ?)"
)


def _sql(role: TaskRole) -> str:
    if role not in ROLES:
        raise ValueError(f"a task has one of the roles {', '.join(ROLES)}, not {role!r}")
    return f"'{role}'"


@functools.lru_cache(8)
def get_sql(role: TaskRole) -> str:
    """The statement for :meth:`TaskStore.get`."""
    return f"SELECT {_COLUMNS} FROM tasks WHERE agent = ? AND role = {_sql(role)} AND task_id = ? AND requester = ?"


@functools.lru_cache(8)
def settle_sql(role: TaskRole) -> str:
    """The statement for :meth:`TaskStore.settle`."""
    return (
        f"UPDATE tasks SET settled = 1 WHERE agent = ? AND role = {_sql(role)} AND task_id = ? AND requester = ?"
        " AND +state = ?"  # +: found by its key
    )


@functools.lru_cache(256)
def update_sql(columns: tuple[str, ...]) -> str:
    """The statement that writes some columns of the row at a position."""
    return f"UPDATE tasks SET {', '.join(f'{column} = ?' for column in columns)} WHERE position = ?"


def find_sql(
    role: TaskRole, states: Iterable[TaskState], *, peer: bool, unsettled: bool, columns: str = _COLUMNS
) -> str:
    """The statement for :meth:`TaskStore.find`, with named parameters."""
    where = f"agent = :agent AND role = {_sql(role)}"
    if peer:
        where += " AND peer = :peer"
    if unsettled:
        where += " AND settled = 0"
    by_peer = "tasks_by_peer" if peer and role == "delegated" else "tasks_by_state"
    each = (
        f"SELECT {columns} FROM tasks INDEXED BY {'tasks_unsettled' if unsettled and state.terminal else by_peer}"
        f" WHERE {where} AND state = '{state}' AND position > :after"
        for state in sorted(states)
    )
    return f"{' UNION ALL '.join(each)} ORDER BY position LIMIT :limit"


def count_sql(role: TaskRole, states: Iterable[TaskState], *, by_peer: bool = False) -> str:
    """The statement for :meth:`TaskStore.count`, or for :meth:`TaskStore.count_by_peer`."""
    listed = ", ".join(f"'{state}'" for state in sorted(states))
    rows = f"FROM tasks INDEXED BY tasks_by_state WHERE agent = ? AND role = {_sql(role)} AND state IN ({listed})"
    return f"SELECT peer, count(*) {rows} GROUP BY peer" if by_peer else f"SELECT count(*) {rows}"


class SqliteStore(ThreadedStore):
    """Keeps tasks in an SQLite file. They survive the death of the process and, by default, a power cut.

    Any number of agents, threads and event loops may share one ``SqliteStore``. Any number of processes may share one
    file, as long as the file is on a local disk. Changes that are made at the same time are written together. A missing
    file is made, but not its folder. Only the user may read the file, because tasks may hold secrets.

    Example:
        >>> async with SqliteStore("tasks.db") as store:  # doctest: +SKIP
        ...     print(await store.count("a2a/v1/writer", "received", OPEN))

    Args:
        path: The path of the file.
        synchronous: ``full``: a change returns when it is on the disk. ``normal``: a change survives the death of the
            process, but a power cut or a crash of the operating system may lose the changes of the last second.
        busy_timeout: How long to wait while another process writes, in seconds.
        check_limit: The size of the largest file that is checked for damage when it is opened, in bytes.

    Attributes:
        path: The absolute path of the file.

    Raises:
        ValueError: ``synchronous`` is neither ``full`` nor ``normal``, or ``path`` is ``":memory:"``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Synchronous = "full",
        busy_timeout: float = 30.0,
        check_limit: int = 256 * 1024 * 1024,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise ValueError(f"synchronous must be 'full' or 'normal', not {synchronous!r}")
        if os.fspath(path) == ":memory:":
            raise ValueError("':memory:' is not a file; use MemoryStore() instead")
        self.path: Path = Path(path).absolute()
        super().__init__(str(self.path), "restore a copy of the file")
        self._connect = partial(
            connect, self.path, synchronous=synchronous, busy_timeout=busy_timeout, check_limit=check_limit
        )
        self._translate = partial(translate, path=self.path)

    def __repr__(self) -> str:
        return f"SqliteStore({str(self.path)!r})"

    @override
    def _make_engine(self) -> SqliteEngine:
        return SqliteEngine(self._connect, self._translate, lambda: FileWatch(self.path).check)

    @override
    def _check_usable(self) -> None:
        check_process(self.path)

    @override
    async def _probe(self, worker: Worker) -> None:
        await worker.submit(_nothing, writes=False)

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        row = to_row(record)

        def work(connection: sqlite3.Connection) -> Row | int:
            cursor = connection.execute(INSERT, row[1:])
            if cursor.rowcount == 1:
                assert cursor.lastrowid is not None
                return cursor.lastrowid
            there = _get(connection, record.key)
            assert there is not None
            return there

        there = await self._run(work, writes=True)
        return (at_position(record, there), True) if isinstance(there, int) else (to_record(there), False)

    @override
    async def get(self, key: TaskKey) -> TaskRecord | None:
        row = await self._run(lambda connection: _get(connection, key), writes=False)
        return row and to_record(row)

    @override
    async def change(
        self,
        key: TaskKey,
        expected: Collection[TaskState],
        *,
        expected_attempt: int | None = None,
        **changes: Unpack[Changes],
    ) -> TaskRecord | None:
        columns = encode_changes(key, changes)
        expected = frozenset(expected)

        def work(connection: sqlite3.Connection) -> Row | None:
            row = _get(connection, key)
            if row is None:
                return None
            decided = decide_change(row, expected, expected_attempt, columns, time.time())
            return None if decided is None else _update(connection, row, decided)

        row = await self._run(work, writes=True)
        return row and to_record(row, changes)

    @override
    async def settle(self, tasks: Sequence[tuple[TaskKey, TaskState]]) -> None:
        await self._run(partial(_settle, tasks), writes=True)

    @override
    async def claim(self, agent: str) -> TaskRecord | None:
        def work(connection: sqlite3.Connection) -> Row | None:
            found = connection.execute(OLDEST, (agent,)).fetchone()
            if found is None:
                return None
            row = Row._make(found)
            return _update(connection, row, claim_row(row, time.time()))

        row = await self._run(work, writes=True)
        return row and to_record(row)

    @override
    async def reopen(self, agent: str) -> int:
        return await self._run(
            lambda connection: connection.execute(REOPEN, (time.time(), agent)).rowcount, writes=True
        )

    @override
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
        statement = find_sql(role, states, peer=peer is not None, unsettled=unsettled)
        values = {"agent": agent, "peer": peer, "after": after, "limit": limit}
        return await self._run(partial(_fetch, statement, values), writes=False)

    @override
    async def _fetch_outlined(
        self, agent: str, role: TaskRole, states: frozenset[TaskState], *, after: int, limit: int
    ) -> Sequence[Sequence[object]]:
        statement = find_sql(role, states, peer=False, unsettled=False, columns=_OUTLINED)
        values = {"agent": agent, "after": after, "limit": limit}
        return await self._run(lambda connection: connection.execute(statement, values).fetchall(), writes=False)

    @override
    async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
        statement = count_sql(role, frozenset(map(TaskState, states)))
        return await self._run(lambda connection: connection.execute(statement, (agent,)).fetchone()[0], writes=False)

    @override
    async def count_by_peer(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> dict[str | None, int]:
        statement = count_sql(role, frozenset(map(TaskState, states)), by_peer=True)
        return await self._run(
            lambda connection: dict(connection.execute(statement, (agent,)).fetchall()), writes=False
        )

    @override
    async def sweep(self, agent: str, before: float, *, limit: int = 1000) -> int:
        if limit <= 0:
            return 0
        values = agent, before, limit
        return await self._run(lambda connection: connection.execute(SWEEP, values).rowcount, writes=True)

    def _run(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> Awaitable[T]:
        return self._submit(work, writes=writes)


def _get(connection: sqlite3.Connection, key: TaskKey) -> Row | None:
    row = connection.execute(get_sql(key.role), (key.agent, key.task_id, key.requester)).fetchone()
    return None if row is None else Row._make(row)


def _fetch(statement: str, values: Mapping[str, object], connection: sqlite3.Connection) -> list[Row]:
    return [Row._make(row) for row in connection.execute(statement, values)]


def _settle(tasks: Sequence[tuple[TaskKey, TaskState]], connection: sqlite3.Connection) -> None:
    for role in ROLES:
        values = [(key.agent, key.task_id, key.requester, state.value) for key, state in tasks if key.role == role]
        if values:
            connection.executemany(settle_sql(role), values)  # the cursor is no result: it must end in this thread


def _update(connection: sqlite3.Connection, row: Row, columns: dict[str, object]) -> Row:
    if columns:
        connection.execute(update_sql(tuple(columns)), (*columns.values(), row.position))
    return row._replace(**columns)


def _nothing(connection: sqlite3.Connection) -> None:
    return
