"""The store in a PostgreSQL database, which keeps tasks when their process or its machine dies."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack, override

from mqtt_agent.agents.store.base import ACTIVE, RESERVED_SEQS, Changes, TaskKey, TaskRecord, TaskRole
from mqtt_agent.agents.store.postgres_schema import OVER
from mqtt_agent.agents.store.postgres_sets import (
    SETTLE_SET,
    Part,
    Statement,
    change_set_sql,
    insert_set_sql,
    insert_sql,
)
from mqtt_agent.agents.store.rows import (
    FLAGS,
    NOTHING_WRITTEN,
    OUTLINED,
    Row,
    at_position,
    changeable_states,
    encode_changes,
    to_record,
    to_row,
)
from mqtt_agent.agents.store.threaded import ThreadedStore
from mqtt_agent.agents.store.worker import Engine, Worker
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

if TYPE_CHECKING:
    from mqtt_agent.agents.store import postgres_engine as engines

__all__ = ["PostgresStore"]

COLUMNS = ", ".join(Row._fields)
_NEW = Row._fields[1:]
KEY = " AND ".join(f"{name} = %s" for name in TaskKey._fields)
_NAMES = frozenset(("agent", "role", "task_id", "requester", "peer", "digest", "reply_to"))
_NAMED = [name in _NAMES for name in Row._fields]
_OUTLINED, _NAMED_IN_OUTLINE = ", ".join(OUTLINED), [name in _NAMES for name in OUTLINED]

GET = f"SELECT {COLUMNS} FROM {{schema}}.tasks WHERE {KEY}"
_SUBMITTED = f"FROM {{schema}}.tasks WHERE agent = %(agent)s AND role = 'received' AND state = '{TaskState.SUBMITTED}'"
CLAIM = (
    f"WITH oldest AS MATERIALIZED (SELECT ctid AS place {_SUBMITTED} AND position >= %(first)s"
    " ORDER BY position LIMIT %(count)s FOR UPDATE SKIP LOCKED)"
    f" UPDATE {{schema}}.tasks SET state = '{TaskState.WORKING}', attempt = attempt + 1, seq = seq + {RESERVED_SEQS},"
    f" updated_at = %(now)s WHERE ctid = ANY (ARRAY (SELECT place FROM oldest)) RETURNING {COLUMNS}"
)
ANY_SUBMITTED = f"SELECT EXISTS (SELECT 1 {_SUBMITTED})"
REOPEN = (
    f"UPDATE {{schema}}.tasks SET state = '{TaskState.SUBMITTED}', updated_at = %s"
    " WHERE agent = %s AND role = 'received'"
    f" AND state IN ({', '.join(repr(state.value) for state in sorted(ACTIVE))})"
)
COUNT_MEMBERS = "SELECT count(*) FROM {schema}.members WHERE agent = %(agent)s AND lease_until > clock_timestamp()"
COUNT = "SELECT count(*) FROM {schema}.tasks WHERE agent = %s AND role = %s AND state = ANY(%s)"
COUNT_BY_PEER = f"{COUNT.replace('count(*)', 'peer, count(*)')} GROUP BY peer"
SETTLE = f"UPDATE {{schema}}.tasks SET settled = true WHERE {KEY} AND (state = %s) IS TRUE"
SWEEP = (
    "DELETE FROM {schema}.tasks WHERE ctid = ANY (ARRAY (SELECT ctid FROM {schema}.tasks"
    f" WHERE {OVER} AND agent = %s AND updated_at < %s ORDER BY updated_at, position LIMIT %s FOR UPDATE))"
)
_WHILE_LOCKED = 0.01
"""Seconds until the next attempt to claim a task, when another process is changing every submitted task."""
_WHOLE_EVERY = 1.0
"""Seconds between two searches for submitted tasks from the beginning."""
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@lru_cache(256)
def change_sql(columns: tuple[str, ...], *, attempt: bool) -> str:
    """The statement for :meth:`TaskStore.change`. ``updated_at`` changes only with the state."""
    # IS TRUE keeps PostgreSQL from a search by state: the search by the key finds one row.
    where = f"WHERE {KEY} AND (state = ANY(%s)) IS TRUE{' AND attempt = %s' if attempt else ''}"
    if not columns:
        return f"SELECT {COLUMNS} FROM {{schema}}.tasks {where}"
    sets = [f"{column} = %s" for column in columns]
    if "state" in columns:
        sets.append("updated_at = CASE WHEN state = %s THEN updated_at ELSE %s END")
    return f"UPDATE {{schema}}.tasks SET {', '.join(sets)} {where} RETURNING {COLUMNS}"


def find_sql(states: Iterable[TaskState], *, peer: bool, unsettled: bool, columns: str = COLUMNS) -> str:
    """The statement for :meth:`TaskStore.find`. It merges the sorted results of one search for each state."""
    start = f"SELECT {columns} FROM {{schema}}.tasks WHERE agent = %(agent)s AND role = %(role)s"
    if peer:
        start += " AND peer = %(peer)s"
    if unsettled:
        start += " AND NOT settled"
    end = "AND position > %(after)s ORDER BY position LIMIT %(limit)s"
    each = [f"{start} AND state = '{state}' {end}" for state in sorted(states)]
    if len(each) == 1:
        return each[0]
    return f"({') UNION ALL ('.join(each)}) ORDER BY position LIMIT %(limit)s"


class Search:
    """Where the search for an agent's oldest submitted task begins.

    Each claim leaves a dead entry in the index until PostgreSQL vacuums the table. A search from the beginning passes
    all of them. So a search begins at the task that was claimed last. Another process may set an older task back to
    ``submitted``, or commit it late. So one search in a second begins at the beginning, and so does the search after
    one that finds nothing.

    Attributes:
        changes: How many times this process has had a reason to begin at the beginning.
    """

    def __init__(self) -> None:
        self.changes: int = 0
        self._first = 0
        self._whole_at = 0.0

    def begin(self) -> int:
        """The first position of the next search."""
        now = time.monotonic()
        if now < self._whole_at:
            return self._first
        self._whole_at = now + _WHOLE_EVERY
        return 0

    def claimed(self, position: int, seen: int) -> None:
        """The task at a position was claimed. ``seen`` is the value of ``changes`` when the search began."""
        if seen == self.changes:
            self._first = max(self._first, position)

    def restart(self) -> None:
        """An older task may be submitted again: begin the next search at the beginning."""
        self.changes += 1
        self._first = 0


class PostgresStore(ThreadedStore):
    """Keeps tasks in a PostgreSQL database. They survive the death of the process, of its machine and of the database.

    Any number of agents, threads, event loops and processes may share one database. Changes that are made at the same
    time are written together. The store has one connection for each process, and makes a new one by itself when the
    database was away. It works behind a pooler in transaction mode, such as PgBouncer. The tables are made at the first
    use, in a schema of their own. PostgreSQL 12 or newer is needed.

    Install it with ``pip install 'mqtt-agent[postgres]'``.

    Example:
        >>> async with PostgresStore("postgresql://app:secret@db.example/agents") as store:  # doctest: +SKIP
        ...     print(await store.count("a2a/v1/writer", "received", OPEN))

    Args:
        url: The database's URL, ``postgresql://USER:PASSWORD@HOST:5432/DATABASE``, with any parameters of libpq, such
            as ``?sslmode=verify-full``.
        schema: The schema of the tables: small letters, digits and ``_``. If the user may not make schemas, make it
            first, with this user as its owner.
        patience: How long a call waits for a database that cannot be reached, in seconds. Then the call raises
            :class:`StoreError`.
        lease: How many seconds after the death of a pool's member the other members take its tasks, 1 or more. The
            lease is renewed three times in this time. See ``Agent(pool=True)``.

    Attributes:
        schema: The schema of the tables.
        lease: How many seconds after the death of a pool's member the other members take its tasks.
        makes_tables: Whether the store makes its tables, and migrates older ones. A program that only reads sets this
            to False before it opens the store.

    Raises:
        ImportError: The package psycopg is not installed.
        ValueError: ``url`` is not a PostgreSQL URL, ``schema`` is no such name, or ``lease`` is too short or too long.
    """

    def __init__(self, url: str, *, schema: str = "mqtt_agent", patience: float = 5.0, lease: float = 24.0) -> None:
        if not 1 <= lease <= 3600:
            raise ValueError(f"lease must be 1 to 3,600 seconds, not {lease!r}")
        if _SCHEMA.fullmatch(schema) is None:
            raise ValueError(f"schema must have small letters, digits and '_' only, not {schema!r}")
        self._engines = _import_engines()
        super().__init__(self._engines.label(url), "restore a backup of the database")
        self.schema: str = schema
        self.lease: float = lease
        self.makes_tables: bool = True
        self._url = url
        self._patience = patience
        self._statements: dict[str, bytes] = {}
        self._searches: dict[str, Search] = {}

    def __repr__(self) -> str:
        return f"PostgresStore({self._name!r})"

    @override
    def _make_engine(self) -> Engine:
        return self.new_engine()

    def new_engine(self, **limits: float) -> engines.PostgresEngine:
        """Make an engine, which has a connection of its own.

        Args:
            limits: ``silent_for`` and ``lock_timeout`` of the engine, in seconds.
        """
        return self._engines.PostgresEngine(self._url, self.schema, self._patience, make=self.makes_tables, **limits)

    @override
    async def _probe(self, worker: Worker) -> None:
        await worker.submit(Statement(b"SELECT 1"), writes=False)

    @override
    async def add(self, record: TaskRecord) -> tuple[TaskRecord, bool]:
        return await self.add_with(record)

    async def add_with(self, record: TaskRecord, **more: str) -> tuple[TaskRecord, bool]:
        """Add a record, with further columns of the database."""
        row = to_row(record)
        values = {name: _to_column(name, value) for name, value in zip(_NEW, row[1:], strict=True)} | more
        columns = tuple(values)
        part = Part(self._text(insert_set_sql(columns)), _names(record.key), values)
        insert = self.statement(insert_sql(columns), tuple(values.values()))._replace(part=part)
        while True:
            if added := await self._submit(insert, writes=True):
                return at_position(record, added[0][0]), True
            if there := await self.get(record.key):
                return there, False
            # the record that was there has been removed since

    @override
    async def get(self, key: TaskKey) -> TaskRecord | None:
        return _first(await self.rows(GET, _names(key)))

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
        states = changeable_states(expected, columns)
        change = self._change(key, columns, states, expected_attempt)
        changed = _first(await self._submit(change, writes=True), changes)
        if changed is not None and changed.state is TaskState.SUBMITTED:
            self.restart_search(key.agent)
        return changed

    def _change(
        self, key: TaskKey, columns: dict[str, Any], states: list[str], expected_attempt: int | None
    ) -> Statement:
        names, now, attempt = _names(key), time.time(), expected_attempt is not None
        written = {name: _to_column(name, value) for name, value in columns.items()}
        values: list[Any] = list(written.values())
        row: dict[str, Any] = dict(zip(TaskKey._fields, names, strict=True)) | written
        if "state" in columns:
            values += [columns["state"], now]
            row["now"] = now
        values += [*names, states, *([expected_attempt] if attempt else [])]
        if attempt:
            row["expected"] = expected_attempt
        changed = tuple(columns)
        change = self.statement(change_sql(changed, attempt=attempt), tuple(values))
        if not columns:
            return change
        part = Part(self._text(change_set_sql(changed, attempt=attempt)), names, row, (tuple(states),))
        return change._replace(part=part)

    @override
    async def settle(self, tasks: Sequence[tuple[TaskKey, TaskState]]) -> None:
        await asyncio.gather(*(self._submit(self._settle(key, state), writes=True) for key, state in tasks))

    def _settle(self, key: TaskKey, state: TaskState) -> Statement:
        names = _names(key)
        row = dict(zip(TaskKey._fields, names, strict=True)) | {"state": state.value}
        part = Part(self._text(SETTLE_SET), names, row)
        return self.statement(SETTLE, (*names, state.value))._replace(part=part)

    @override
    async def claim(self, agent: str) -> TaskRecord | None:
        return await self.claim_with(agent, CLAIM)

    async def claim_with(self, agent: str, sql: str, **more: str) -> TaskRecord | None:
        """Claim a task with a statement that may use the values of ``more``."""
        values: dict[str, Any] = {"agent": escape(agent), "now": time.time(), "count": 1, **more}
        search = self._searches.setdefault(agent, Search())
        while True:
            seen, values["first"] = search.changes, search.begin()
            statement = self.statement(sql, dict(values))._replace(claims=True)
            if claimed := _first(await self._submit(statement, writes=True)):
                search.claimed(claimed.position, seen)
                return claimed
            search.restart()
            if values["first"] > 0:
                continue
            # The statement skips rows that another process is changing at this moment.
            ((waiting,),) = await self.rows(ANY_SUBMITTED, values)
            if not waiting:
                return None
            await asyncio.sleep(_WHILE_LOCKED)

    async def claim_in_turn(self, agent: str, sql: str, **more: str) -> TaskRecord | None:
        """Claim a task while no other process claims one, with a statement that looks at several tasks."""
        values: dict[str, Any] = {"agent": escape(agent), "now": time.time(), "first": 0, "count": 1, **more}
        return _first(await self.rows(sql, values, lock=agent))

    @override
    async def reopen(self, agent: str) -> int:
        ((live,),) = await self.rows(COUNT_MEMBERS, {"agent": escape(agent)})
        if live:
            raise StoreError(
                f"task store {self._name} is used by a pool of {live} processes with the id of agent {agent!r}: start "
                "this agent with pool=True too, or stop the pool, or choose another agent id",
                permanent=True,
            )
        reopened = await self._changed(REOPEN, (time.time(), escape(agent)))
        self.restart_search(agent)
        return reopened

    def restart_search(self, agent: str) -> None:
        """Note that an older task of an agent may be ``submitted`` again."""
        if agent in self._searches:
            self._searches[agent].restart()

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
        values: dict[str, Any] = {"agent": escape(agent), "role": role, "after": after, "limit": limit}
        if peer is not None:
            values["peer"] = escape(peer)
        statement = find_sql(states, peer=peer is not None, unsettled=unsettled)
        return [_to_row(found) for found in await self.rows(statement, values)]

    @override
    async def _fetch_outlined(
        self, agent: str, role: TaskRole, states: frozenset[TaskState], *, after: int, limit: int
    ) -> Sequence[Sequence[object]]:
        statement = find_sql(states, peer=False, unsettled=False, columns=_OUTLINED)
        values = {"agent": escape(agent), "role": role, "after": after, "limit": limit}
        return [_unescaped(row, _NAMED_IN_OUTLINE) for row in await self.rows(statement, values)]

    async def records(self, sql: str, values: dict[str, Any]) -> list[TaskRecord]:
        """Run a statement that returns all columns, and return its records. A damaged record is logged and left out."""
        return list(filter(None, (self._read(_to_row(found)) for found in await self.rows(sql, values))))

    @override
    async def count(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> int:
        wanted = [TaskState(state).value for state in states]
        return (await self.rows(COUNT, (escape(agent), role, wanted)))[0][0]

    @override
    async def count_by_peer(self, agent: str, role: TaskRole, states: Collection[TaskState]) -> dict[str | None, int]:
        wanted = [TaskState(state).value for state in states]
        found = await self.rows(COUNT_BY_PEER, (escape(agent), role, wanted))
        return {peer if peer is None else unescape(peer): number for peer, number in found}

    @override
    async def sweep(self, agent: str, before: float, *, limit: int = 1000) -> int:
        if limit <= 0:
            return 0
        return await self._changed(SWEEP, (escape(agent), before, limit))

    async def rows(self, sql: str, values: tuple[Any, ...] | dict[str, Any], *, lock: str | None = None) -> list[Any]:
        """Run a statement, and return its rows.

        Args:
            sql: The statement. ``{schema}`` in it is the schema of the tables.
            values: Its values.
            lock: A text that at most one transaction at a time has as its lock; None for no lock.
        """
        return await self._submit(self.statement(sql, values)._replace(lock=lock), writes=True)

    async def _changed(self, sql: str, values: tuple[Any, ...]) -> int:
        return await self._submit(self.statement(sql, values), writes=True)

    def statement(self, sql: str, values: tuple[Any, ...] | dict[str, Any]) -> Statement:
        """Make a statement for an engine of this store."""
        return Statement(self._text(sql), values)

    def _text(self, sql: str) -> bytes:
        """A statement with the schema of the tables."""
        if (text := self._statements.get(sql)) is None:
            text = self._statements[sql] = sql.format(schema=self.schema).encode()
        return text


def _import_engines() -> Any:
    try:
        from mqtt_agent.agents.store import postgres_engine
    except ImportError as error:
        raise ImportError("PostgresStore needs the package psycopg: pip install 'mqtt-agent[postgres]'") from error
    return postgres_engine


def _first(found: list[Any], written: Mapping[str, Any] = NOTHING_WRITTEN) -> TaskRecord | None:
    return to_record(_to_row(found[0]), written) if found else None


def _to_row(values: Iterable[Any]) -> Row:
    return Row._make(_unescaped(values, _NAMED))


def _unescaped(values: Iterable[Any], named: Iterable[bool]) -> list[Any]:
    """The values of some columns, of which those that are names are unescaped."""
    return [
        unescape(value) if is_name and value is not None else value
        for is_name, value in zip(named, values, strict=True)
    ]


def _to_column(name: str, value: Any) -> Any:
    if name in FLAGS:
        return bool(value)
    return escape(value) if name in _NAMES and value is not None else value


def _names(key: TaskKey) -> tuple[str, ...]:
    return tuple(map(escape, key))


def escape(name: str) -> str:
    """Write a name as the database has it: PostgreSQL refuses the character U+0000 in a text, but names may have it."""
    return name.replace("\x01", "\x01\x01").replace("\0", "\x01\x02")


def unescape(name: str) -> str:
    """Undo :func:`escape`."""
    if "\x01" not in name:
        return name
    return re.sub("\x01([\x01\x02])", lambda found: "\0" if found[1] == "\x02" else "\x01", name)
