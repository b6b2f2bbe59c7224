"""Names and forms of version 0.1 that have changed: each works for one more version, with a warning."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Broker
from langchain_core.tools import tool
from langchain_mqtt_agent import MQTTRemoteAgent, serve_graph, serve_tools
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon


async def test_on_input_still_answers_questions_as_one_dict(broker: Broker, namespace: str) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    peer = Agent("writer", store=MemoryStore(), **where)

    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        return [await task.ask("Which city?"), await task.ask("Which year?", {"type": "integer"})]

    questions: list[dict[str, Any]] = []

    def answer(question: dict[str, Any]) -> Any:
        questions.append(question)
        if question["prompt"] == "Which city?":
            return "Oslo"
        return 2024 if "fault" in question else "last year"

    with pytest.warns(DeprecationWarning, match="on_input= is called on_question= now") as caught:
        asking = MQTTRemoteAgent("writer", agent_id="planner", store=MemoryStore(), on_input=answer, **where)
    assert caught[0].filename == __file__
    async with peer, asking:
        assert await soon(asking.ainvoke({})) == ["Oslo", 2024]
    assert [question["prompt"] for question in questions] == ["Which city?", "Which year?", "Which year?"]
    assert questions[1]["schema"] == {"type": "integer"}


def test_both_forms_of_a_function_that_answers_are_refused(url_of_nobody: str) -> None:
    with pytest.raises(TypeError, match="on_input is the old form of on_question"):
        MQTTRemoteAgent("writer", broker=url_of_nobody, on_question=lambda *_: "", on_input=lambda _: "")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def serve_a_graph(**options: Any) -> Any:
    graph = StateGraph(MessagesState).add_node("talk", lambda state: state).add_edge(START, "talk").compile()
    return serve_graph(graph, "talker", store=MemoryStore(), **options)


def serve_a_tool(**options: Any) -> Any:
    return serve_tools([add], "toolbox", **options)


@pytest.mark.parametrize(("serve", "name"), [(serve_a_tool, "serve_tools"), (serve_a_graph, "serve_graph")])
async def test_serving_can_still_be_awaited(broker: Broker, namespace: str, serve: Any, name: str) -> None:
    started = asyncio.Event()
    with pytest.warns(DeprecationWarning, match=rf"await {name}\(...\) is called await a{name}\(...\) now") as caught:
        coroutine = serve(broker=broker.url, namespace=namespace, on_started=started.set)
    assert caught[0].filename == __file__
    serving = asyncio.ensure_future(coroutine)
    await soon(started.wait())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
