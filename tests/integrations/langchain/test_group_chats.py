"""Conversations of several agents: a hosted graph gets each question once, whoever speaks between two of its turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_mqtt_agent import MQTTRemoteAgent, graph_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon


@pytest.fixture
async def planner(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


def listening_graph(heard: list[list[str]], **options: Any) -> Any:
    """A graph that notes what its thread has, and answers with a number."""

    def talk(state: MessagesState) -> Any:
        heard.append([f"{each.name or each.type}: {each.text}" for each in state["messages"]])
        return {"messages": [AIMessage(f"answer {len(heard)}")]}

    return StateGraph(MessagesState).add_node("talk", talk).add_edge(START, "talk").compile(**options)


async def test_a_question_before_another_agents_answer_is_heard(broker: Broker, namespace: str, planner: Agent) -> None:
    heard: list[list[str]] = []
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with graph_agent(listening_graph(heard, checkpointer=InMemorySaver()), "writer", **where):
        talk: list[dict[str, Any]] = [{"role": "user", "content": "q1"}]
        assert await soon(planner.request("writer", messages=talk, context_id="c")) == "answer 1"
        talk += [
            {"role": "agent", "content": "answer 1", "name": "writer"},
            {"role": "user", "content": "q2"},
            {"role": "agent", "content": "I draw.", "name": "painter"},
        ]
        assert await soon(planner.request("writer", messages=talk, context_id="c")) == "answer 2"
        assert heard[-1] == ["human: q1", "ai: answer 1", "human: q2", "painter: I draw."]
        talk += [
            {"role": "agent", "content": "answer 2", "name": "writer"},
            {"role": "agent", "content": "Without a name."},
            {"role": "user", "content": "q3"},
            {"role": "agent", "content": "I draw again.", "name": "painter"},
        ]
        assert await soon(planner.request("writer", messages=talk, context_id="c")) == "answer 3"
        assert heard[-1][-3:] == ["ai: Without a name.", "human: q3", "painter: I draw again."]


async def test_the_names_of_the_graph_and_of_nobody_are_its_own(broker: Broker, namespace: str, planner: Agent) -> None:
    heard: list[list[str]] = []
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    graph = listening_graph(heard, checkpointer=InMemorySaver(), name="poet")
    async with graph_agent(graph, "writer", **where):
        for number, about in enumerate(({}, {"name": "poet"}, {})):
            talk = [
                {"role": "user", "content": "before"},
                {"role": "assistant", "content": "mine", **about},
                {"role": "user", "content": f"q{number}"},
            ]
            await soon(planner.request("writer", messages=talk, context_id="c"))
    assert heard[-1][3:] == ["ai: answer 1", "human: q1", "ai: answer 2", "human: q2"]


def supervisor_of(worker: Any) -> Any:
    """A supervisor with the messages of the package langgraph-supervisor: it hands over, and gets control back."""

    def supervise(state: MessagesState) -> Any:
        number = sum(isinstance(each, HumanMessage) for each in state["messages"])
        call: Any = {"name": "transfer_to_writer", "args": {}, "id": f"to-{number}"}
        told: list[AnyMessage] = [
            AIMessage("I ask the writer.", tool_calls=[call], name="supervisor"),
            ToolMessage("Successfully transferred to writer", name=call["name"], tool_call_id=call["id"]),
        ]
        return {"messages": told}

    def give_back(state: MessagesState) -> Any:
        call: Any = {"name": "transfer_back_to_supervisor", "args": {}, "id": "back"}
        about = {"__is_handoff_back": True}
        told: list[AnyMessage] = [
            AIMessage("Transferring back to supervisor", tool_calls=[call], name="writer", response_metadata=about),
            ToolMessage("Successfully transferred back", tool_call_id="back", response_metadata=about),
        ]
        return {"messages": told}

    builder = StateGraph(MessagesState)
    builder.add_node("supervisor", supervise)
    builder.add_node("writer", worker)
    builder.add_node("back", give_back)
    builder.add_edge(START, "supervisor")
    builder.add_edge("supervisor", "writer")
    builder.add_edge("writer", "back")
    builder.add_edge("back", END)
    return builder.compile(checkpointer=InMemorySaver())


async def test_a_supervisor_hands_the_users_question_to_a_remote_worker(broker: Broker, namespace: str) -> None:
    prompts: list[str | None] = []
    where: Any = {"broker": broker.url, "namespace": namespace}
    peer = Agent("writer", store=MemoryStore(), **where)

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        prompts.append(task.prompt)
        return f"about {task.prompt}"

    async with peer, MQTTRemoteAgent("writer", agent_id="boss", store=MemoryStore(), timeout=20, **where) as writer:
        graph, config = supervisor_of(writer), {"configurable": {"thread_id": "1"}}
        for question in ("q1", "q2"):
            await soon(graph.ainvoke({"messages": [("user", question)]}, config))
    assert prompts == ["q1", "q2"]


async def test_a_hosted_graph_behind_a_supervisor_hears_each_question_once(broker: Broker, namespace: str) -> None:
    heard: list[list[str]] = []
    where: Any = {"broker": broker.url, "namespace": namespace}
    hosted = graph_agent(listening_graph(heard), "writer", store=MemoryStore(), **where)
    async with hosted, MQTTRemoteAgent("writer", agent_id="boss", store=MemoryStore(), timeout=20, **where) as writer:
        graph, config = supervisor_of(writer), {"configurable": {"thread_id": "1"}}
        for question in ("q1", "q2"):
            await soon(graph.ainvoke({"messages": [("user", question)]}, config))
    assert [each for each in heard[-1] if each.startswith("human")] == ["human: q1", "human: q2"]


async def test_the_answer_of_a_hosted_supervisor_is_no_handoff(broker: Broker, namespace: str, planner: Agent) -> None:
    def work(state: MessagesState) -> Any:
        return {"messages": [AIMessage("the answer", name="writer")]}

    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with graph_agent(supervisor_of(work), "boss", **where):
        assert await soon(planner.request("boss", "q1")) == "the answer"
