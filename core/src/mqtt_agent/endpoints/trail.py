"""The trail: makes the audit's line about each message that a connection receives and sends in one namespace."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from mqtt_agent.endpoints.senders import fields_of, kind_of, named_sender, text_of
from mqtt_agent.transport import Connection, InboundMessage, MessageAudit, MessageIdentity
from mqtt_agent.wire import Topics
from mqtt_agent.wire.contents import chunk_header

__all__ = ["Trail", "line_about"]

_LONGEST = 200  # characters of a name or an id, which a stranger may choose
_LONGEST_TOPIC = 1000


class Trail:
    """Makes the lines of one namespace.

    Args:
        audit: Where the lines go.
        topics: The topics of the namespace.
        connection: The connection that receives and sends the messages.
    """

    def __init__(self, audit: MessageAudit, topics: Topics, connection: Connection) -> None:
        self._audit = audit
        self._topics = topics
        self._connection = connection
        self._identity: MessageIdentity | None = connection.identity

    @property
    def _endpoint(self) -> str:
        return self._connection.client_id  # a member of a pool gets its client id when it starts

    def received(self, message: InboundMessage, unproven: str | None, revises: str | None = None) -> dict[str, Any]:
        """Write the line about a message that was received.

        Args:
            message: The message. Its ``refusal`` says whether the message was refused.
            unproven: Why nothing proves the sender; None when something does, or when nobody asks for proof.
            revises: The time of an earlier line about the message, which this line takes the place of.

        Returns:
            The line.

        Raises:
            AuditFailed: The line cannot be written, and the audit is required.
        """
        line = line_about(self._topics, self._endpoint, message, unproven, payloads=self._audit.payloads)
        if revises is not None:
            line["revises"] = revises
        self._audit.write(line)
        return line

    def sends(self, topic: str, payload: bytes, *, signed: bool) -> None:
        """Write the line about a message that is about to be sent.

        Args:
            topic: The topic.
            payload: The bytes of the message.
            signed: Whether the message gets a signature, if the connection has a key.

        Raises:
            AuditFailed: The line cannot be written, and the audit is required.
        """
        message = InboundMessage(topic, payload)
        line = line_about(self._topics, self._endpoint, message, None, payloads=self._audit.payloads)
        signer = None if self._identity is None else self._identity.name
        if self._identity is not None and signer is not None and signed:
            line.update(proven=signer, how="signature", key=self._identity.key_id)
        line.update(direction="out", outcome="sent", reason=None)
        self._audit.write(line)


def line_about(
    topics: Topics, endpoint: str, message: InboundMessage, unproven: str | None, *, payloads: bool
) -> dict[str, Any]:
    """The values of an audit's line about a message that was received; see :class:`mqtt_agent.identity.Audit`.

    Args:
        topics: The topics of the namespace.
        endpoint: Who received the message.
        message: The message.
        unproven: Why nothing proves the sender; None when something does, or when nobody asks for proof.
        payloads: Whether the line has the payload; of a chunk of a content, only the header.
    """
    fields = fields_of(message.payload)
    kind, subject = kind_of(topics, message.topic)
    writer = topics.bound.writer(message.topic)
    claimed = named_sender(topics, message.topic, fields) or writer
    reason, refused = unproven, message.refusal is not None
    if message.refusal is not None:
        reason = message.refusal.reason
    elif writer is not None and claimed != writer:
        reason, refused = f"the message names {claimed!r:.80}, but its topic says that {writer} sent it", True
    proof = message.proof
    how = "signature" if proof.signer is not None else None if writer is None else "topic"
    line: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "endpoint": endpoint,
        "direction": "in",
        "claimed": _cut(claimed),
        "proven": proof.signer or writer,
        "how": how,
        "key": proof.key_id or None,
        "topic": message.topic[:_LONGEST_TOPIC],
        "kind": kind,
        "of": subject,
        "id": _cut(_id_of(topics, message.topic, fields)),
        "outcome": "refused" if refused else "accepted",
        "reason": reason,
    }
    if message.retain:
        line["retained"] = True
    if payloads:
        line["payload"] = (chunk_header(message.payload) or message.payload).decode(errors="replace")
    return line


def _id_of(topics: Topics, topic: str, fields: dict[str, Any]) -> str | None:
    """The call id of a message for tools, and the task id of any other message. A stranger may send both."""
    names = ("call_id", "task_id")
    is_call = topic.startswith(f"{topics.namespace}/mcp/")
    first, second = (text_of(fields.get(name)) for name in (names if is_call else reversed(names)))
    return first or second


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_LONGEST]
