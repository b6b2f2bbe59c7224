"""A record as a row of plain values, and the rules by which a row changes: the same for every store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, cast

import pydantic_core

from mqtt_agent.agents.store.base import RESERVED_SEQS, TaskKey, TaskRecord, TaskRole
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState

__all__ = ["Row", "claim_row", "decide_change", "encode_changes", "to_record", "to_row"]

_JSON = frozenset(("saved", "inputs", "result"))
_FLAGS = frozenset(("settled", "cancel_requested"))
_CHANGEABLE = frozenset(("state", "seq", "attempt", "reply_to")) | _JSON | _FLAGS
_CHANGEABLE_AT_END = frozenset(("settled", "reply_to"))
_OVER = frozenset(state.value for state in TaskState if state.terminal)
_MAX_INTEGER = 2**63 - 1


class Row(NamedTuple):
    """A :class:`TaskRecord`; what is JSON in it is text, so that a row shares nothing with anyone."""

    position: int
    agent: str
    role: str
    task_id: str
    peer: str | None
    task: str
    digest: str
    state: str
    attempt: int
    seq: int
    saved: str | None
    inputs: str
    result: str | None
    reply_to: str | None
    settled: int
    cancel_requested: int
    created_at: float
    updated_at: float
    expires_at: float | None


def to_row(record: TaskRecord) -> Row:
    """The row that stands for a record, without its position.

    Raises:
        StoreError: A value in it has no JSON form.
    """
    key = record.key
    return Row(
        position=0,
        agent=key.agent,
        role=key.role,
        task_id=key.task_id,
        peer=record.peer,
        task=_encode(record.task, "task", key),
        digest=record.digest,
        state=TaskState(record.state).value,
        attempt=_integer(record.attempt, "attempt", key),
        seq=_integer(record.seq, "seq", key),
        saved=None if record.saved is None else _encode(record.saved, "saved", key),
        inputs=_encode(record.inputs, "inputs", key),
        result=None if record.result is None else _encode(record.result, "result", key),
        reply_to=record.reply_to,
        settled=int(record.settled),
        cancel_requested=int(record.cancel_requested),
        created_at=float(record.created_at),
        updated_at=float(record.updated_at),
        expires_at=None if record.expires_at is None else float(record.expires_at),
    )


def to_record(row: Row) -> TaskRecord:
    """The record that a row stands for.

    Raises:
        StoreError: Somebody else has written it, or the disk has changed it.
    """
    try:
        return TaskRecord(
            key=TaskKey(row.agent, cast("TaskRole", row.role), row.task_id),
            peer=row.peer,
            task=_decode(row.task),
            digest=row.digest,
            state=TaskState(row.state),
            attempt=row.attempt,
            seq=row.seq,
            saved=None if row.saved is None else _decode(row.saved),
            inputs=_decode(row.inputs),
            result=None if row.result is None else _decode(row.result),
            reply_to=row.reply_to,
            settled=bool(row.settled),
            cancel_requested=bool(row.cancel_requested),
            created_at=row.created_at,
            updated_at=row.updated_at,
            expires_at=row.expires_at,
            position=row.position,
        )
    except (ValueError, TypeError) as error:
        raise StoreError(f"task {row.task_id!r} in the store is damaged: {error}") from error


def encode_changes(key: TaskKey, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes to a record as changes to its row.

    Raises:
        TypeError: A field that :meth:`TaskStore.change` does not change.
        StoreError: A value has no JSON form.
    """
    columns: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in _CHANGEABLE:
            raise TypeError(f"change() does not change {name!r}")
        if name == "state":
            columns[name] = TaskState(value).value
        elif name in _FLAGS:
            columns[name] = int(bool(value))
        elif name in _JSON:
            columns[name] = None if value is None and name != "inputs" else _encode(value, name, key)
        elif name == "reply_to":
            columns[name] = value
        else:
            columns[name] = _integer(value, name, key)
    return columns


def decide_change(
    row: Row, expected: Collection[TaskState], expected_attempt: int | None, columns: dict[str, Any], now: float
) -> dict[str, Any] | None:
    """The columns to write for :meth:`TaskStore.change`, or None when the row is not as expected.

    Args:
        row: The row as it is.
        expected: The states it may be in.
        expected_attempt: The attempt it must be at; None for any.
        columns: What :func:`encode_changes` made of the changes.
        now: Unix seconds.
    """
    if row.state not in expected or expected_attempt not in (None, row.attempt):
        return None
    if row.state in _OVER and not _CHANGEABLE_AT_END.issuperset(columns):
        return None
    if columns.get("state", row.state) != row.state:
        return {**columns, "updated_at": now}
    return columns


def claim_row(row: Row, now: float) -> dict[str, Any]:
    """The columns to write when a handler begins with a submitted task."""
    state = TaskState.WORKING.value
    return {"state": state, "attempt": row.attempt + 1, "seq": row.seq + RESERVED_SEQS, "updated_at": now}


def _encode(value: Any, name: str, key: TaskKey) -> str:
    try:
        return pydantic_core.to_json(value, inf_nan_mode="null").decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"task {key.task_id!r}: {name!r} has a value that JSON cannot carry: {error}") from error


def _decode(text: str) -> Any:
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        # The fast reader stops at 200 levels and 4,300 digits, the writer does not.
        return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))


def _integer(value: int, name: str, key: TaskKey) -> int:
    if not 0 <= value <= _MAX_INTEGER:
        raise StoreError(f"task {key.task_id!r}: {name!r} must be a number from 0 to {_MAX_INTEGER}")
    return int(value)
