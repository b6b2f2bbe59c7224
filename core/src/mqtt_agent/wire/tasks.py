"""The tasks that agents give each other, and what comes back."""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Any

import pydantic_core
from pydantic import Field, field_validator

from mqtt_agent.wire.messages import Message, utc_now

__all__ = [
    "TERMINAL",
    "Control",
    "Task",
    "TaskEvent",
    "TaskFault",
    "TaskMessage",
    "TaskResult",
    "TaskState",
    "read_result_state",
]


class TaskState(str, Enum):
    """Where a task stands, in A2A's words (spec)."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    AUTH_REQUIRED = "auth-required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    REJECTED = "rejected"

    @property
    def terminal(self) -> bool:
        """Whether it is over: such a state never changes."""
        return self in TERMINAL

    def __str__(self) -> str:
        return self.value


TERMINAL = frozenset((TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED))
"""The states in which a task is over."""


class TaskMessage(Message, extra="allow"):
    """One message of the conversation that a task carries; fields beyond these two are kept (ours)."""

    role: str = "user"
    content: Any = None


class Task(Message):
    """A task for an agent (spec: ``task_id``; ours: the rest).

    The id is the idempotency key: the same id with the same content never runs twice.

    Attributes:
        task_id: Names the task.
        sender: ``from``: the agent that wants it done, as it says itself.
        to: The agent that is to do it.
        type: What kind of task it is; chooses the handler.
        title: A line for people.
        prompt: What to do, as text.
        messages: The conversation so far.
        context_id: Tasks of one conversation share it.
        data: Structured input, any JSON value.
        created_at: When it was made, ISO 8601 UTC.
        expires_at: When nobody needs the result any more, ISO 8601 UTC.
        metadata: Anything else.
        stream: False when the requester does not listen to events.
    """

    task_id: str = Field(min_length=1)
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    type: str | None = None
    title: str | None = None
    prompt: str | None = None
    messages: list[TaskMessage] | None = None
    context_id: str | None = None
    data: Any = None
    created_at: str | None = None
    expires_at: str | None = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = None

    @property
    def bare(self) -> bool:
        """Whether it says no more than which task it is about (spec)."""
        return self.created_at is None and not self._content()

    @property
    def digest(self) -> str:
        """The same for two messages that ask for the same work, whenever they were made."""
        content = {"from": self.sender, **self._content()}
        return hashlib.sha256(pydantic_core.to_json(_sorted(content))).hexdigest()

    def _content(self) -> dict[str, Any]:
        return self.model_dump(
            exclude={"task_id", "sender", "to", "created_at", "expires_at", "stream"}, exclude_none=True
        )


class TaskFault(Message):
    """Why a task was not completed (ours).

    Attributes:
        type: The class of fault: the class name of the handler's exception, or ``rejected``, ``canceled``,
            ``expired``, ``invalid_task``, ``conflict``, ``not_found``, ``overloaded``.
        message: For people.
        code: For programs.
        data: Whatever helps the requester.
    """

    type: str = "error"
    message: str = ""
    code: str | None = None
    data: Any = None


class TaskResult(Message):
    """The one final answer to a task (ours).

    Attributes:
        task_id: Which task it answers.
        sender: ``from``: the agent that did it.
        to: The agent that wanted it.
        status: A terminal state of A2A; read it with :func:`read_result_state`.
        result: Any JSON value; absent means null.
        error: Why it was not completed.
        artifacts: What was made on the way.
        elapsed_ms: How long the last attempt took, in milliseconds.
        timestamp: When it was over, ISO 8601 UTC.
        seq: The ``seq`` of the task's last event, so that the requester can tell whether all have arrived.
    """

    task_id: str = Field(min_length=1)
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    status: str
    result: Any = None
    error: TaskFault | None = None
    artifacts: list[dict[str, Any]] | None = None
    elapsed_ms: float | None = None
    timestamp: str = Field(default_factory=utc_now)
    seq: int | None = None

    @field_validator("error", mode="before")
    @classmethod
    def _read_plain_error(cls, value: Any) -> Any:
        """A peer that says why in one string is understood as well."""
        return {"message": value} if isinstance(value, str) else value


class TaskEvent(Message):
    """Something that happens while a task is under way (ours).

    Attributes:
        task_id: Which task.
        seq: Counts from 1 per task, also over restarts; a crash may leave a gap.
        type: ``status``, ``progress``, ``partial`` or ``artifact``.
        status: The new state, for ``status``.
        progress: How much is done, for ``progress``.
        total: How much there is, if known.
        content: Text: what is being done, a piece of the answer, or the question when input is required.
        data: Any other JSON value. When input is required: ``{"input_id", "schema"?}``.
        attempt: Which attempt at the task it is of, for ``status``.
        timestamp: When it happened, ISO 8601 UTC.
    """

    task_id: str = Field(min_length=1)
    seq: int = 0
    type: str = "status"
    status: str | None = None
    progress: float | None = None
    total: float | None = None
    content: str | None = None
    data: Any = None
    attempt: int | None = None
    timestamp: str = Field(default_factory=utc_now)


class Control(Message):
    """A word to the agent that has a task: cancel it, take this input, tell where it stands (ours).

    Attributes:
        task_id: Which task.
        action: ``cancel``, ``input`` or ``get``.
        sender: ``from``: the agent that wanted the task.
        input: The answer, for ``input``.
        input_id: Which question it answers.
        reason: Why, for ``cancel``.
        timestamp: When it was said, ISO 8601 UTC.
    """

    task_id: str = Field(min_length=1)
    action: str
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    input: Any = None
    input_id: str | None = None
    reason: str | None = None
    timestamp: str = Field(default_factory=utc_now)


_OTHER_WORDS = {"cancelled": TaskState.CANCELED, "error": TaskState.FAILED, "failure": TaskState.FAILED}


def read_result_state(result: TaskResult) -> TaskState:
    """The state that a result stands for; where its word is unknown, its error decides.

    Returns:
        A terminal state; any other one when the sender took a word about a task under way for its result.
    """
    word = result.status.lower().removeprefix("task_state_").replace("_", "-")  # also as A2A's protobuf has it
    if word in _OTHER_WORDS:
        return _OTHER_WORDS[word]
    try:
        return TaskState(word)
    except ValueError:
        pass
    return TaskState.FAILED if result.error is not None else TaskState.COMPLETED


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return [_sorted(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
