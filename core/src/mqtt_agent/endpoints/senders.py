"""Reads from a message's topic and payload who says that it has sent the message, and what the message is."""

from __future__ import annotations

from typing import Any, cast

import pydantic_core

from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Topics
from mqtt_agent.wire.contents import chunk_header

__all__ = ["claimed_sender", "fields_of", "kind_of", "named_sender", "offered_tools", "text_of"]

_NAMED_BY = {
    **dict.fromkeys(("call", "cancel", "query", "input", "request"), "client"),
    **dict.fromkeys(("responses", "stream"), "server"),
}
"""The field of the payload that names the sender, by the kind of the topic, for tools."""


def claimed_sender(topics: Topics, message: InboundMessage) -> str | None:
    """The name of the sender, as a message's topic or payload tells it; None when neither does.

    Example:
        >>> topics = Topics("a2a/v1")
        >>> claimed_sender(topics, InboundMessage("a2a/v1/agents/agent-a/status", b"{}"))
        'agent-a'
        >>> claimed_sender(topics, InboundMessage("a2a/v1/tasks/agent-b/inbox", b'{"from": "agent-a"}'))
        'agent-a'
    """
    writer = topics.bound.writer(message.topic)
    return writer if writer is not None else named_sender(topics, message.topic, fields_of(message.payload))


def named_sender(topics: Topics, topic: str, fields: dict[str, Any]) -> str | None:
    """The name of the sender in a message's payload, or in a topic that belongs to one endpoint, such as its card's.

    Args:
        topics: The topics of the namespace.
        topic: The message's topic. The writer of a sender-bound topic is not looked at.
        fields: The fields of the message's payload; see :func:`fields_of`.
    """
    room, name, kind = (*_levels(topics, topic), "", "", "")[:3]
    own = {"servers": ("card", "events"), "agents": ("card", "status", "query", "members")}
    if kind in own.get(room, ()):
        return name
    if room == "clients" and kind == "query":
        return name
    if room in ("agents", "tasks"):
        return text_of(fields["from"] if "from" in fields else fields.get("sender"))  # the reader takes both names
    if room == "tools" and kind == "card":
        return text_of(fields.get("server"))
    if kind == "responses" and topics.bound.writer(topic) is None:
        return text_of(fields.get("server")) or name  # without a server, it is a message of the client to itself
    return text_of(fields.get(_NAMED_BY.get(kind, "")))


def offered_tools(topics: Topics, message: InboundMessage) -> list[str]:
    """The tools that a tool card or a server card offers, or removes; none for every other message."""
    room, name, kind = (*_levels(topics, message.topic), "", "", "")[:3]
    if kind != "card" or room not in ("tools", "servers"):
        return []
    if room == "tools":
        return [name]
    fields = fields_of(message.payload)
    listed = [cast("list[object]", each) for each in map(fields.get, ("tools", "claims")) if isinstance(each, list)]
    return [each for some in listed for each in some if isinstance(each, str)]


def kind_of(topics: Topics, topic: str) -> tuple[str, str | None]:
    """The kind of a message, and the tool, server, client or agent below whose name its topic is.

    Example:
        >>> kind_of(Topics("a2a/v1"), "a2a/v1/mcp/tools/forecast/call")
        ('call', 'forecast')
    """
    room, name, kind = (*_levels(topics, topic), "", "", "")[:3]
    return kind or room, name or None


def fields_of(payload: bytes) -> dict[str, Any]:
    """The fields of a payload, or of the header of a chunk; none when the payload is no JSON object."""
    try:
        fields = pydantic_core.from_json(chunk_header(payload) or payload)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def text_of(value: object) -> str | None:
    """A text that is not empty; None for every other value."""
    return value if isinstance(value, str) and value else None


def _levels(topics: Topics, topic: str) -> list[str]:
    levels = topic[len(topics.namespace) + 1 :].split("/")
    return levels[1:] if levels[0] == "mcp" else levels
