"""The messages of a task between agents: task, events, result, control messages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

import pydantic_core
from pydantic import Field, ValidationError, field_validator, model_validator

from mqtt_agent.wire.messages import Message, utc_now
from mqtt_agent.wire.parts import Part, content_of_parts, parts_of_content, plain_content

__all__ = [
    "ASKING",
    "MOST_ASKED",
    "TERMINAL",
    "UNKNOWN_TASK",
    "Artifact",
    "Control",
    "Task",
    "TaskEvent",
    "TaskFault",
    "TaskMessage",
    "TaskResult",
    "TaskState",
    "digest_of",
    "read_result_state",
    "state_of",
    "unknown_tasks",
]


class TaskState(str, Enum):
    """The state of a task, with A2A's names (spec)."""

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
        """Whether a task in this state has ended. A terminal state never changes."""
        return self in TERMINAL

    def __str__(self) -> str:
        return self.value


TERMINAL: frozenset[TaskState] = frozenset(
    (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED)
)
"""The terminal states: a task in one of them has ended."""

ASKING: frozenset[TaskState] = frozenset((TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED))
"""The states in which a task waits for an answer of its requester."""

MOST_ASKED: int = 100
"""The largest number of tasks in one question, see :attr:`Control.task_ids` (ours)."""

UNKNOWN_TASK: str = "UNKNOWN_TASK"
"""The ``code`` of the fault that answers a question about tasks which the executor does not know (ours)."""


class TaskMessage(Message, extra="allow"):
    """One message of the conversation that a task carries (ours). Additional fields are kept.

    A message with ``parts`` and without ``content`` gets the text of its parts as its content, for readers that know
    no parts.

    Attributes:
        role: Who wrote the message: ``user``, ``agent``, or another role.
        content: The text, or another JSON value.
        parts: The content in A2A's form, when ``content`` cannot say all of it. :attr:`all_parts` has parts always.
        message_id: The id of the message.
        reference_task_ids: The ids of earlier tasks that the message refers to.
        extensions: The URIs of A2A extensions that the message uses.
        metadata: Any other information.
    """

    role: str = "user"
    content: Any = None
    parts: list[Part] | None = None
    message_id: str | None = None
    reference_task_ids: list[str] | None = None
    extensions: list[str] | None = None
    metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _say_it_without_parts(self) -> TaskMessage:
        if self.parts and self.content is None:
            self.content = content_of_parts(self.parts)
        if self.parts and plain_content(self.parts):
            self.parts = None  # the content says it all, and is sent once
        return self

    @property
    def all_parts(self) -> list[Part]:
        """The content as parts, also of a message that has only ``content``."""
        return self.parts or parts_of_content(self.content)


class Artifact(Message, extra="allow"):
    """Something that a task has produced, such as a file or a table (ours). Additional fields are kept.

    Attributes:
        name: The name. Within a task, a later artifact with the same name replaces the first.
        data: The content for readers that know no parts: the text, or another JSON value.
        parts: The content in A2A's form, when ``data`` cannot say all of it. :attr:`all_parts` has parts always.
        artifact_id: The id at the A2A agent that has made the artifact, when it differs from the name.
        description: What the artifact is, for people.
        extensions: The URIs of A2A extensions that the artifact uses.
        metadata: Any other information.
    """

    name: str = ""
    data: Any = None
    parts: list[Part] | None = None
    artifact_id: str | None = None
    description: str | None = None
    extensions: list[str] | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def read(cls, value: Any) -> Artifact:
        """The artifact of a result message. What is no artifact becomes the data of an artifact.

        Args:
            value: An item of :attr:`TaskResult.artifacts`. Its sender may have sent anything.
        """
        try:
            return cls.model_validate(value)
        except ValidationError:
            name = cast("dict[str, Any]", value).get("name") if isinstance(value, dict) else None
            return cls(name=name if isinstance(name, str) else "", data=value)

    @property
    def all_parts(self) -> list[Part]:
        """The content as parts, also of an artifact that has only ``data``."""
        return self.parts or parts_of_content(self.data)

    def followed_by(self, chunk: Artifact) -> Artifact:
        """This artifact with the content of its next chunk. Texts that follow each other become one text."""
        parts = [part.model_copy() for part in self.all_parts]
        for part in chunk.all_parts:
            last = parts[-1] if parts else None
            if last is not None and last.text is not None and part.text is not None and last.continues(part):
                last.text += part.text
            else:
                parts.append(part)
        about = {**dict(self), **{key: each for key, each in chunk if each is not None}}
        for key in ("name", "data", "parts"):
            about.pop(key, None)
        return Artifact.of_parts(self.name, parts, **about)

    @classmethod
    def of_parts(cls, name: str, parts: list[Part], **about: Any) -> Artifact:
        """Make an artifact of parts. The parts are left out when ``data`` says all of them."""
        kept = None if plain_content(parts) else parts
        return cls(name=name, data=content_of_parts(parts), parts=kept, **about)


