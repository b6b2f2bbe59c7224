"""Files and data pass between LangChain's messages and A2A's parts, in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from brokers import Broker
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_mqtt_agent import MQTTRemoteAgent, graph_agent
from langchain_mqtt_agent.parts import blocks_in, content_from
from langchain_mqtt_agent.serving.chains import chain_agent
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore, Part, TaskContext, TaskMessage, errors
from mqtt_agent.adapting.content import Data, Link, Media, Text
from support import soon

PNG = "iVBORw0KGgo="
PARTS = [
    {"text": "Look"},
    {"raw": PNG, "filename": "map.png", "mediaType": "image/png"},
    {"url": "https://trips.example/list.csv", "mediaType": "text/csv"},
    {"data": {"budget": 300}},
]
CONTENT = [
    {"type": "text", "text": "Look"},
    {"type": "image", "base64": PNG, "mime_type": "image/png", "extras": {"filename": "map.png"}},
    {"type": "file", "url": "https://trips.example/list.csv", "mime_type": "text/csv"},
    {"type": "text", "text": '{"budget": 300}'},
]
Where = dict[str, Any]


@pytest.fixture
def where(broker: Broker, namespace: str) -> Where:
    return {"broker": broker.url, "namespace": namespace, "store": MemoryStore(), "will_delay": 1}


@pytest.fixture
async def planner(where: Where) -> AsyncIterator[Agent]:
    async with Agent("planner", **where) as agent:
        yield agent


@asynccontextmanager
async def answering(where: Where, work: Callable[[TaskContext], Any]) -> AsyncIterator[MQTTRemoteAgent]:
    """A peer that does not use LangChain, and the Runnable that gives tasks to it."""
    agent = Agent("painter", **where)
    agent.on_task(work)
    place = {key: where[key] for key in ("broker", "namespace")}
    async with agent:
        remote = MQTTRemoteAgent("painter", agent_id="studio", store=MemoryStore(), timeout=20, **place)
        try:
            yield remote
        finally:
            await remote.aclose()


async def said_to(planner: Agent, peer: str, message: TaskMessage, **more: Any) -> Any:
    """What a peer answers to a message: the parts of its answer, or its value."""
    handle = await planner.delegate(peer, messages=[message], wait_online=True, **more)
    value = await soon(handle.result(), 20)
    assert handle.response is not None
    return handle.response.message.all_parts if handle.response.message is not None else value


def graph(node: Callable[[Any], Any]) -> Any:
    builder: Any = StateGraph(MessagesState)
    return builder.add_node("work", node).add_edge(START, "work").compile()


async def test_a_graph_gets_the_parts_of_a_task_and_answers_with_parts(planner: Agent, where: Where) -> None:
    seen: list[Any] = []

    def work(state: Any) -> Any:
        seen.append(state["messages"][-1].content)
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        data = {"type": "non_standard", "value": {"n": 1}}
        return {"messages": [AIMessage([{"type": "reasoning", "reasoning": "hm"}, "Here", picture, data])]}

    async with graph_agent(graph(work), "painter", **where):
        parts = await said_to(planner, "painter", TaskMessage(parts=[Part.model_validate(each) for each in PARTS]))
    assert seen == [CONTENT]
    assert parts == [Part(text="Here"), Part(raw=PNG, media_type="image/png"), Part(data={"n": 1})]


async def test_a_graph_gets_data_as_json(planner: Agent, where: Where) -> None:
    async with graph_agent(graph(lambda state: {"messages": [AIMessage(state["messages"][-1].content)]}), "p", **where):
        assert await said_to(planner, "p", TaskMessage(content={"n": 1})) == '{"n": 1}'


async def test_a_chain_of_a_chat_model_gets_files_and_any_other_chain_is_told_their_names(
    planner: Agent, where: Where
) -> None:
    seen: list[Any] = []

    class Model(GenericFakeChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(messages[-1].content)
            return super()._generate(messages, *args, **kwargs)

    message = TaskMessage(parts=[Part.model_validate(each) for each in PARTS])
    async with chain_agent(Model(messages=iter([AIMessage("A map.")])), "model", **where):
        assert await said_to(planner, "model", message) == "A map."
    assert seen == [CONTENT]
    words = RunnableLambda(lambda text: str(text))
    async with chain_agent(words, "words", **where):
        told = await said_to(planner, "words", message)
        assert told.splitlines() == [
            "Look",
            "[image map.png: image/png]",
            "[file: https://trips.example/list.csv]",
            '{"budget": 300}',
        ]
        with pytest.raises(errors.TaskFailed, match=r"would be lost: \[image map.png"):
            await said_to(planner, "words", message, data={"budget": 300})


async def test_files_of_a_conversation_reach_a_peer_and_its_files_come_back(where: Where) -> None:
    got: list[TaskMessage] = []

    async def paint(task: TaskContext) -> Any:
        got.extend(task.messages)
        return TaskMessage(role="agent", parts=[Part.model_validate(each) for each in PARTS])

    async with answering(where, paint) as painter:
        asked = HumanMessage([{"type": "text", "text": "Look"}, CONTENT[1], CONTENT[2]])
        used = AIMessage([{"type": "tool_use", "id": "1", "name": "t", "input": {}}])
        answer = await soon(painter.ainvoke([used, asked]), 30)
        value = await soon(painter.ainvoke({"n": 1}), 30)
        call = {"name": "ask_painter", "args": {"prompt": "x"}, "id": "1", "type": "tool_call"}
        tool = await soon(painter.as_tool().ainvoke(call))
    assert [each.as_json() for each in got[0].all_parts] == PARTS[:3]
    assert answer.content == CONTENT
    assert value == CONTENT
    assert tool.content == CONTENT


async def test_an_answer_that_is_an_artifact_alone_comes_back(where: Where) -> None:
    async def paint(task: TaskContext) -> Any:
        await task.artifact("map", parts=[Part.model_validate(PARTS[1])])

    async with answering(where, paint) as painter:
        answer = await soon(painter.ainvoke("Paint"), 30)
    assert answer.content == [CONTENT[1]]


def test_content_of_every_provider_is_read() -> None:
    message = HumanMessage(
        [
            {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG}", "filename": "a.pdf"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "image", "source_type": "url", "url": "https://x.example/b.png"},
            {"type": "audio", "base64": PNG},
            {"type": "text", "text": "and"},
            {"type": "invented", "n": 1},
            {"type": "tool_call", "name": "t", "args": {}, "id": "1"},
        ]
    )
    assert blocks_in(message) == [
        Media("file", PNG, "application/pdf", name="a.pdf"),
        Media("image", PNG, "image/png"),
        Link("file", "https://x.example/b.png"),
        Media("audio", PNG, "audio/wav"),
        Text("and"),
        Data({"type": "invented", "n": 1}),
    ]


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "/etc/passwd", "FILE:/etc/passwd", "c:\\\\boot.ini"])
def test_a_peer_cannot_let_a_model_read_a_file_of_this_computer(uri: str) -> None:
    shown = content_from([Text("Look"), Link("image", uri, "image/png")])
    assert shown == [{"type": "text", "text": "Look"}, {"type": "text", "text": f"[image: {uri}]"}]
