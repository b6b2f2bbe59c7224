"""Pictures, files and data pass between AutoGen's messages and A2A's parts, in both directions."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from autogen_agentchat import messages as m
from autogen_agentchat.base import Response
from autogen_core import CancellationToken, Image
from autogen_mqtt_agent import MQTTAgent
from autogen_mqtt_agent.parts import picture_or_words
from brokers import Embedded
from mqtt_agent import Agent, MemoryStore, Part, TaskContext, TaskMessage
from mqtt_agent.adapting.content import Media
from support import soon

from .conftest import red_dot
from .conversations import Counter, hosting

PICTURE = {"raw": red_dot(4, 3), "filename": "map.png", "mediaType": "image/png"}
FILE = {"raw": "cGRm", "filename": "trip.pdf", "mediaType": "application/pdf"}


@pytest.fixture
async def planner(embedded: Embedded, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=embedded.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


class Echo(Counter):
    """An agent that keeps its messages, and answers with the last of them."""

    def __init__(self, heard: list[Any]) -> None:
        super().__init__("echo")
        self.got = heard

    async def on_messages(
        self, messages: Sequence[m.BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        self.got.extend(messages)
        return Response(chat_message=messages[-1].model_copy(update={"source": self.name}))


async def test_a_hosted_agent_gets_pictures_and_the_names_of_files_and_answers_with_pictures(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    got: list[Any] = []
    asked = TaskMessage(parts=[Part.model_validate(each) for each in ({"text": "Look"}, PICTURE, FILE, {"data": [1]})])
    async with hosting(embedded.url, namespace, echo=lambda conversation: Echo(got)):
        handle = await planner.delegate("echo", messages=[asked], wait_online=True)
        await soon(handle.result(), 20)
    [heard] = got
    assert isinstance(heard, m.MultiModalMessage)
    text, picture, *words = heard.content
    assert (text, words) == ("Look", ["[file trip.pdf: application/pdf]", "[1]"])
    assert isinstance(picture, Image)
    assert picture.image.size == (4, 3)
    assert handle.response is not None
    assert handle.response.message is not None
    assert [part.kind for part in handle.response.message.all_parts] == ["text", "raw", "text", "text"]


async def test_a_hosted_agent_gets_files_alone_and_data_alone_as_text(
    embedded: Embedded, namespace: str, planner: Agent
) -> None:
    async with hosting(embedded.url, namespace, echo=lambda conversation: Echo([])):
        file = TaskMessage(parts=[Part.model_validate(FILE)])
        assert await planner.request("echo", messages=[file], wait_online=True, timeout=20) == (
            "[file trip.pdf: application/pdf]"
        )
        assert await planner.request("echo", data={"n": 1}, timeout=20) == '{"n": 1}'


async def test_an_agent_that_does_not_use_autogen_gets_the_pictures_and_its_files_come_back(
    embedded: Embedded, namespace: str
) -> None:
    given: list[TaskContext] = []

    async def paint(task: TaskContext) -> Any:
        given.append(task)
        await task.artifact("sketch", parts=[Part.model_validate(FILE)])
        if len(given) == 1:
            return TaskMessage(
                role="agent", parts=[Part.model_validate(each) for each in ({"text": "So"}, PICTURE, FILE)]
            )
        return None

    painter = Agent("painter", broker=embedded.url, namespace=namespace, store=MemoryStore(), will_delay=1)
    painter.on_task(paint)
    participant = MQTTAgent("painter", broker=embedded.url, namespace=namespace)
    shown = m.MultiModalMessage(content=["this", Image.from_base64(red_dot(4, 3))], source="user")
    async with painter:
        seen: list[Any] = []
        async for each in participant.on_messages_stream([shown], CancellationToken()):
            seen.append(each)
        alone = await soon(
            participant.on_messages([m.TextMessage(content="x", source="user")], CancellationToken()), 20
        )
    await soon(participant.close())
    [text, picture] = given[0].parts
    assert (text.text, picture.media_type) == ("user: this", "image/png")
    assert [each.kind for each in given[1].parts] == ["text"]
    answer = seen[-1].chat_message
    assert isinstance(answer, m.MultiModalMessage)
    first, dot, named = answer.content
    assert isinstance(dot, Image)
    assert (first, named) == ("So", "[file trip.pdf: application/pdf]")
    [thought] = [each for each in seen if isinstance(each, m.ThoughtEvent)]
    assert thought.content == "sketch: [file trip.pdf: application/pdf]"
    assert alone.chat_message.to_text() == "[file trip.pdf: application/pdf]"


async def test_a_host_gets_the_pictures_of_a_turn_once(embedded: Embedded, namespace: str) -> None:
    got: list[Any] = []
    async with hosting(embedded.url, namespace, echo=lambda conversation: Echo(got)) as hosts:
        participant = MQTTAgent("echo", broker=embedded.url, namespace=namespace)
        shown = m.MultiModalMessage(content=["this", Image.from_base64(red_dot(4, 3))], source="user")
        await soon(participant.on_messages([shown], CancellationToken()), 20)
        await soon(participant.close())
        [host] = hosts.values() if isinstance(hosts, dict) else hosts
        records = await host.store.find(f"{namespace}/{host.agent_id}", "received")
    assert records[0].task.get("messages") is None


def png(width: int, height: int, pixels: bytes) -> str:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")).decode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(30_000, 30_000, b""), "cannot be read"),  # Pillow refuses so many pixels with an error of its own
        (png(10_000, 8_000, b""), "too large: 10000 x 8000 pixels"),
        (png(2, 2, b"nothing"), "cannot be read"),
    ],
    ids=["refused", "large", "broken"],
)
def test_a_hostile_picture_becomes_a_text(data: str, words: str) -> None:
    shown = picture_or_words(Media("image", data, "image/png"))
    assert isinstance(shown, str)
    assert words in shown
