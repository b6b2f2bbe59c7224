"""The screen: lets only messages pass whose senders are proven, where an endpoint asks for proof."""

from __future__ import annotations

import logging

import pydantic_core

from mqtt_agent.transport import Connection, InboundMessage, MessageIdentity
from mqtt_agent.wire import Topics

__all__ = ["Screen", "claimed_sender", "screen_messages"]

logger: logging.Logger = logging.getLogger(__name__)

_MOST_TOLD = 1000
_NAMED_BY = {
    **dict.fromkeys(("call", "cancel", "query", "input", "request"), "client"),
    **dict.fromkeys(("responses", "stream"), "server"),
}
"""The field of the payload that names the sender, by the kind of the topic, for tools."""


def screen_messages(connection: Connection, topics: Topics) -> None:
    """Let only proven messages of a namespace reach the handlers of a connection, if its identity asks for proof."""
    identity = connection.identity
    if identity is not None and identity.verify != "off":
        connection.screens.setdefault(topics.namespace, Screen(identity, topics, connection.client_id))


class Screen:
    """Decides which messages of a namespace are believed to be by the senders that they name.

    With ``verify="log"``, a sender that is not proven is told in the log once, and the message passes. With
    ``"require"``, the message does not pass. A call and a task pass with :attr:`InboundMessage.refusal`, so that the
    endpoint can answer them.

    Args:
        identity: The identity of the connection.
        topics: The topics of the namespace.
        owner: Whose screen it is, for the log.
    """

    def __init__(self, identity: MessageIdentity, topics: Topics, owner: str) -> None:
        self._identity = identity
        self._topics = topics
        self._owner = owner
        self._told: set[tuple[str | None, str]] = set()

    def passes(self, message: InboundMessage) -> bool:
        """Whether the handlers get a message of this namespace."""
        name = claimed_sender(self._topics, message)
        proof = message.proof
        if name is not None and proof.proves(name):
            return True
        if not message.payload and proof.signer is not None:
            return True  # a card that is removed; its owner publishes it again if somebody else has removed it
        fault = proof.fault or f"{proof.signer!r:.80} has signed it"
        sender = f"{name!r:.80} is the sender" if name is not None else "it is by a sender that it does not name"
        why = f"nothing proves that {sender}: {fault}"
        required = self._identity.verify == "require"
        kind = (name, message.topic)
        if kind not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(kind)
            what = "is refused" if required else "is accepted (verify='log')"
            logger.warning("%s: a message on %s %s: %s", self._owner, message.topic, what, why)
        if not required:
            return True
        message.refusal = why
        return _is_request(self._topics, message.topic)


def claimed_sender(topics: Topics, message: InboundMessage) -> str | None:
    """The name of the sender, as a message's topic or payload tells it; None when neither does.

    Example:
        >>> topics = Topics("a2a/v1")
        >>> claimed_sender(topics, InboundMessage("a2a/v1/agents/agent-a/status", b"{}"))
        'agent-a'
        >>> claimed_sender(topics, InboundMessage("a2a/v1/tasks/agent-b/inbox", b'{"from": "agent-a"}'))
        'agent-a'
    """
    topic = message.topic
    writer = topics.bound.writer(topic)
    if writer is not None:
        return writer
    levels = topic[len(topics.namespace) + 1 :].split("/")
    if levels[0] == "mcp":
        levels = levels[1:]
    room, name, kind = (*levels, "", "", "")[:3]
    if (room == "servers" and kind == "card") or (room == "agents" and kind in ("card", "status", "query", "members")):
        return name
    if room == "clients" and kind == "query":
        return name
    fields = _fields(message.payload)
    if room in ("agents", "tasks"):
        return _text(fields.get("from"))
    if room == "tools" and kind == "card":
        return _text(fields.get("server"))
    if kind == "responses":  # without a server, it is a message of the client to itself
        return _text(fields.get("server")) or name
    return _text(fields.get(_NAMED_BY.get(kind, "")))


def _is_request(topics: Topics, topic: str) -> bool:
    """Whether a topic is for calls or tasks, whose senders wait for an answer."""
    levels = topic[len(topics.namespace) + 1 :].split("/")
    return (levels[:2] == ["mcp", "tools"] and levels[3:4] == ["call"]) or levels[2:3] == ["inbox"]


def _fields(payload: bytes) -> dict[str, object]:
    try:
        fields = pydantic_core.from_json(payload)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
