"""What a task asks in A2A, and what it is answered."""

from __future__ import annotations

import hashlib
from typing import Any

from a2a.types import a2a_pb2 as a2a
from mqtt_agent.wire import TaskMessage
from pydantic import ValidationError

from a2a_mqtt_agent.translating import ASKING, from_struct

__all__ = ["about", "answer_message", "name_of_question"]


def about(task: a2a.Task) -> dict[str, Any]:
    """What a gateway says about a task of its namespace, beside what A2A has a place for."""
    said: Any = from_struct(task.metadata).get("mqtt-agent", {}) if task.HasField("metadata") else {}
    return said if isinstance(said, dict) else {}


def name_of_question(task: a2a.Task) -> str:
    """A name for the question of a task, the same at each look at the task; empty when the task asks nothing.

    Some agents give all their messages one id, so the text belongs to the name.
    """
    if task.status.state not in ASKING:
        return ""
    asked = task.status.message
    said = hashlib.sha256("\n".join(part.text for part in asked.parts).encode()).hexdigest()[:12]
    return f"{about(task).get('input_id', '')}:{asked.message_id or len(task.history)}:{said}"


def answer_message(value: Any) -> TaskMessage:
    """An answer as a message. A requester may answer with a whole message, to send files."""
    if isinstance(value, dict) and isinstance(value.get("parts"), list):
        try:
            said = TaskMessage.model_validate(value)
            return said.model_copy(update={"role": "user", "message_id": None})
        except ValidationError:
            pass
    return TaskMessage(role="user", content=value)
