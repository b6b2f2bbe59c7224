"""Makes the message of a new task from the arguments of ``delegate()`` and ``request()``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pydantic import ValidationError

from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import InvalidIdentifier, WireError
from mqtt_agent.wire import Task, TaskMessage, checked_json, new_task_id, read_time, utc_now, validate_identifier

__all__ = ["new_task"]


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
    expires_at: datetime | str | None,
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
    values = {"messages": messages, "data": data, "metadata": metadata}
    content = checked_json({**texts, **values}, "", f"the task for {peer}")
    if content["messages"] is None and content["prompt"] is not None:
        content["messages"] = [{"role": "user", "content": content["prompt"]}]
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


def _iso_time(time: datetime | str | None) -> str | None:
    if isinstance(time, datetime):
        return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if time is not None and read_time(time) is None:
        raise ValueError(f"expires_at must be a datetime or an ISO 8601 time, not {time!r}")
    return time
