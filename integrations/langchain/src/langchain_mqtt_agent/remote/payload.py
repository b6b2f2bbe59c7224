"""What goes to a peer for an input, and what its result becomes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from mqtt_agent.wire import to_json
from pydantic import BaseModel

__all__ = ["Work", "as_message", "as_text", "shape_of", "to_wire", "work_from"]

_ROLES = {"human": "user", "ai": "agent", "system": "system"}


@dataclass
class Work:
    """What a peer is asked to do.

    Attributes:
        prompt: As text.
        messages: The conversation so far, as on the wire.
        data: Structured input.
    """

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    data: Any = None


def as_text(value: Any) -> str:
    """A result as text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_wire(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """A conversation as a task carries it: what people and agents said, without the tool calls in between."""
    wire: list[dict[str, Any]] = []
    for message in messages:
        kind = message.type.removesuffix("MessageChunk").lower()
        role = _ROLES.get(kind)
        if role is None or not message.content:
            continue
        content = message.content if isinstance(message.content, str) else to_json(message.content)
        named = {"name": message.name} if message.name else {}
        wire.append({"role": role, "content": content, **named})
    return wire


def _of_messages(messages: Any) -> Work:
    wire = to_wire(convert_to_messages(messages))
    if not wire:
        raise ValueError("there is no message to send: the conversation is empty")
    last = wire[-1]["content"]
    text = last if isinstance(last, str) else _text_of(last)
    return Work(prompt=text, messages=wire)


def _text_of(blocks: list[Any]) -> str:
    texts = (block if isinstance(block, str) else block.get("text") for block in blocks)
    return "\n".join(text for text in texts if isinstance(text, str))


def work_from(value: Any) -> Work:
    """What to ask for: text is the prompt, messages are the conversation, anything else is structured input.

    A state with ``messages`` gives the conversation; its other keys are the graph's own business.
    """
    if isinstance(value, Work):
        return value
    if isinstance(value, PromptValue):
        return _of_messages(value.to_messages())
    if isinstance(value, str):
        return Work(prompt=value)
    if isinstance(value, BaseMessage):
        return _of_messages([value])
    plain = _plain(value)
    if isinstance(plain, Mapping):
        if plain.get("messages"):
            return _of_messages(plain["messages"])
        return Work(data={key: _plain(each) for key, each in plain.items()})
    if isinstance(plain, Sequence) and plain and all(isinstance(each, BaseMessage) for each in plain):
        return _of_messages(plain)
    return Work(data=plain)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel) and not isinstance(value, BaseMessage):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def shape_of(value: Any) -> str:
    """What the output for an input looks like: ``state`` with messages, a ``message``, or the plain ``value``."""
    if isinstance(value, (str, BaseMessage, PromptValue)):
        return "message"
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return "state" if "messages" in plain else "value"
    is_conversation = isinstance(plain, Sequence) and plain and all(isinstance(each, BaseMessage) for each in plain)
    return "message" if is_conversation else "value"


def as_message(value: Any, *, peer: str, message_id: str, about: dict[str, Any]) -> AIMessage:
    """A result as a message of the peer; the result itself, and what is known about its task, is with it."""
    content = value if isinstance(value, str) else as_text(value)
    if isinstance(value, list) and value and all(isinstance(each, dict) and "type" in each for each in value):
        content = value
    return AIMessage(content=content, name=peer, id=message_id, response_metadata={"mqtt": about})
