"""What travels beside the work: chosen keys of the caller's configuration go out, a report of the run comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit, graph_agent, tool_server
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore
from support import soon
from typing_extensions import TypedDict

from .models import ScriptedModel, calls

CONFIG: RunnableConfig = {
    "configurable": {"user_id": "u1", "password": "secret"},
    "metadata": {"tenant": "acme", "other": "private"},
    "tags": ["beta"],
}


@pytest.fixture
async def planner(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


def curious_graph(seen: list[Any]) -> Any:
    def look(state: MessagesState, config: RunnableConfig) -> Any:
        configurable: Any = config.get("configurable")
        seen.append((configurable.get("mqtt_caller"), configurable.get("user_id"), (config.get("metadata") or {})))
        return {"messages": [AIMessage("seen")]}

    return StateGraph(MessagesState).add_node("look", look).add_edge(START, "look").compile()


async def test_only_chosen_keys_go_out_and_only_accepted_keys_come_in(broker: Broker, namespace: str) -> None:
    seen: list[Any] = []
    where: Any = {"broker": broker.url, "namespace": namespace}
    host = graph_agent(curious_graph(seen), "host", store=MemoryStore(), accept=["user_id", "tags"], **where)
    keys = ["user_id", "tenant", "tags", "missing"]
    async with host:
        caller: Any = {**where, "agent_id": "boss", "store": MemoryStore(), "timeout": 20}
        async with MQTTRemoteAgent("host", context=keys, **caller) as remote:
            await soon(remote.ainvoke("go", CONFIG))
        async with MQTTRemoteAgent("host", **caller) as remote:
            await soon(remote.ainvoke("go", CONFIG))
    (chosen, user, metadata), (nothing, *_) = seen
    assert chosen == {"user_id": "u1", "tags": ["beta"]}
    assert user is None  # what a requester says is not the user of the graph
    assert "tenant" not in metadata
    assert nothing == {}


async def test_the_task_has_the_chosen_keys_of_a_graphs_runtime(broker: Broker, namespace: str) -> None:
    class Context(TypedDict):
        region: str
        token: str

    told: list[Any] = []
    where: Any = {"broker": broker.url, "namespace": namespace}
    peer = Agent("peer", store=MemoryStore(), **where)

    @peer.on_task
    async def handle(task: Any) -> str:
        told.append(task.metadata)
        return "done"

    options: Any = {**where, "agent_id": "boss", "store": MemoryStore(), "timeout": 20}
    async with peer, MQTTRemoteAgent("peer", context=["region", "tags", "user_id"], **options) as remote:
        builder: Any = StateGraph(MessagesState, context_schema=Context).add_node("ask", remote).add_edge(START, "ask")
        context: Any = {"region": "north", "token": "secret"}
        await soon(builder.compile().ainvoke({"messages": [("user", "go")]}, CONFIG, context=context))
    assert told == [{"context": {"region": "north", "tags": ["beta"], "user_id": "u1"}}]


async def test_what_a_stranger_tells_is_ignored_by_default(broker: Broker, namespace: str, planner: Agent) -> None:
    seen: list[Any] = []
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with graph_agent(curious_graph(seen), "host", **where):
        for metadata in ({"context": {"user_id": "admin"}}, {"context": "admin"}):
            await soon(planner.request("host", "go", metadata=metadata))
    where["store"] = MemoryStore()
    async with graph_agent(curious_graph(seen), "host", accept=["user_id"], **where):
        await soon(planner.request("host", "go", metadata={"context": "admin"}))
    assert [(caller, user) for caller, user, _ in seen] == [(None, None), (None, None), ({}, None)]


@pytest.mark.parametrize("blocks", [True, False])
async def test_a_served_tool_gets_what_its_server_accepts(broker: Broker, namespace: str, blocks: bool) -> None:
    seen: list[Any] = []

    def look(config: RunnableConfig) -> str:
        """Look."""
        seen.append((config.get("configurable") or {}).get("mqtt_caller"))
        return "seen"

    async def alook(config: RunnableConfig) -> str:
        """Look."""
        return look(config)

    where: Any = {"broker": broker.url, "namespace": namespace}
    offered = tool("look")(look if blocks else alook)
    async with tool_server([offered], "box", accept=["user_id", "tags"], **where):
        for context in (["user_id", "tenant", "tags"], []):
            async with MQTTToolkit(context=context, agent_id="boss", **where) as toolkit:
                agent: Any = create_agent(calls(("look", {})), await toolkit.aget_tools())
                await soon(agent.ainvoke({"messages": [("user", "go")]}, CONFIG))
    assert seen == [{"user_id": "u1", "tags": ["beta"]}, {}]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def spending_agent() -> Any:
    about: Any = {
        "response_metadata": {"model_name": "scripted-1"},
        "usage_metadata": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
    }
    call: Any = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call-0"}
    model = ScriptedModel(responses=[AIMessage("", tool_calls=[call], **about), AIMessage("3", **about)])
    return create_agent(model, [add])


async def test_usage_model_and_tool_calls_of_a_hosted_graph_come_back(broker: Broker, namespace: str) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    options: Any = {**where, "agent_id": "boss", "store": MemoryStore(), "timeout": 20}
    async with MQTTRemoteAgent("adder", **options) as remote:
        async with graph_agent(spending_agent(), "adder", store=MemoryStore(), **where):
            message = await soon(remote.ainvoke("add"))
            assert (message.usage_metadata or {})["total_tokens"] == 10
            assert message.response_metadata["model_name"] == "scripted-1"
            about = message.response_metadata["mqtt"]
            assert about["tool_calls"] == [{"name": "add", "status": "success", "args": {"a": 1, "b": 2}}]
            chunks: Any = [chunk async for chunk in remote.astream("add")]
            whole: Any = sum(chunks[1:], chunks[0])
            assert isinstance(whole, AIMessageChunk)
            assert (whole.usage_metadata or {})["total_tokens"] == 10
        async with graph_agent(spending_agent(), "adder", report=False, store=MemoryStore(), **where):
            message = await soon(remote.ainvoke("add"))
            assert message.usage_metadata is None
            assert "tool_calls" not in message.response_metadata["mqtt"]
