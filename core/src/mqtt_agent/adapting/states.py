"""The states of a host's agents after each turn. A state is stored with its turn's task, as the change by that turn.

A later turn may continue from the state after any turn, so the host stores the state after each turn. Each state holds
the whole conversation. Stored whole, the states would take as much room as the square of the number of turns. So most
states are stored as the change since the turn before. A state is stored whole when the changes have become as large as
the last whole state, when they are many, and when the last whole state is old.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import pydantic_core

from mqtt_agent.adapting.conversations import saved_by_task
from mqtt_agent.adapting.deltas import changed, difference
from mqtt_agent.agents import Agent, TaskContext
from mqtt_agent.wire import checked_json

__all__ = ["StateAfter", "StateLost", "answer_of", "read_state", "store_state"]

_ANSWER, _STORED = "answer", "stored"
_MAX_CHANGES = 1000
"""How many changes there are between two whole states. Each change is one read when a conversation is restored."""


class StateLost(Exception):
    """The state after a turn is not stored any more."""


@dataclass(frozen=True)
class StateAfter:
    """The state after a turn.

    Attributes:
        turn: The task id of the turn.
        requester: The agent that asked for the turn; None when unknown.
        state: The state, a JSON object.
        stored_at: When the last whole state was stored, Unix seconds.
        size: The bytes of that state.
        changes: How many changes were stored since then.
        changes_size: The bytes of these changes.
    """

    turn: str
    requester: str | None
    state: dict[str, Any]
    stored_at: float
    size: int
    changes: int = 0
    changes_size: int = 0


def answer_of(saved: dict[str, Any]) -> Any:
    """The answer of a turn, from the value that :func:`store_state` has saved with the turn's task."""
    return saved[_ANSWER]


async def store_state(
    task: TaskContext, state: dict[str, Any], answer: Any, before: StateAfter | None, whole_every: float
) -> StateAfter:
    """Store the state after a turn together with the turn's answer.

    Args:
        task: The task of the turn.
        state: The state as a JSON object, without the keys ``answer`` and ``stored``.
        answer: The answer of the turn, any JSON value.
        before: The state before the turn; None for the first turn of a conversation.
        whole_every: Seconds after which a state is stored whole again. A state can be restored until the last whole
            state before it is removed from the store.

    Raises:
        WireError, StoreError, TaskCanceled: See :meth:`mqtt_agent.TaskContext.save`.
    """
    state = checked_json(state, "state", f"task {task.id}")  # a copy: the agent may change its own lists later
    if before is not None:
        change = difference(before.state, state)
        after = StateAfter(
            turn=task.id,
            requester=task.sender,
            state=state,
            stored_at=before.stored_at,
            size=before.size,
            changes=before.changes + 1,
            changes_size=before.changes_size + _size(change),
        )
        is_new = time.time() - before.stored_at < whole_every
        if is_new and after.changes_size < after.size and after.changes < _MAX_CHANGES:
            about = {"after": before.turn, "of": before.requester, "change": change}
            await task.save({_ANSWER: answer, _STORED: about})
            return after
    now = time.time()
    await task.save({**state, _ANSWER: answer, _STORED: {"at": now}})
    return StateAfter(task.id, task.sender, state, now, _size(state))


async def read_state(agent: Agent, turn: str, requester: str | None, *, proven: bool = True) -> StateAfter:
    """Read the state after a turn.

    Args:
        agent: The host, whose store keeps the turns.
        turn: The task id of the turn.
        requester: The agent that asked for the turn.
        proven: Whether the agent that asks for the state has a proven name. Otherwise only the states are read whose
            requesters had no proven name either: everybody can use the name of such a requester.

    Raises:
        StateLost: The state is not stored any more, or may not be read.
        StoreError: The store cannot be read.
    """
    changes: list[list[Any]] = []
    at, of = turn, requester
    while True:
        saved: Any = await saved_by_task(agent, at, of, proven=proven)
        if not isinstance(saved, dict) or _ANSWER not in saved:
            raise StateLost(f"the state after turn {turn} is not stored any more")
        record = cast("dict[str, Any]", saved)
        about: dict[str, Any] = record.get(_STORED, {})
        if "change" not in about:
            break
        changes.append(about["change"])
        at, of = about["after"], about.get("of", of)
    state: Any = {key: value for key, value in record.items() if key not in (_ANSWER, _STORED)}
    size = _size(state)
    for change in reversed(changes):
        state = changed(state, change)
    # A state that an older version stored has no time.
    stored_at, changes_size = about.get("at", 0.0), sum(_size(change) for change in changes)
    return StateAfter(turn, requester, state, stored_at, size, len(changes), changes_size)


def _size(value: Any) -> int:
    return len(pydantic_core.to_json(value))
