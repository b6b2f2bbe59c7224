"""Joins statements about single records to statements about sets of records: planning and sending each one costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import pydantic_core

from mqtt_agent.agents.store.base import TaskKey
from mqtt_agent.agents.store.rows import FLAGS, Row

__all__ = ["SETTLE_SET", "Part", "Statement", "Step", "change_set_sql", "insert_set_sql", "insert_sql", "join"]

_KEY = ", ".join(TaskKey._fields)
_TYPES = {
    **dict.fromkeys(("position", "attempt", "seq", "expected"), "bigint"),
    **dict.fromkeys(("created_at", "updated_at", "expires_at", "now"), "double precision"),
    **dict.fromkeys(FLAGS, "boolean"),
}
"""The types of the columns that are not text."""
_LARGE = 64 * 1024
"""How many characters a record has at most in a set. A larger one has a statement of its own."""
_MOST = 1024 * 1024
"""How many characters the records of a set have together, unless the last one makes it more."""


class Part(NamedTuple):
    """A statement for one record, in the form in which it is a part of a statement for a set of records.

    Attributes:
        sql: The statement for a set. Its first value is a list of rows in JSON, and each row that it returns has the
            key of its record after its first column.
        key: The key of the record, as the database has it.
        row: The values of the record, by column.
        same: The further values of the statement, each a list, which all records of a set have in common.
    """

    sql: bytes
    key: tuple[str, ...]
    row: dict[str, Any]
    same: tuple[tuple[str, ...], ...] = ()


class Statement(NamedTuple):
    """The work of a job: one SQL statement.

    Attributes:
        sql: The statement, with a placeholder for each value.
        values: The values.
        lock: A text that at most one transaction at a time has as its lock; None for no lock. The transaction takes its
            locks before all statements, so that two transactions cannot wait for each other.
        part: The statement as a part of a statement for a set of records; None when it has no such form.
        claims: Whether the statement claims the oldest tasks, up to as many as its value ``count``, which is 1. Each
            row that it returns begins with the position of its task.
    """

    sql: bytes
    values: tuple[Any, ...] | dict[str, Any] = ()
    lock: str | None = None
    part: Part | None = None
    claims: bool = False


class Step(NamedTuple):
    """A statement of a transaction, for one statement of a batch or for several.

    Attributes:
        sql: The statement.
        values: The values.
        places: The places of its statements in the batch.
        keys: The keys of the records of a set, in the order of ``places``; None when this is not about a set.
            For claims there are none: the first claim of the batch gets the oldest task.
    """

    sql: bytes
    values: tuple[Any, ...] | dict[str, Any]
    places: list[int]
    keys: list[tuple[str, ...]] | None = None

    def share(self, result: Any) -> Iterable[tuple[int, Any]]:
        """The results of the statements of the batch, each with its place."""
        if self.keys is None and len(self.places) == 1:
            return [(self.places[0], result)]
        if self.keys is None:
            tasks = iter(sorted(result, key=lambda row: row[0]))
            return [(place, list(islice(tasks, 1))) for place in self.places]
        by_key = {tuple(row[1 : 1 + len(TaskKey._fields)]): row for row in result}
        return [
            (place, [by_key[key]] if key in by_key else []) for place, key in zip(self.places, self.keys, strict=True)
        ]


def join(batch: Sequence[Statement]) -> list[Step]:
    """Join those statements of a batch that differ only in their record, and its claims.

    The statements of one record keep their order, and so do a statement about no single record and all others. Claims
    come after the statements about single records: nobody who claims a task knows which one it will be.

    Raises:
        ValueError: A value has no JSON form.
    """
    steps: list[Step] = []
    sets: dict[tuple[Any, ...], list[int]] = {}
    sizes: dict[tuple[Any, ...], int] = {}
    claims: dict[tuple[Any, ...], list[int]] = {}
    touched: set[tuple[str, ...]] = set()

    def end() -> None:
        steps.extend(_step(batch, places) for places in sets.values())
        steps.extend(_claims(batch, places) for places in claims.values())
        sets.clear()
        claims.clear()
        sizes.clear()
        touched.clear()

    for place, statement in enumerate(batch):
        if statement.claims:
            claims.setdefault(_claimant(statement), []).append(place)
            continue
        part = statement.part
        if part is None or (size := _size(part.row)) > _LARGE:
            end()
            steps.append(_step(batch, [place]))
            continue
        if part.key in touched:
            end()
        touched.add(part.key)
        which = part.sql, *part.same
        sizes[which] = sizes.get(which, 0) + size
        sets.setdefault(which, []).append(place)
        if sizes[which] > _MOST:
            steps.append(_step(batch, sets.pop(which)))
            del sizes[which]
    end()
    return steps


def _claimant(statement: Statement) -> tuple[Any, ...]:
    """What the claims that are joined have in common."""
    assert isinstance(statement.values, dict)
    return statement.sql, *((key, value) for key, value in statement.values.items() if key not in ("now", "first"))


def _claims(batch: Sequence[Statement], places: list[int]) -> Step:
    sql, values = batch[places[0]][:2]
    first = min(dict(batch[place].values)["first"] for place in places)
    return Step(sql, {**dict(values), "first": first, "count": len(places)}, places)


def _step(batch: Sequence[Statement], places: list[int]) -> Step:
    first = batch[places[0]]
    if len(places) == 1 or first.part is None:
        return Step(first.sql, first.values, places)
    parts = [part for place in places if (part := batch[place].part) is not None]
    rows = [pydantic_core.to_json(part.row, inf_nan_mode="constants").decode() for part in parts]
    return Step(first.part.sql, (rows, *map(list, first.part.same)), places, [part.key for part in parts])


def _size(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str))


# Statements


@lru_cache(16)
def insert_sql(columns: tuple[str, ...]) -> str:
    """The statement that adds a record, unless there is one with its key. It returns the position."""
    return _insert(columns, f"VALUES ({', '.join(['%s'] * len(columns))})", "position")


@lru_cache(16)
def insert_set_sql(columns: tuple[str, ...]) -> str:
    """The statement that adds a set of records."""
    return _insert(columns, f"SELECT {', '.join(columns)} FROM {_rows(columns)}", f"position, {_KEY}")


def _insert(columns: Sequence[str], source: str, returned: str) -> str:
    return (
        f"INSERT INTO {{schema}}.tasks ({', '.join(columns)}) {source}"
        f" ON CONFLICT ({_KEY}) DO NOTHING RETURNING {returned}"
    )


@lru_cache(256)
def change_set_sql(columns: tuple[str, ...], *, attempt: bool) -> str:
    """The statement that changes some columns of a set of records. Its second value is the list of their states."""
    sets = [f"{column} = new.{column}" for column in columns]
    if "state" in columns:
        sets.append("updated_at = CASE WHEN tasks.state = new.state THEN tasks.updated_at ELSE new.now END")
    more = [*(["now"] if "state" in columns else ()), *(["expected"] if attempt else ())]
    fence = " AND tasks.attempt = new.expected" if attempt else ""
    returned = ", ".join(f"tasks.{name}" for name in Row._fields)
    return (
        f"UPDATE {{schema}}.tasks SET {', '.join(sets)} FROM {_rows([*TaskKey._fields, *columns, *more])}"
        f" WHERE {_SAME_KEY} AND (tasks.state = ANY(%s)) IS TRUE{fence} RETURNING {returned}"
    )


def _rows(columns: Iterable[str]) -> str:
    # PostgreSQL knows the length of an array, and then finds the records by their keys. It takes a json_to_recordset()
    # for 100 rows, and may read the whole table once for each row.
    listed = ", ".join(f"{column} {_TYPES.get(column, 'text')}" for column in columns)
    return f"unnest(%s::json[]) AS each (value), json_to_record(each.value) AS new ({listed})"


_SAME_KEY = " AND ".join(f"tasks.{name} = new.{name}" for name in TaskKey._fields)
SETTLE_SET: str = (
    f"UPDATE {{schema}}.tasks SET settled = true FROM {_rows([*TaskKey._fields, 'state'])}"
    f" WHERE {_SAME_KEY} AND (tasks.state = new.state) IS TRUE"
    f" RETURNING position, {', '.join(f'tasks.{name}' for name in TaskKey._fields)}"
)
"""The statement that notes that the work for a set of finished tasks is done."""
