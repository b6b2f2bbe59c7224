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
from mqtt_agent.adapting.logs import logger_of

__all__ = ["AnyMessage", "Codec", "essence"]

logger: logging.Logger = logger_of(__name__)

AnyMessage = BaseAgentEvent | BaseChatMessage

_VOLATILE = ("id", "created_at", "models_usage", "metadata", "full_message_id")


class Codec:
    """Encodes every message type of AutoGen, and decodes the types that are known here.

    A message of an unknown type becomes a ``TextMessage`` with its text, and an unknown event a ``ThoughtEvent``. The
    same happens to a message that cannot be decoded. ``metadata["mqtt_downgraded_from"]`` then has the type's name.

    Args:
        message_types: Further types, such as ``StructuredMessage[Report]``.

    Raises:
        ValueError: One of the types is no message type, or has the name of another type.
    """

    def __init__(self, message_types: Iterable[type[AnyMessage]] = ()) -> None:
        self._of_teams = MessageFactory()
        self._known = MessageFactory()
        for message_type in message_types:
            self._of_teams.register(message_type)
            self._known.register(message_type)
        if not self._known.is_registered(SelectorEvent):  # AutoGen's own type, which is not in its MessageFactory
            self._known.register(SelectorEvent)

    def encode(self, message: AnyMessage) -> dict[str, Any]:
        """The message as JSON, with a text for readers that do not know the message's type."""
        kind = "chat" if isinstance(message, BaseChatMessage) else "event"
        return {"kind": kind, "message": dict(message.dump()), "text": message.to_text()}

    def decode(self, encoded: Mapping[str, Any]) -> AnyMessage:
        """The message, or its text when the message cannot be read."""
        data = encoded.get("message")
        try:
            if not isinstance(data, Mapping):
                raise ValueError("the encoded message has no field 'message'")
            return self._known.create(data)
        except Exception as error:  # a peer may write anything, and a registered type's validators may raise anything
            logger.info("a message cannot be decoded, and becomes text: %s", error)
            return _downgraded(encoded.get("kind") == "chat", data if isinstance(data, Mapping) else {}, encoded)

    def for_team(self, message: AnyMessage) -> AnyMessage:
        """The message, or its text when its type is not registered in AutoGen's teams: the message would end a team."""
        if self._of_teams.is_registered(type(message)):
            return message
        encoded = self.encode(message)
        return _downgraded(isinstance(message, BaseChatMessage), encoded["message"], encoded)


def essence(message: AnyMessage) -> str:
    """The content of a message, without ids, times and usage. Two messages that say the same have the same essence."""
    content = {key: value for key, value in message.dump().items() if key not in _VOLATILE}
    return json.dumps(content, sort_keys=True)


def _downgraded(chat: bool, data: Mapping[str, Any], encoded: Mapping[str, Any]) -> AnyMessage:
    text, source, known_id = encoded.get("text"), data.get("source"), data.get("id")
    kept: dict[str, Any] = {"id": known_id} if isinstance(known_id, str) else {}
    return (TextMessage if chat else ThoughtEvent)(
        content=text if isinstance(text, str) else json.dumps(data),
        source=source if isinstance(source, str) else "unknown",
        metadata={"mqtt_downgraded_from": str(data.get("type"))},
        **kept,
    )
