"""AutoGen's messages and events on their way to another host and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    MessageFactory,
    SelectorEvent,
    TextMessage,
    ThoughtEvent,
)

__all__ = ["AnyMessage", "Codec", "essence"]

logger: logging.Logger = logging.getLogger(__name__)

AnyMessage = BaseAgentEvent | BaseChatMessage

_VOLATILE = ("id", "created_at", "models_usage", "metadata", "full_message_id")
DOWNGRADED = "mqtt_downgraded_from"
"""The name in a message's metadata under which its real type stands, when it was not known here."""


class Codec:
    """Encodes every message type of AutoGen, and decodes those that are known here.

    A message of an unknown type becomes a ``TextMessage`` with its text, an unknown event a ``ThoughtEvent``; so does
    one that cannot be read. ``metadata["mqtt_downgraded_from"]`` names its type then.

    Args:
        message_types: Further types, such as ``StructuredMessage[Report]``.

    Raises:
        ValueError: One of them is no message type, or has the name of another one.
    """

    def __init__(self, message_types: Iterable[type[AnyMessage]] = ()) -> None:
        self._factory = MessageFactory()
        for message_type in message_types:
            self._factory.register(message_type)
        self.known: MessageFactory = MessageFactory()
        """Also what a team does not know unless it is told."""
        for message_type in (*message_types, SelectorEvent):
            if not self.known.is_registered(message_type):
                self.known.register(message_type)

    def encode(self, message: AnyMessage) -> dict[str, Any]:
        """As JSON, with what a reader needs who does not know its type."""
        kind = "chat" if isinstance(message, BaseChatMessage) else "event"
        return {"kind": kind, "message": dict(message.dump()), "text": message.to_text()}

    def decode(self, encoded: Mapping[str, Any]) -> AnyMessage:
        """The message, or what is left of it here."""
        data = encoded.get("message")
        try:
            if not isinstance(data, Mapping):
                raise ValueError("there is no message in it")
            return self.known.create(data)
        except Exception as error:  # whatever a peer wrote, and whatever a registered type's validators raise
            logger.info("a message is taken as text: %s", error)
            return _downgraded(encoded.get("kind") == "chat", data if isinstance(data, Mapping) else {}, encoded)

    def for_team(self, message: AnyMessage) -> AnyMessage:
        """The message itself, or as text when a team does not know its type: that would end the team."""
        if self._factory.is_registered(type(message)):
            return message
        encoded = self.encode(message)
        return _downgraded(isinstance(message, BaseChatMessage), encoded["message"], encoded)


def essence(message: AnyMessage) -> str:
    """What two messages have in common that say the same, whenever and by whatever run of a model they were made."""
    content = {key: value for key, value in message.dump().items() if key not in _VOLATILE}
    return json.dumps(content, sort_keys=True)


def _downgraded(chat: bool, data: Mapping[str, Any], encoded: Mapping[str, Any]) -> AnyMessage:
    text, source, known_id = encoded.get("text"), data.get("source"), data.get("id")
    kept: dict[str, Any] = {"id": known_id} if isinstance(known_id, str) else {}
    metadata = {DOWNGRADED: str(data.get("type"))}
    return (TextMessage if chat else ThoughtEvent)(
        content=text if isinstance(text, str) else json.dumps(data),
        source=source if isinstance(source, str) else "unknown",
        metadata=metadata,
        **kept,
    )
