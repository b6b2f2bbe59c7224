"""The screen: lets only messages with proven senders pass, where an endpoint asks for proof, and notes them all."""

from __future__ import annotations

import logging
from functools import partial

from mqtt_agent.endpoints.senders import claimed_sender, offered_tools
from mqtt_agent.endpoints.trail import Trail
from mqtt_agent.errors import AuditFailed
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage, MessageIdentity, Refusal
from mqtt_agent.wire import Topics, is_identifier

__all__ = ["Screen", "screen_messages", "why_unproven"]

logger: logging.Logger = logger_of(__name__)

_MOST_TOLD = 1000
_LONGEST = 300  # characters of a reason
_NOT_PROVEN = "NOT_PROVEN"
_UNTRUSTED = f"; it says {_NOT_PROVEN}: if it is true, its sender does not trust the key of this program"


def screen_messages(connection: Connection, topics: Topics) -> None:
    """Put a screen before the handlers of a namespace, if the connection's identity asks for proof, or it has an audit.

    Args:
        connection: The connection of an endpoint.
        topics: The topics of the namespace.
    """
    identity = connection.identity
    if connection.audit is not None or (identity is not None and identity.verify != "off"):
        connection.screens.setdefault(topics.namespace, Screen(connection, topics))


class Screen:
    """Decides which messages of a namespace are believed to be by the senders that they name.

    With ``verify="log"``, a sender that is not proven is told in the log once, and the message passes. With
    ``"require"``, the message does not pass. A call, a task and a query pass with :attr:`InboundMessage.refusal`, so
    that the endpoint can answer them.

    Each message that is received or sent gets its line in the connection's audit, if there is one.

    Args:
        connection: The connection.
        topics: The topics of the namespace.
    """

    def __init__(self, connection: Connection, topics: Topics) -> None:
        self._connection = connection
        self._topics = topics
        identity, audit = connection.identity, connection.audit
        self._identity: MessageIdentity | None = identity if identity is not None and identity.verify != "off" else None
        self._trail = None if audit is None else Trail(audit, topics, connection)
        self._told: set[tuple[str | None, str]] = set()

    def passes(self, message: InboundMessage) -> bool:
        """Whether the handlers get a message of this namespace."""
        why = None if self._identity is None else why_unproven(self._topics, message)
        if self._identity is None or why is None:
            return True
        required = self._identity.verify == "require"
        self._tell(message, why, required)
        if not required:
            return True
        message.refusal = Refusal(why, _NOT_PROVEN)
        return _is_answered(self._topics, message.topic)

    def received(self, message: InboundMessage) -> None:
        """Note a message in the audit, after the handlers were called, or after it did not pass.

        A handler may still be deciding about the message. When it refuses the message later, another line says so.
        """
        if self._trail is not None:
            self._note(self._trail, None, message)

    def _note(self, trail: Trail, revises: str | None, message: InboundMessage) -> None:
        why = None if self._identity is None else why_unproven(self._topics, message)
        try:
            line = trail.received(message, why, revises)
        except AuditFailed as error:
            self._connection.give_up(error, publish_will=True)
        else:
            if line["outcome"] == "accepted":
                message.on_refused = partial(self._note, trail, line["time"])

    def sends(self, topic: str, payload: bytes, *, signed: bool) -> None:
        """Note a message in the audit before it is sent, and whether it is signed.

        Raises:
            AuditFailed: The audit is required, and cannot be written. The connection has ended.
        """
        if self._trail is None:
            return
        try:
            self._trail.sends(topic, payload, signed=signed)
        except AuditFailed as error:
            self._connection.give_up(error, publish_will=True)
            raise

    def _tell(self, message: InboundMessage, why: str, required: bool) -> None:
        kind = (claimed_sender(self._topics, message), message.topic)
        if kind not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(kind)
            what = "is refused" if required else "is accepted (verify='log')"
            hint = _UNTRUSTED if _NOT_PROVEN.encode() in message.payload else ""
            logger.warning("%s: a message on %s %s: %s%s", self._connection.client_id, message.topic, what, why, hint)


def why_unproven(topics: Topics, message: InboundMessage) -> str | None:
    """Why no signature proves the sender that a message names, or that it may offer the tools; None if one does."""
    name = claimed_sender(topics, message)
    proof = message.proof
    if proof.signer is not None and ((name is not None and proof.proves(name)) or not message.payload):
        # Without a payload, a card is removed. Its owner publishes it again if somebody else has removed it.
        foreign = [] if proof.serves is None else sorted(set(offered_tools(topics, message)) - proof.serves)
        told = ", ".join(each if is_identifier(each) else repr(each) for each in foreign)  # a peer may write anything
        return f"{proof.signer} may not offer the tool {told}"[:_LONGEST] if foreign else None
    fault = proof.fault or f"{proof.signer!r:.80} has signed it"
    sender = f"{name!r:.80} is the sender" if name is not None else "it is by a sender that it does not name"
    return f"nothing proves that {sender}: {fault}"


def _is_answered(topics: Topics, topic: str) -> bool:
    """Whether a topic is for calls, tasks or queries, whose senders wait for an answer also when they prove nothing."""
    levels = topic[len(topics.namespace) + 1 :].split("/")
    if levels[:1] == ["mcp"]:
        return (levels[1:2], levels[3:4]) in ((["tools"], ["call"]), (["servers"], ["query"]))
    return levels[2:3] == ["inbox"]
