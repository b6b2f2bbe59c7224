"""Names of conversations: a requester whose name is proven never gets into the conversation of another requester."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.agents.store.base import VERIFIED

__all__ = ["OfTask", "context_of", "conversation_of", "own_name", "proof_of"]

_RESERVED = tuple(f"{proof}{kind}" for proof in ("bound", "signed") for kind in (":", "-task:"))


class OfTask(Protocol):
    """What the name of a conversation depends on: a task context has these attributes."""

    id: Any
    sender: Any
    bound: Any
    verified: Any


def conversation_of(task: OfTask, name: str | None) -> str:
    """Name the conversation of a task so that no other requester can name it.

    A requester whose name is proven, by a sender-bound topic or by a signature, has conversations of its own:
    ``bound:planner/trip-42``. Nothing separates the requesters whose names are not proven: ``trip-42``. No name that
    they choose is that of a proven requester's conversation.

    Args:
        task: The task.
        name: The name that the requester gives to the conversation, such as the task's ``context_id``. None or an empty
            text means that the task is a conversation of its own. A name that this function returned for the same
            requester stays as it is.
    """
    proof = proof_of(task)
    if proof is None:
        return own_name(task) if not name else f"plain:{name}" if name.startswith(_RESERVED) else name
    of_requester, of_task = f"{proof}:{task.sender}/", f"{proof}-task:{task.sender}/"
    if not name:
        return f"{of_task}{task.id}"
    return name if name.startswith((of_requester, of_task)) else f"{of_requester}{name}"


@dataclass
class _StoredTask:
    id: str
    sender: str | None
    bound: bool
    verified: str | None


def context_of(record: TaskRecord, bound: bool) -> str | None:
    """The name of the conversation of a received task, according to its record; None without a ``context_id``.

    Args:
        record: The record.
        bound: Whether the task arrived on a sender-bound topic.
    """
    name, sender = record.task.get("context_id"), record.task.get("from")
    if not name:
        return None
    verified = sender if record.task.get(VERIFIED) is True else None
    return conversation_of(_StoredTask(record.task_id, sender, bound, verified), name)


def proof_of(task: OfTask) -> str | None:
    """What proves the requester's name: ``signed`` or ``bound``; None when nothing proves the name."""
    if task.sender is None:
        return None
    return "signed" if task.verified is not None else "bound" if task.bound else None


def own_name(task: OfTask) -> str:
    """A name that no task of another requester has, for what is kept for one task alone.

    Each requester chooses its task ids, so the tasks of two requesters may have the same id.
    """
    return task.id if task.sender is None else f"{task.sender}/{task.id}"