class Task(Message):
    """A task for an agent (``task_id``: spec; the other fields: ours).

    The id is the idempotency key: the same id with the same content is never run twice.

    Attributes:
        task_id: The id of the task.
        sender: ``from`` in JSON: the requester. The requester chooses this name. Only the topic of a sender-bound
            message proves the name.
        to: The agent that should do the task.
        type: The kind of task, which chooses the handler.
        title: One line for people.
        prompt: What to do, as text.
        messages: The conversation so far. None when it is only the prompt, which is not sent twice.
        context_id: The id of the conversation that the task belongs to.
        reference_task_ids: The ids of earlier tasks that the task refers to.
        data: Structured input, any JSON value.
        created_at: When the task was made, ISO 8601 UTC.
        expires_at: When the result is no longer needed, ISO 8601 UTC.
        metadata: Any other information.
        stream: False when the requester does not listen to events.
        max_result: The size of the largest result message that the requester can get, in bytes. None when unknown.
    """

    task_id: str = Field(min_length=1)
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    type: str | None = None
    title: str | None = None
    prompt: str | None = None
    messages: list[TaskMessage] | None = None
    context_id: str | None = None
    reference_task_ids: list[str] | None = None
    data: Any = None
    created_at: str | None = None
    expires_at: str | None = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = None
    max_result: int | None = None

    @property
    def bare(self) -> bool:
        """Whether the message has a task id and no content (spec)."""
        return self.created_at is None and not _content_of(self.as_json())

    @property
    def digest(self) -> str:
        """The digest of the content; see :func:`digest_of`."""
        return digest_of(self.as_json())


_NOT_CONTENT = frozenset(("task_id", "from", "to", "created_at", "expires_at", "stream", "max_result"))


def _content_of(task: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in task.items() if name not in _NOT_CONTENT}


def digest_of(task: Mapping[str, Any]) -> str:
    """The SHA-256 of the content of a task. Tasks that ask for the same work have the same digest: times do not count.

    A prompt without messages counts as a conversation of one message (ours): some writers send both.

    Args:
        task: The task as plain JSON, without the fields that are None.
    """
    content = _content_of(task)
    content["from"] = task.get("from")
    if "prompt" in content and "messages" not in content:
        content["messages"] = [{"role": "user", "content": content["prompt"]}]
    return hashlib.sha256(pydantic_core.to_json(_sorted(content))).hexdigest()


class TaskFault(Message):
    """Why a task was not completed (ours).

    Attributes:
        type: The kind of fault: the class name of the handler's exception, or ``rejected``, ``canceled``,
            ``expired``, ``invalid_task``, ``conflict``, ``not_found``, ``overloaded``,
            ``too_many_attempts``.
        message: A text for people.
        code: A short code for programs.
        data: Any JSON value that helps the requester.
    """

    type: str = "error"
    message: str = ""
    code: str | None = None
    data: Any = None


class TaskResult(Message):
    """The final answer to a task; each task has one (ours).

    Attributes:
        task_id: The id of the task.
        sender: ``from`` in JSON: the agent that did the task.
        to: The requester.
        status: A terminal state of A2A. :func:`read_result_state` reads it.
        result: Any JSON value; absent means null.
        error: Why the task was not completed.
        artifacts: The artifacts that the task has produced; :meth:`Artifact.read` reads each of them.
        message: The answer as a message of the agent, when the agent has answered with a message and not with a
            value. ``result`` then has its content, for readers that know no such message.
        elapsed_ms: How long the last attempt took, in milliseconds.
        timestamp: When the task ended, ISO 8601 UTC.
        seq: The number of the task's end, one more than the ``seq`` of its last event. It tells the requester whether
            all events have arrived.
        attempt: The number of the attempt that has ended. None when no handler has begun.
    """

    task_id: str = Field(min_length=1)
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    status: str
    result: Any = None
    error: TaskFault | None = None
    artifacts: list[dict[str, Any]] | None = None
    message: TaskMessage | None = None
    elapsed_ms: float | None = None
    timestamp: str = Field(default_factory=utc_now)
    seq: int | None = None
    attempt: int | None = None

    @field_validator("error", mode="before")
    @classmethod
    def _read_plain_error(cls, value: Any) -> Any:
        """Accept a plain string as the error, from other implementations."""
        return {"message": value} if isinstance(value, str) else value


