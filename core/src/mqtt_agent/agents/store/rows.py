"""Records as rows of plain values, and the rules for changes to rows. Both stores of this package use these rules."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, cast

import pydantic_core

from mqtt_agent.agents.store.base import RESERVED_SEQS, Outline, TaskKey, TaskRecord, TaskRole
from mqtt_agent.errors import StoreError
from mqtt_agent.wire import TaskState
from mqtt_agent.wire.tasks import state_of

__all__ = [
    "FLAGS",
    "NOTHING_WRITTEN",
    "OUTLINED",
    "Row",
    "at_position",
    "changeable_states",
    "claim_row",
    "decide_change",
    "encode_changes",
    "to_outline",
    "to_record",
    "to_row",
]

_JSON = frozenset(("saved", "inputs", "result"))
FLAGS = frozenset(("settled", "cancel_requested"))
"""The columns that are true or false."""
_CHANGEABLE = frozenset(("state", "seq", "attempt", "reply_to")) | _JSON | FLAGS
_CHANGEABLE_AT_END = frozenset(("settled", "reply_to"))
_OVER = frozenset(state.value for state in TaskState if state.terminal)
_MAX_INTEGER = 2**63 - 1


class Row(NamedTuple):
    """A :class:`TaskRecord` as plain values. JSON values are text, so a row cannot be changed from outside."""

    position: int
    agent: str
    role: str
    task_id: str
    requester: str
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


NOTHING_WRITTEN: Mapping[str, Any] = {}
"""For :func:`to_record`: all values are read from the row."""
_TEXT, _NUMBER, _NOTHING = (str,), (float, int), (type(None),)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(Row._fields, _TEXT),
    **dict.fromkeys(("position", "attempt", "seq", "settled", "cancel_requested"), (int,)),
    **dict.fromkeys(("peer", "saved", "result", "reply_to"), _TEXT + _NOTHING),
    **dict.fromkeys(("created_at", "updated_at"), _NUMBER),
    "expires_at": _NUMBER + _NOTHING,
}
"""The types that a column may have. SQLite itself takes any value for any column."""
_ROW_KINDS = tuple(_KINDS[name] for name in Row._fields)

_END_OF_KEY = 1 + len(TaskKey._fields)
_AFTER_KEY = Row._fields[_END_OF_KEY:]


def to_row(record: TaskRecord) -> Row:
    """Make the row of a record. The row's position is 0 until the record is added.

    Raises:
        StoreError: A value of the record has no JSON form.
    """
    key = record.key
    return Row(
        position=0,
        agent=key.agent,
        role=key.role,
        task_id=key.task_id,
        requester=key.requester,
        peer=record.peer,
        task=_encode(record.task, "task", key),
        digest=record.digest,
        state=state_of(record.state).value,
        attempt=_integer(record.attempt, "attempt", key),
        seq=_integer(record.seq, "seq", key),
        saved=None if record.saved is None else _encode(record.saved, "saved", key),
        inputs=_encode(record.inputs, "inputs", key) if record.inputs else "[]",
        result=None if record.result is None else _encode(record.result, "result", key),
        reply_to=record.reply_to,
        settled=int(record.settled),
        cancel_requested=int(record.cancel_requested),
        created_at=float(record.created_at),
        updated_at=float(record.updated_at),
        expires_at=None if record.expires_at is None else float(record.expires_at),
    )


def to_record(row: Row, written: Mapping[str, Any] = NOTHING_WRITTEN) -> TaskRecord:
    """Make the record of a row.

    Args:
        row: The row.
        written: The values that :meth:`TaskStore.change` has written to the row just now. Their texts are not read
            again.

    Raises:
        StoreError: The row has a value that no store writes: another program has written it, or the disk is damaged.
    """
    try:
        _check(row, Row._fields, _ROW_KINDS)
        fields: dict[str, Any] = dict(zip(_AFTER_KEY, row[_END_OF_KEY:], strict=True))
        fields["key"] = TaskKey(row.agent, cast("TaskRole", row.role), row.task_id, row.requester)
        fields["state"] = state_of(row.state)
        for name, value in (("task", row.task), ("saved", row.saved), ("inputs", row.inputs), ("result", row.result)):
            fields[name] = written[name] if name in written else _decode(value)
        fields["settled"], fields["cancel_requested"] = row.settled != 0, row.cancel_requested != 0
        fields["position"] = row.position
        # The constructor takes longer than all of this: it looks for the defaults of 18 fields.
        record = TaskRecord.__new__(TaskRecord)
        record.__dict__.update(fields)
        return record
    except (ValueError, TypeError) as error:
        raise _damaged(row.task_id, error) from error


def at_position(record: TaskRecord, position: int) -> TaskRecord:
    """Make the record of a row that was made of another record by :func:`to_row`, and added at a position."""
    added = TaskRecord.__new__(TaskRecord)
    added.__dict__.update(record.__dict__, state=state_of(record.state), position=position)
    return added


OUTLINED: tuple[str, ...] = (
    "position",
    "task_id",
    "requester",
    "peer",
    "digest",
    "state",
    "reply_to",
    "cancel_requested",
    "expires_at",
)
"""The columns that :func:`to_outline` takes, in this order."""
_OUTLINE_KINDS = tuple(_KINDS[name] for name in OUTLINED)


def to_outline(agent: str, role: TaskRole, columns: Sequence[object]) -> Outline:
    """Make the outline of a record.

    Args:
        agent: The agent of the record.
        role: The role of the record.
        columns: The values of :data:`OUTLINED`.

    Raises:
        StoreError: The row has a value that no store writes.
    """
    values = cast("Sequence[Any]", columns)
    position, task_id, requester, peer, digest, state, reply_to, cancel_requested, expires_at = values
    try:
        _check(values, OUTLINED, _OUTLINE_KINDS)
        key = TaskKey(agent, role, task_id, requester)
        return Outline(position, key, peer, digest, TaskState(state), reply_to, bool(cancel_requested), expires_at)
    except (ValueError, TypeError) as error:
        raise _damaged(task_id, error) from error


def _check(values: Sequence[Any], names: Sequence[str], kinds: Sequence[tuple[type, ...]]) -> None:
    if not all(map(isinstance, values, kinds)):
        wrong = (name for name, value, kind in zip(names, values, kinds, strict=True) if not isinstance(value, kind))
        raise TypeError(f"the column {next(wrong)!r} has a value of another type")


def _damaged(task_id: object, error: Exception) -> StoreError:
    return StoreError(f"task {task_id!r} in the store is damaged: {error}", permanent=True)


def encode_changes(key: TaskKey, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Make the new columns of a row from the changes to a record.

    Raises:
        TypeError: :meth:`TaskStore.change` cannot change one of the fields.
        StoreError: A value has no JSON form.
    """
    columns: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in _CHANGEABLE:
            raise TypeError(f"change() cannot change the field {name!r}")
        if name == "state":
            columns[name] = state_of(value).value
        elif name in FLAGS:
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
    """Decide which columns :meth:`TaskStore.change` writes.

    Args:
        row: The present row.
        expected: The states that the row may be in.
        expected_attempt: The value that the row's ``attempt`` must have; None for any value.
        columns: The new columns, from :func:`encode_changes`.
        now: Unix seconds.

    Returns:
        The columns to write, or None when the row is not as expected.
    """
    if row.state not in expected or expected_attempt not in (None, row.attempt):
        return None
    if row.state in _OVER and not _CHANGEABLE_AT_END.issuperset(columns):
        return None
    if columns.get("state", row.state) != row.state:
        return {**columns, "updated_at": now}
    return columns


