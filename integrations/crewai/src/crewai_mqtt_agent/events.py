"""What remote tools and remote members tell while they work, as events on CrewAI's bus."""

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
        call_id: Which call.
        partial: Any JSON value; ``{"progress": ..., "total": ..., "message": ...}`` tells progress.
    """

    type: str = "remote_tool_partial"
    tool_name: str
    call_id: str
    partial: Any = None


class RemoteTaskEvent(BaseEvent):
    """Something happened to a task that a peer works on.

    Attributes:
        peer: Which agent.
        remote_task_id: Its id over there; ``task_id`` and ``agent_role`` are CrewAI's own.
    """

    peer: str
    remote_task_id: str


class RemoteTaskStatusEvent(RemoteTaskEvent):
    """The task is in another state: ``submitted``, ``working``, ``input-required``, ``completed`` and so on.

    Attributes:
        status: The state.
        attempt: 1, and one more after every crash of the peer.
        message: What was told with it, for example a question.
    """

    type: str = "remote_task_status"
    status: str
    attempt: int | None = None
    message: str | None = None


class RemoteTaskProgressEvent(RemoteTaskEvent):
    """How far the peer is.

    Attributes:
        progress: How much is done.
        total: How much there is, if known.
        message: What is being done now.
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
    """The peer made something.

    Attributes:
        name: What it is called.
        data: Any JSON value.
    """

    type: str = "remote_task_artifact"
    name: str
    data: Any = None
