"""Makes the message of a new task from the arguments of ``delegate()`` and ``request()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import ValidationError

from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import InvalidIdentifier, WireError
from mqtt_agent.wire import Task, TaskMessage, checked_json, new_task_id, utc_now, validate_identifier
from mqtt_agent.wire.messages import parse_time

__all__ = ["new_task"]

_FIRST_SECOND, _LAST_SECOND = 1e9, 253402300799.0
"""The Unix seconds that are accepted as a time: from the year 2001 to the year 9999."""


def new_task(
    sender: str,
    peer: str,
    prompt: str | None,
    *,
    type: str | None,
    title: str | None,
    messages: Sequence[TaskMessage | Mapping[str, Any]] | None,
    data: Any,
    task_id: str | None,
    context_id: str | None,
    reference_task_ids: Sequence[str] | None,
    expires_at: datetime | str | float | None,
    metadata: dict[str, Any] | None,
    stream: bool,
) -> Task:
    """Make a task; see :meth:`Agent.delegate` for the other arguments.

    Args:
        sender: The agent that delegates the task.
        stream: Whether the requester wants events.

    Raises:
        InvalidIdentifier, WireError, ValueError: An argument cannot be sent.
    """
    if task_id is not None and task_id.startswith(MARKER_PREFIX):
        raise InvalidIdentifier(
            f"task id {task_id!r:.80} begins with {MARKER_PREFIX!r}, which is reserved: choose another id, or pass none"
        )
    texts = {"type": type, "title": title, "prompt": prompt, "context_id": context_id}
    values = {"messages": messages, "reference_task_ids": reference_task_ids, "data": data, "metadata": metadata}
    content = checked_json({**texts, **values}, "", f"the task for {peer}")
    try:
        return Task(
            task_id=validate_identifier(task_id or new_task_id(), "task id"),
            sender=sender,
            to=validate_identifier(peer, "agent id"),
            created_at=utc_now(),
            expires_at=_iso_time(expires_at),
            stream=None if stream else False,
            **content,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        raise WireError(f"the task cannot be made: {where}: {first['msg']}") from error


def _iso_time(time: datetime | str | float | None) -> str | None:
    """The time as ISO 8601 UTC.

    Raises:
        ValueError: The time is ambiguous, or is no time.
    """
    if time is None:
        return None
    moment = _moment(time)
    if moment is None:
        raise ValueError(
            f"expires_at={time!r:.80} is no ISO 8601 time: write it like '2099-12-31T23:59:59Z', or pass a datetime "
            "with a time zone, or a number of Unix seconds such as time.time() + 60"
        )
    if moment.tzinfo is None:
        raise ValueError(
            f"expires_at={time!r} has no time zone: use datetime.now(timezone.utc) + timedelta(...), or end the text "
            "with 'Z' or an offset such as '+02:00'"
        )
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(time: object) -> datetime | None:
    if isinstance(time, datetime):
        return time
    if isinstance(time, str):
        return parse_time(time)
    # A smaller number is a duration, or a date written as a number. A larger number is in milliseconds.
    if isinstance(time, (int, float)) and _FIRST_SECOND <= time <= _LAST_SECOND:
        return datetime.fromtimestamp(time, timezone.utc)
    return None