def changeable_states(expected: Collection[TaskState], columns: Collection[str]) -> list[str]:
    """The states in which :meth:`TaskStore.change` may change some columns, for a store that compares in SQL.

    Args:
        expected: The states that the row may be in.
        columns: The names of the columns.
    """
    may_be_over = _CHANGEABLE_AT_END.issuperset(columns)
    return [TaskState(state).value for state in expected if may_be_over or state not in _OVER]


def claim_row(row: Row, now: float) -> dict[str, Any]:
    """The columns that :meth:`TaskStore.claim` writes when an attempt begins.

    Args:
        row: The present row.
        now: Unix seconds.
    """
    state = TaskState.WORKING.value
    return {"state": state, "attempt": row.attempt + 1, "seq": row.seq + RESERVED_SEQS, "updated_at": now}


def _encode(value: Any, name: str, key: TaskKey) -> str:
    try:
        text = pydantic_core.to_json(value, inf_nan_mode="constants")
        if b"NaN" in text or b"Infinity" in text:
            pydantic_core.from_json(text, allow_inf_nan=False)  # refuses the numbers; a text may have these words
        return text.decode()
    except (ValueError, TypeError, RecursionError) as error:
        what = f"task {key.task_id!r}: {name!r} has a value without a JSON form: {error}"
        raise StoreError(what, permanent=True) from error


def _decode(text: str | None) -> Any:
    if text is None:
        return None
    if text == "[]":
        return []
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        # pydantic_core reads at most 200 levels of nesting and numbers of 4,300 digits, but writes more.
        return json.loads(text, parse_int=lambda digits: int(Decimal(digits)))


def _integer(value: int, name: str, key: TaskKey) -> int:
    if not 0 <= value <= _MAX_INTEGER:
        raise StoreError(f"task {key.task_id!r}: {name!r} must be a number from 0 to {_MAX_INTEGER}", permanent=True)
    return int(value)
