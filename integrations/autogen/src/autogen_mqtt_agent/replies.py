"""How a peer's events and answer become AutoGen's messages for the caller's team."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import (
    BaseChatMessage,
    HandoffMessage,
    ModelClientStreamingChunkEvent,
    TextMessage,
    ThoughtEvent,
)
from mqtt_agent import TaskEvent
from mqtt_agent.adapting.content import Block, Text, as_text, in_words
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.parts import read_artifact
from pydantic import ValidationError

from autogen_mqtt_agent.messages import AnyMessage, Codec, essence
from autogen_mqtt_agent.parts import message_from
from autogen_mqtt_agent.turns import Answer, Told

__all__ = ["Replies"]

logger: logging.Logger = logger_of(__name__)


class Replies:
    """The events and the answer of one turn.

    A host that was killed takes the turn again, and sends all its messages again. Repeated messages are left out.

    Args:
        name: The participant's name in this team.
        codec: Reads messages.
        roster: The names that a handoff may lead to; None for any name.

    Attributes:
        from_host: Whether the answer came from an :class:`AgentHost`, and not from an agent that does not use AutoGen.
    """

    def __init__(self, name: str, codec: Codec, roster: Mapping[str, str] | None) -> None:
        self.from_host: bool = False
        self._name = name
        self._codec = codec
        self._roster = roster
        self._ids: set[str] = set()
        self._told: list[str] = []
        self._place = 0
        self._attempt: int | None = None

    def event(self, event: TaskEvent) -> Iterator[AnyMessage]:
        """The message in an event; nothing when the event has no message, or repeats a message of another attempt."""
        if event.attempt is not None and event.attempt != self._attempt:
            self._attempt, self._place = event.attempt, 0  # another attempt sends everything again
        message = self._read(event)
        if message is not None and self._is_news(message):
            yield message

    def response(self, result: Any, blocks: Sequence[Block] | None = None) -> Response:
        """The answer. The result of an agent that does not use AutoGen becomes text, with pictures if it has some.

        Args:
            result: The value of the result.
            blocks: The blocks of the answer, when the value is not the whole answer.
        """
        try:
            answer = Answer.model_validate(result)
        except ValidationError:
            said = [Text(as_text(result))] if blocks is None else blocks
            return Response(chat_message=message_from(said, self._name))
        self.from_host = True
        message = self._codec.for_team(self._codec.decode(answer.chat_message))
        if not isinstance(message, BaseChatMessage):
            message = TextMessage(content=message.to_text(), source=self._name, id=message.id)
        # A team knows a participant by its name in the team. GraphFlow ends silently when an answer has another name.
        message = message.model_copy(update={"source": self._name})
        inner: list[AnyMessage] | None = None
        if answer.inner_messages is not None:
            inner = [self._named(self._codec.decode(each), answer.name) for each in answer.inner_messages]
        return Response(chat_message=self._with_a_known_target(message), inner_messages=inner)

    def left_out(self, response: Response) -> Iterator[AnyMessage]:
        """The inner messages that did not arrive as events. Lost events are not sent again."""
        for message in response.inner_messages or ():
            if message.id not in self._ids and self._is_news(message):
                yield message

    def _read(self, event: TaskEvent) -> AnyMessage | None:
        if event.type == "progress":
            of = "" if event.total is None else f" of {event.total:g}"
            progress = f"{event.progress:g}{of}" if event.progress is not None else ""
            content = event.content or progress
            return ThoughtEvent(content=content, source=self._name, metadata={"mqtt_progress": progress})
        if event.type == "artifact":
            name = event.content or ""
            words = in_words(read_artifact(event))
            return ThoughtEvent(content=f"{name}: {words}", source=self._name, metadata={"mqtt_artifact": name})
        if event.type != "partial":
            return None
        try:
            told = Told.model_validate(event.data)
        except ValidationError:
            text = as_text(event.data if event.content is None else event.content)
            return ModelClientStreamingChunkEvent(content=text, source=self._name)
        message = self._codec.decode(told.message)
        return self._named(message, message.source if told.own else None)

    def _named(self, message: AnyMessage, own: str | None) -> AnyMessage:
        if message.source == own:
            message = message.model_copy(update={"source": self._name})
        return self._codec.for_team(message)

    def _with_a_known_target(self, message: BaseChatMessage) -> BaseChatMessage:
        if not isinstance(message, HandoffMessage) or self._roster is None:
            return message
        if message.target in self._roster or message.target in (self._name, "user"):
            return message
        logger.warning(
            "%s hands over to %r, a name that is not in the roster: the handoff becomes text",
            self._name,
            message.target,
        )
        metadata = {**message.metadata, "mqtt_unknown_target": message.target}
        return TextMessage(content=message.content, source=message.source, id=message.id, metadata=metadata)

    def _is_news(self, message: AnyMessage) -> bool:
        self._ids.add(message.id)
        said = essence(message)
        if self._place < len(self._told) and self._told[self._place] == said:
            self._place += 1
            return False
        self._told[self._place :] = [said]
        self._place += 1
        return True