class TaskEvent(Message):
    """Reports what happens to a task before its result (ours).

    Attributes:
        task_id: The id of the task.
        sender: ``from`` in JSON: the agent that has the task.
        to: The requester.
        seq: The number of the event, from 1 for each task. The numbers continue after a restart. A crash may leave
            a gap.
        type: ``status``, ``progress``, ``partial`` or ``artifact``.
        status: The new state, for ``status``.
        progress: How much is done, for ``progress``.
        total: How much there is to do, if known.
        content: A text: what is being done, a part of the answer, or the question when input is required.
        data: Any other JSON value. When input is required: ``{"input_id", "schema"?}``.
        parts: The content of an artifact in A2A's form, when ``data`` cannot say all of it.
        append: Whether the content of an artifact comes after the content that was sent before under its name.
        last_chunk: Whether the artifact is complete, for an artifact that is sent in chunks.
        artifact_id: See :class:`Artifact`.
        metadata: Any other information about the artifact.
        attempt: The number of the attempt at the task, for ``status``.
        timestamp: When the event happened, ISO 8601 UTC.
    """

    task_id: str = Field(min_length=1)
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    to: str | None = None
    seq: int = 0
    type: str = "status"
    status: str | None = None
    progress: float | None = None
    total: float | None = None
    content: str | None = None
    data: Any = None
    parts: list[Part] | None = None
    append: bool | None = None
    last_chunk: bool | None = None
    artifact_id: str | None = None
    metadata: dict[str, Any] | None = None
    attempt: int | None = None
    timestamp: str = Field(default_factory=utc_now)


class Control(Message):
    """Asks the agent that has a task to cancel the task, to accept an input, or to send the task's state (ours).

    Attributes:
        task_id: The id of the task.
        action: ``cancel``, ``input`` or ``get``.
        sender: ``from`` in JSON: the requester of the task.
        input: The answer to a question, for ``input``.
        input_id: The id of the question.
        reason: Why the task is canceled, for ``cancel``.
        task_ids: For ``get`` and ``cancel``, the ids of all tasks that the message is about, up to 100. ``task_id`` is
            the first.
        timestamp: When the message was written, ISO 8601 UTC.
    """

    task_id: str = Field(min_length=1)
    action: str
    sender: str | None = Field(default=None, validation_alias="from", serialization_alias="from")
    input: Any = None
    input_id: str | None = None
    reason: str | None = None
    task_ids: list[str] | None = None
    timestamp: str = Field(default_factory=utc_now)


def unknown_tasks(result: TaskResult) -> list[str]:
    """The ids of the tasks that an executor does not know, if a result answers a question; else an empty list."""
    fault = result.error
    if fault is None or (fault.type, fault.code) != ("not_found", UNKNOWN_TASK):
        return []
    data: Any = fault.data  # pyright: ignore[reportUnknownMemberType]
    data = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    named: Any = data.get("task_ids")
    listed = cast("list[Any]", named) if isinstance(named, list) else []
    return [task_id for task_id in listed[:MOST_ASKED] if isinstance(task_id, str)]


_STATES: dict[str, TaskState] = {state.value: state for state in TaskState}


def state_of(word: str) -> TaskState:
    """The state with this name; faster than ``TaskState(word)``.

    Raises:
        ValueError: No state has this name.
    """
    state = _STATES.get(word)
    return TaskState(word) if state is None else state


_OTHER_WORDS = {"cancelled": TaskState.CANCELED, "error": TaskState.FAILED, "failure": TaskState.FAILED}


def read_result_state(result: TaskResult) -> TaskState:
    """The state that a result reports. When its ``status`` is an unknown word, its ``error`` decides.

    Returns:
        A terminal state. It is another state when the sender used a result message to report on a running task.
    """
    # In A2A's protobuf form, a state has this prefix, and underscores instead of hyphens.
    state = _STATES.get(result.status)
    if state is not None:
        return state
    word = result.status.lower().removeprefix("task_state_").replace("_", "-")
    if word in _OTHER_WORDS:
        return _OTHER_WORDS[word]
    try:
        return TaskState(word)
    except ValueError:
        pass
    return TaskState.FAILED if result.error is not None else TaskState.COMPLETED


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        return {
            key: _sorted(item) if isinstance(item := plain[key], (dict, list)) else item  # mostly texts
            for key in sorted(plain)
        }
    if isinstance(value, list):
        return [_sorted(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
