"""What comes back from a turn, as AutoGen's messages for the caller's team."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
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
from pydantic import ValidationError

from autogen_mqtt_agent.messages import AnyMessage, Codec, essence
from autogen_mqtt_agent.turns import Answer, Told

__all__ = ["Incoming"]

logger: logging.Logger = logging.getLogger(__name__)


class Incoming:
    """One turn's events and answer. What is told twice, because a host was killed and began again, is left out.

    Args:
        name: What the participant is called here.
        codec: Reads messages.
        roster: Whom a handoff may name; None for anybody.
    """

    def __init__(self, name: str, codec: Codec, roster: Mapping[str, str] | None) -> None:
        self._name = name
        self._codec = codec
        self._roster = roster
        self._ids: set[str] = set()
        self._told: list[str] = []
        self._place = 0
        self._attempt: int | None = None

    def event(self, event: TaskEvent) -> Iterator[AnyMessage]:
        """What an event tells that is news."""
        if event.attempt is not None and event.attempt != self._attempt:
            self._attempt, self._place = event.attempt, 0  # another attempt tells all over again
        message = self._read(event)
        if message is not None and self._is_news(message):
            yield message

    def response(self, result: Any) -> Response:
        """The answer; of an agent that knows nothing of AutoGen, as text."""
        try:
            answer = Answer.model_validate(result)
        except ValidationError:
            text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
            return Response(chat_message=TextMessage(content=text, source=self._name))
        message = self._codec.for_team(self._codec.decode(answer.chat_message))
        if not isinstance(message, BaseChatMessage):
            message = TextMessage(content=message.to_text(), source=self._name, id=message.id)
        # A team knows its participants by the names that they have there; under another one, GraphFlow just ends.
        message = message.model_copy(update={"source": self._name})
        inner: list[AnyMessage] | None = None
        if answer.inner_messages is not None:
            inner = [self._named(self._codec.decode(each), answer.name) for each in answer.inner_messages]
        return Response(chat_message=self._with_a_known_target(message), inner_messages=inner)

    def left_out(self, response: Response) -> Iterator[AnyMessage]:
        """What was on the way to the answer, and did not come as an event: events are not sent again."""
        for message in response.inner_messages or ():
            if message.id not in self._ids and self._is_news(message):
                yield message

    def _read(self, event: TaskEvent) -> AnyMessage | None:
        if event.type == "progress":
            text = event.content if isinstance(event.content, str) else ""
            of = "" if event.total is None else f" of {event.total:g}"
            progress = f"{event.progress:g}{of}" if event.progress is not None else ""
            return ThoughtEvent(content=text or progress, source=self._name, metadata={"mqtt_progress": progress})
        if event.type != "partial":
            return None
        try:
            told = Told.model_validate(event.data)
        except ValidationError:
            text = event.content if isinstance(event.content, str) else json.dumps(event.data, ensure_ascii=False)
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
        logger.warning("%s hands over to %r, who is not in the roster; taken as text", self._name, message.target)
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
