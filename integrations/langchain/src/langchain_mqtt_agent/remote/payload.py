"""A Runnable's input becomes a request to a peer; the peer's result becomes messages, a state update or a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.prompt_values import PromptValue
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.parts import message_of
from mqtt_agent.adapting.replaying import Request
from mqtt_agent.wire import to_json
from pydantic import BaseModel

from langchain_mqtt_agent.content import are_blocks
from langchain_mqtt_agent.parts import blocks_in

__all__ = ["REPORT", "Outcome", "Reply", "Shape", "request_from", "shape_of"]

REPORT = "langgraph"
"""The name of the artifact in which a hosted graph says what its run used."""
_ROLES = {"human": "user", "ai": "agent", "system": "system"}

Shape = Literal["state", "message", "value"]


@dataclass
class Outcome:
    """How a task ended.

    Attributes:
        value: The result.
        text: The text that the peer streamed.
        about: Task id, peer, attempt, elapsed time in milliseconds, artifacts.
    """

    value: Any
    text: str
    about: dict[str, Any] = field(default_factory=dict[str, Any])


def request_from(value: Any) -> Request:
    """Make a request: text is the prompt, messages are the conversation, anything else is structured input.

    Of a state with ``messages``, only the conversation is sent, and not the other keys.

    Raises:
        ValueError: The conversation has no message that can be sent.
    """
    if isinstance(value, str):
        return Request(prompt=value)
    messages = _messages_of(value)
    if messages or isinstance(value, PromptValue):
        return _conversation(messages)
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return Request(data={key: _plain(each) for key, each in plain.items()})
    return Request(data=plain)


def shape_of(value: Any) -> Shape:
    """The form of the output for an input: a ``state`` with messages, a ``message``, or the plain ``value``."""
    if isinstance(value, (str, BaseMessage, PromptValue)):
        return "message"
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return "state" if "messages" in plain else "value"
    return "value" if _messages_of(plain) is None else "message"


def _messages_of(value: Any) -> Any:
    """The conversation in an input; None when the input has no conversation."""
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, BaseMessage):
        return [value]
    plain = _plain(value)
    if isinstance(plain, Mapping):
        return plain.get("messages")
    is_conversation = isinstance(plain, Sequence) and plain and all(isinstance(each, BaseMessage) for each in plain)
    return plain if is_conversation else None


def _conversation(messages: Any) -> Request:
    """Make a request from a conversation: it has the messages of people and agents, without tool calls.

    The prompt is the last message of the user. Behind it may be answers of other agents, or a supervisor's handoff.
    """
    told: list[dict[str, Any]] = []
    for message in convert_to_messages(messages):
        role = _ROLES.get(message.type.removesuffix("MessageChunk").lower())
        if role is None or not message.content:
            continue
        if isinstance(message.content, str):
            name = {"name": message.name} if message.name else {}
            told.append({"role": role, "content": message.content, **name})
        elif blocks := blocks_in(message):
            told.append(message_of(blocks, role=role, name=message.name or None).as_json())
    if not told:
        raise ValueError("there is no message to send: the conversation is empty")
    last = ([each for each in told if each["role"] == "user"] or told)[-1].get("content")
    return Request(prompt=last if isinstance(last, str) else None, messages=told)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel) and not isinstance(value, BaseMessage):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return value


def _report_of(outcome: Outcome) -> dict[str, Any]:
    """What a hosted graph says of its run: ``usage`` by model, and ``tool_calls``. Empty when it says nothing."""
    artifacts = outcome.about.get("artifacts") or ()
    data = next((each.get("data") for each in artifacts if each.get("name") == REPORT), None)
    if not isinstance(data, dict):
        return {}
    wanted = {"usage": dict, "tool_calls": list}
    return {name: data[name] for name, kind in wanted.items() if isinstance(data.get(name), kind)}


def _sum_of(usage: list[dict[str, Any]]) -> UsageMetadata | None:
    """The usage of all models; None when there is none, or when the peer does not send numbers."""
    total: UsageMetadata | None = None
    try:
        for each in usage:
            total = add_usage(total, cast("UsageMetadata", each))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return total


@dataclass
class Reply:
    """The message that a peer writes, and the output of the Runnable for the message.

    Attributes:
        peer: The peer that writes.
        shape: The form of the output; see :func:`shape_of`.
        output_key: The key of the output that holds the result; None when ``shape`` alone decides.
        message_id: The id of the message.
    """

    peer: str
    shape: Shape
    output_key: str | None
    message_id: str

    @property
    def in_chunks(self) -> bool:
        """Whether the output can come piece by piece, as chunks of the message."""
        return self.shape == "message" and self.output_key is None

    def message(self, outcome: Outcome) -> AIMessage:
        """The message. ``response_metadata["mqtt"]`` has the result itself and what is known about the task."""
        value = outcome.value
        report = _report_of(outcome)
        usage = [each for each in (report.get("usage") or {}).values() if isinstance(each, dict)]
        about: dict[str, Any] = {"mqtt": {**outcome.about, **report, "result": to_json(value)}}
        if len(usage) == 1:
            about["model_name"] = next(iter(report["usage"]))
        content = value if are_blocks(value) else as_text(value)
        message = AIMessage(content=content, name=self.peer, id=self.message_id, response_metadata=about)
        message.usage_metadata = _sum_of(usage)
        return message

    def output(self, outcome: Outcome) -> Any:
        """The output for a result."""
        value, message = outcome.value, self.message(outcome)
        if outcome.text and value != outcome.text:
            # LangGraph's mode "messages" emits the whole message only if its id is not the id of the streamed tokens.
            message.id = f"{self.message_id}-result"
        if self.output_key is not None:
            return {self.output_key: [message] if self.output_key == "messages" else value}
        return {"messages": [message]} if self.shape == "state" else message if self.shape == "message" else value

    def chunk(self, text: str) -> AIMessageChunk:
        """A piece of the message."""
        return AIMessageChunk(content=text, id=self.message_id, name=self.peer)

    def rest(self, outcome: Outcome) -> AIMessageChunk:
        """The last chunk, with what the earlier chunks lack: nothing, the end of the text, or the whole result."""
        message = self.message(outcome)
        content = message.content
        if isinstance(content, str) and content.startswith(outcome.text):
            content = content[len(outcome.text) :]
        about = message.response_metadata
        last = AIMessageChunk(content=content, id=self.message_id, response_metadata=about, chunk_position="last")
        last.usage_metadata = message.usage_metadata
        return last
