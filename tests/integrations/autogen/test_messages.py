"""Messages and events on their way to another host and back."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from autogen_agentchat import messages as m
from autogen_core import FunctionCall, Image
from autogen_core.code_executor import CodeBlock, CodeResult
from autogen_core.memory import MemoryContent, MemoryMimeType
from autogen_core.models import FunctionExecutionResult, RequestUsage, UserMessage
from autogen_mqtt_agent.messages import AnyMessage, Codec
from pydantic import BaseModel

from .conftest import red_dot

CALL = FunctionCall(id="1", name="f", arguments="{}")
RESULT = FunctionExecutionResult(content="ok", name="f", call_id="1", is_error=False)
BLOCK = CodeBlock(code="1", language="python")


class Report(BaseModel):
    title: str
    pages: int


class OwnEvent(m.BaseAgentEvent):
    type: Literal["OwnEvent"] = "OwnEvent"
    level: int

    def to_text(self) -> str:
        return f"level {self.level}"


MESSAGES: list[AnyMessage] = [
    m.TextMessage(source="a", content="hello", metadata={"k": "v"}, models_usage=RequestUsage(1, 2)),
    m.MultiModalMessage(source="a", content=["see", Image.from_base64(red_dot())]),
    m.StopMessage(source="a", content="stop"),
    m.HandoffMessage(source="a", target="b", content="yours", context=[UserMessage(content="x", source="u")]),
    m.ToolCallSummaryMessage(source="a", content="ok", tool_calls=[CALL], results=[RESULT]),
    m.ToolCallRequestEvent(source="a", content=[CALL]),
    m.ToolCallExecutionEvent(source="a", content=[RESULT]),
    m.CodeGenerationEvent(source="a", retry_attempt=0, content="c", code_blocks=[BLOCK]),
    m.CodeExecutionEvent(source="a", retry_attempt=0, result=CodeResult(exit_code=0, output="1")),
    m.UserInputRequestedEvent(source="a", request_id="r"),
    m.MemoryQueryEvent(source="a", content=[MemoryContent(content="c", mime_type=MemoryMimeType.TEXT)]),
    m.ModelClientStreamingChunkEvent(source="a", content="ch", full_message_id="f"),
    m.ThoughtEvent(source="a", content="hm"),
    m.SelectSpeakerEvent(source="a", content=["b"]),
    m.SelectorEvent(source="a", content="choosing"),
]


def travelled(message: AnyMessage, codec: Codec) -> AnyMessage:
    return codec.decode(json.loads(json.dumps(Codec().encode(message))))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_each_type_comes_back_as_it_was(message: AnyMessage) -> None:
    back = travelled(message, Codec())
    assert type(back) is type(message)
    assert back.dump() == message.dump()


def test_each_type_there_is_is_in_that_list() -> None:
    names = [getattr(m, name) for name in dir(m)]
    types = {each for each in names if isinstance(each, type) and issubclass(each, m.BaseMessage)}
    concrete = {each for each in types if not getattr(each, "__abstractmethods__", None)} - {
        m.StructuredMessage,
        m.BaseTextChatMessage,
    }
    assert concrete == {type(message) for message in MESSAGES}


def test_structured_messages_come_back_when_their_type_is_registered() -> None:
    message = m.StructuredMessage[Report](source="a", content=Report(title="T", pages=3))
    back = travelled(message, Codec([m.StructuredMessage[Report]]))
    assert isinstance(back, m.StructuredMessage)
    assert back.content == Report(title="T", pages=3)
    assert back.dump() == message.dump()


def test_own_events_come_back_when_their_type_is_registered() -> None:
    back = travelled(OwnEvent(source="a", level=3), Codec([OwnEvent]))
    assert isinstance(back, OwnEvent)
    assert back.level == 3


def test_unknown_types_become_text() -> None:
    message = m.StructuredMessage[Report](source="a", content=Report(title="T", pages=3))
    text = travelled(message, Codec())
    assert isinstance(text, m.TextMessage)
    assert (text.id, text.source, json.loads(text.content)) == (message.id, "a", {"title": "T", "pages": 3})
    assert text.metadata == {"mqtt_downgraded_from": "StructuredMessage[Report]"}
    thought = travelled(OwnEvent(source="a", level=3), Codec())
    assert isinstance(thought, m.ThoughtEvent)
    assert (thought.content, thought.metadata) == ("level 3", {"mqtt_downgraded_from": "OwnEvent"})


@pytest.mark.parametrize(
    "encoded",
    [
        {},
        {"message": None, "kind": "chat"},
        {"message": {"type": "TextMessage"}, "kind": "chat", "text": 3},
        {"message": {"type": ["TextMessage"]}},
        {"message": {"type": "MultiModalMessage", "source": "a", "content": [{"data": "no image"}]}, "kind": "chat"},
    ],
)
def test_what_cannot_be_read_is_never_fatal(encoded: Any) -> None:
    back = Codec().decode(encoded)
    assert isinstance(back, m.TextMessage if encoded.get("kind") == "chat" else m.ThoughtEvent)


def test_a_team_gets_only_types_that_it_knows() -> None:
    codec = Codec()
    event = m.SelectorEvent(source="a", content="choosing")
    told = codec.for_team(travelled(event, codec))
    assert isinstance(told, m.ThoughtEvent)
    assert (told.content, told.source) == ("choosing", "a")
    thought = m.ThoughtEvent(source="a", content="hm")
    assert codec.for_team(thought) is thought
