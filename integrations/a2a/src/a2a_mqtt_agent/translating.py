"""Translates between the messages of MQTT.Agent and those of A2A 1.0: parts, messages, artifacts and states."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from mqtt_agent.wire import Part, TaskMessage, TaskState, content_of_parts, read_time

__all__ = [
    "ASKING",
    "TERMINAL",
    "content_of",
    "derived_id",
    "from_message",
    "from_part",
    "from_struct",
    "note",
    "plain",
    "state_of",
    "status_of",
    "timestamp",
    "to_message",
    "to_parts",
    "word_of",
]

_IDS = uuid.UUID("6f6b2f0e-6c1b-5c8e-9f0e-0d6f1a2b7c11")
_STATES = {state: a2a.TaskState.Value(f"TASK_STATE_{state.value.upper().replace('-', '_')}") for state in TaskState}
_WORDS = {number: state for state, number in _STATES.items()}
TERMINAL = frozenset(number for state, number in _STATES.items() if state.terminal)
"""A2A's terminal states."""
_MOST_LEVELS = 80
"""How many messages of protobuf a value may be deep. An answer has up to six around it, and 100 is the most."""
ASKING = frozenset((a2a.TASK_STATE_INPUT_REQUIRED, a2a.TASK_STATE_AUTH_REQUIRED))
"""The states in which an A2A task waits for a message of its user."""


def derived_id(*parts: str) -> str:
    """An id that is the same for the same texts, so that a request that is sent again means the same task."""
    return uuid.uuid5(_IDS, "\n".join(parts)).hex


def state_of(state: TaskState) -> a2a.TaskState:
    """A2A's name of a state."""
    return cast("a2a.TaskState", _STATES[state])


def word_of(state: int) -> TaskState:
    """The state of a task with A2A's state. ``submitted`` for a state that A2A does not specify."""
    return _WORDS.get(state, TaskState.SUBMITTED)


def plain(value: Any) -> Any:
    """JSON in which whole numbers are integers again. Protobuf keeps every number as a float."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [plain(each) for each in cast("list[Any]", value)]
    return value


def from_struct(message: Message) -> Any:
    """A protobuf ``Struct`` or ``Value`` as JSON."""
    return plain(MessageToDict(message))


def timestamp(text: str | None = None) -> Timestamp:
    """A time as protobuf has it.

    Args:
        text: ISO 8601; None, or a text that is no time, means now.
    """
    seconds, stamp = None if text is None else read_time(text), Timestamp()
    if seconds is None:
        stamp.GetCurrentTime()
    else:
        stamp.FromMilliseconds(round(seconds * 1000))
    return stamp


# Parts and messages


def to_parts(parts: Sequence[Part]) -> list[a2a.Part]:
    """Parts for an A2A agent. A part that A2A cannot carry becomes data, or the text of its JSON."""
    return [_to_part(part) for part in parts]


def _to_part(part: Part) -> a2a.Part:
    written = part.as_json()
    if part.kind == "data":
        written["data"] = part.data
    for form in (written, {"data": written}):
        with contextlib.suppress(Exception):  # an agent may send anything: a number that is too large, another type
            if _is_carried(form):
                return ParseDict(form, a2a.Part(), ignore_unknown_fields=True)
    return a2a.Part(text=json.dumps(written, ensure_ascii=False), media_type="application/json")


def _is_carried(value: Any) -> bool:
    """Whether protobuf carries JSON without a change: no number gets another value, and the levels are few enough.

    Protobuf has each number as a float, which has 53 bits: an id of 64 bits would silently become another id.

    Protobuf reads and copies at most 100 levels of messages, and whether it minds at some place depends on its
    implementation and on what other libraries have set in the process. So this limit is lower, and does not depend on
    protobuf: an object counts as the three messages that it is in protobuf, and an array as two.
    """
    waiting = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, Mapping):
            depth, inner = depth + 3, list(cast("Mapping[str, Any]", each).values())
        elif isinstance(each, (list, tuple)):
            depth, inner = depth + 2, cast("Sequence[Any]", each)
        else:
            if isinstance(each, int) and int(float(each)) != each:
                return False
            continue
        if depth > _MOST_LEVELS:
            return False
        waiting += [(child, depth) for child in inner]
    return True


def note(target: Struct, values: Mapping[str, Any]) -> None:
    """Add values to a protobuf ``Struct``. A value that protobuf cannot carry becomes the text of its JSON."""
    for key, value in values.items():
        with contextlib.suppress(Exception):  # an agent may send anything
            if _is_carried(value):
                target.MergeFrom(ParseDict({key: value}, Struct()))
                continue
        target.update({key: json.dumps(value, ensure_ascii=False)})


def from_part(part: a2a.Part) -> Part:
    """A part of an A2A agent."""
    return Part.model_validate(plain(MessageToDict(part)))


def content_of(parts: Sequence[a2a.Part]) -> Any:
    """What parts say without parts: their text, the data of a single data part, or None."""
    return content_of_parts([from_part(part) for part in parts])


def to_message(message: TaskMessage, message_id: str, task_id: str = "", context_id: str = "") -> a2a.Message:
    """A message for an A2A agent.

    Args:
        message: The message.
        message_id: The id of a message that has none.
        task_id: The id of the message's task.
        context_id: The id of the message's conversation.
    """
    made = a2a.Message(
        message_id=message.message_id or message_id,
        role=a2a.ROLE_USER if message.role == "user" else a2a.ROLE_AGENT,
        parts=to_parts(message.all_parts or [Part(text="")]),
        task_id=task_id,
        context_id=context_id,
        extensions=message.extensions or (),
        reference_task_ids=message.reference_task_ids or (),
    )
    if message.metadata:
        note(made.metadata, message.metadata)
    return made


def from_message(message: a2a.Message) -> TaskMessage:
    """A message of an A2A agent."""
    return TaskMessage(
        role="agent" if message.role == a2a.ROLE_AGENT else "user",
        parts=[from_part(part) for part in message.parts],
        message_id=message.message_id or None,
        extensions=list(message.extensions) or None,
        reference_task_ids=list(message.reference_task_ids) or None,
        metadata=from_struct(message.metadata) if message.HasField("metadata") else None,
    )


def status_of(
    state: TaskState, said: TaskMessage | str | None = None, *, at: str | None = None, task: a2a.Task | None = None
) -> a2a.TaskStatus:
    """The status of a task.

    Args:
        state: The state.
        said: What the agent says with it.
        at: When, ISO 8601; None means now.
        task: The task, whose ids the message of the agent gets.
    """
    status = a2a.TaskStatus(state=state_of(state), timestamp=timestamp(at))
    if said is not None and said != "":
        message = TaskMessage(role="agent", content=said) if isinstance(said, str) else said
        ids = ("", "") if task is None else (task.id, task.context_id)
        status.message.CopyFrom(to_message(message, uuid.uuid4().hex, *ids))
    return status
