"""Events on CrewAI's bus about remote tools and remote members while they work."""

from __future__ import annotations

from typing import Any

from crewai.events.base_events import BaseEvent

__all__ = [
    "RemoteTaskArtifactEvent",
    "RemoteTaskProgressEvent",
    "RemoteTaskStatusEvent",
    "RemoteTaskStreamEvent",
    "RemoteToolPartialEvent",
]


class RemoteToolPartialEvent(BaseEvent):
    """A tool streamed something before its result.

    Attributes:
        tool_name: The tool's own name.
        call_id: The id of the call.
        partial: Any JSON value; progress is ``{"progress": ..., "total": ..., "message": ...}``.
    """

    type: str = "remote_tool_partial"
    tool_name: str
    call_id: str
    partial: Any = None


class RemoteTaskEvent(BaseEvent):
    """Something happened to a task that a peer works on.

    Attributes:
        peer: The agent id of the peer.
        remote_task_id: The id of the task at the peer. ``task_id`` and ``agent_role`` are those of CrewAI's task.
    """

    peer: str
    remote_task_id: str


class RemoteTaskStatusEvent(RemoteTaskEvent):
    """The task is in another state: ``submitted``, ``working``, ``input-required``, ``completed`` and so on.

    Attributes:
        status: The state.
        attempt: The number of the attempt: 1, and 1 more after each crash of the peer.
        message: The text that the peer sent with the state, for example a question.
    """

    type: str = "remote_task_status"
    status: str
    attempt: int | None = None
    message: str | None = None


class RemoteTaskProgressEvent(RemoteTaskEvent):
    """The peer reported its progress.

    Attributes:
        progress: How much is done.
        total: How much there is, if known.
        message: What the peer does now.
    """

    type: str = "remote_task_progress"
    progress: float
    total: float | None = None
    message: str | None = None


class RemoteTaskStreamEvent(RemoteTaskEvent):
    """The peer streamed something before its result.

    Attributes:
        content: Text, or None.
        data: Any other JSON value.
    """

    type: str = "remote_task_stream"
    content: str | None = None
    data: Any = None


class RemoteTaskArtifactEvent(RemoteTaskEvent):
    """The peer made an artifact.

    Attributes:
        name: The artifact's name.
        data: Any JSON value.
        parts: The content as A2A's parts, when ``data`` cannot say all of it.
    """

    type: str = "remote_task_artifact"
    name: str
    data: Any = None
    parts: list[dict[str, Any]] | None = None
