"""One run of a remote agent, from its input to its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import RunnableConfig
from mqtt_agent.wire import to_json

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.driver import Script
from langchain_mqtt_agent.remote.conversation import Outcome, converse
from langchain_mqtt_agent.remote.payload import as_message, shape_of, work_from
from langchain_mqtt_agent.remote.task_ids import Place
from langchain_mqtt_agent.telling import Telling

if TYPE_CHECKING:
    from langchain_mqtt_agent.remote.agent import MQTTRemoteAgent

__all__ = ["Placed", "Plan", "whole"]


class Placed:
    """An input whose place is known already."""

    def __init__(self, value: Any, place: Place) -> None:
        self.value = value
        self.place = place


class Plan:
    """One run of a remote agent: what is sent, and what becomes of the result.

    Args:
        remote: The agent.
        value: The input.
        config: The configuration of the run.
    """

    def __init__(self, remote: MQTTRemoteAgent, value: Any, config: RunnableConfig) -> None:
        runtime = current_runtime()
        if isinstance(value, Placed):
            place, value = value.place, value.value
        else:
            place = remote.place(config)
        self._shape = shape_of(value)
        self._remote = remote
        self._message_id = f"mqtt-{place.task_id}"
        self.in_chunks: bool = self._shape == "message" and remote.output_key is None
        self.message: Any = None
        if remote.input_key is not None:
            value = value[remote.input_key] if isinstance(value, Mapping) else getattr(value, remote.input_key)
        self.telling: Telling = Telling(config, runtime, remote.peer, self._message_id)
        self.script: Script[Outcome] = converse(remote.delegation(work_from(value), place, runtime), config)

    def output(self, outcome: Outcome) -> Any:
        """The output for the result."""
        value = outcome.value
        # In mode "messages", a message with the id of its tokens is not told again.
        told = isinstance(value, str) and value == outcome.text
        about = {**outcome.about, "result": to_json(value)}
        message_id = self._message_id if told or not outcome.text else f"{self._message_id}-result"
        message = as_message(value, peer=self._remote.peer, message_id=message_id, about=about)
        self.message = message if told or not outcome.text else message.model_copy(update={"id": self._message_id})
        key = self._remote.output_key
        if key is not None:
            return {key: [message] if key == "messages" else value}
        return {"messages": [message]} if self._shape == "state" else message if self._shape == "message" else value

    def chunk(self, text: str) -> AIMessageChunk:
        """A piece of the message."""
        return AIMessageChunk(content=text, id=self._message_id, name=self._remote.peer)

    def rest(self, outcome: Outcome) -> AIMessageChunk:
        """What the pieces lack: nothing, the end of the text, or all of a result that is not what was streamed."""
        message = as_message(
            outcome.value,
            peer=self._remote.peer,
            message_id=self._message_id,
            about={**outcome.about, "result": to_json(outcome.value)},
        )
        content = message.content
        if isinstance(content, str) and content.startswith(outcome.text):
            content = content[len(outcome.text) :]
        return AIMessageChunk(
            content=content, id=self._message_id, response_metadata=message.response_metadata, chunk_position="last"
        )


def whole(inputs: list[Any]) -> Any:
    """What came in pieces, put together."""
    whole = inputs[0]
    for piece in inputs[1:]:
        whole = whole + piece
    return whole
