"""The memory of a hosted graph without a checkpointer does not grow with each task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker
from langchain_core.messages import AIMessage
from langchain_mqtt_agent import graph_agent
from langgraph.config import get_config
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore, errors
from support import soon, until


@pytest.fixture
async def planner(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


class Host:
    """A hosted graph without a checkpointer, and the checkpointer that its host gives it."""

    def __init__(self, broker: Broker, namespace: str, **options: Any) -> None:
        self.saver: Any = None
        self.stuck = threading.Event()
        self.stuck.set()
        inner = StateGraph(MessagesState).add_node("inner", lambda state: {}).add_edge(START, "inner").compile()
        builder = StateGraph(MessagesState).add_sequence([("inner", inner), ("talk", self.talk)])
        builder.add_edge(START, "inner")
        where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
        self.agent = graph_agent(builder, "talker", **where, **options)

    def talk(self, state: MessagesState) -> Any:
        config: Any = get_config()
        self.saver = config["configurable"]["__pregel_checkpointer"]
        if state["messages"][-1].text == "wait":
            assert self.stuck.wait(20)
        if state["messages"][-1].text == "fail":
            raise ValueError("no luck")
        return {"messages": [AIMessage(f"{len(state['messages'])}")]}

    @property
    def threads(self) -> list[str]:
        return [thread for thread, found in self.saver.storage.items() if found]

    @property
    def size(self) -> int:
        held = sum(len(found) for spaces in self.saver.storage.values() for found in spaces.values())
        return held + len(self.saver.blobs) + len(self.saver.writes)


async def test_a_task_without_a_context_is_forgotten_when_it_is_over(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    host = Host(broker, namespace)
    async with host.agent:
        for number in range(5):
            assert await soon(planner.request("talker", f"task {number}")) == "1"
            with pytest.raises(errors.TaskFailed):
                await soon(planner.request("talker", "fail"))
        await until(lambda: not host.threads)
        assert host.size == 0


async def test_a_conversation_keeps_its_messages_and_not_its_history(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    host, sizes = Host(broker, namespace), list[int]()
    async with host.agent:
        for number in range(6):
            answer = await soon(planner.request("talker", f"turn {number}", context_id="c"))
            assert answer == str(2 * number + 1)
            await until(lambda: sum(map(len, host.saver.storage["bound:planner/c"].values())) == 1)
            sizes.append(host.size)
    assert len(set(sizes)) == 1


async def test_the_conversation_that_was_used_longest_ago_is_forgotten_and_told_once(
    broker: Broker, namespace: str, planner: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(broker, namespace, max_conversations=2)
    async with host.agent:
        for context in ("a", "b", "a", "c", "d"):
            await soon(planner.request("talker", "hello", context_id=context))
        await until(lambda: sorted(host.threads) == ["bound:planner/c", "bound:planner/d"])
        assert await soon(planner.request("talker", "hello", context_id="a")) == "1"
        assert await soon(planner.request("talker", "hello", context_id="d")) == "3"
    told = [each.getMessage() for each in caplog.records if "forgets conversation" in each.getMessage()]
    assert len(told) == 1
    assert "agent talker forgets conversation bound:planner/b" in told[0]
    assert "max_conversations" in told[0]
    with pytest.raises(ValueError, match="max_conversations"):
        Host(broker, namespace, max_conversations=-1)


async def test_a_stopped_host_goes_on_with_its_graph_when_it_starts_again(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    steps: list[str] = []
    running, go = asyncio.Event(), asyncio.Event()

    async def first(state: MessagesState) -> Any:
        steps.append("first")

    async def second(state: MessagesState) -> Any:
        running.set()
        await go.wait()
        return {"messages": [AIMessage("done")]}

    builder = StateGraph(MessagesState).add_sequence([first, second]).add_edge(START, "first")
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore(), "drain_timeout": 0}
    host = graph_agent(builder, "talker", **where)
    await soon(host.start())
    task = await soon(planner.delegate("talker", "go"))
    await soon(running.wait())
    await soon(host.stop())
    go.set()
    await soon(host.start())
    assert await soon(task.result(), 20) == "done"
    assert steps == ["first"]
    await soon(host.stop())


async def test_a_stranger_with_the_same_context_neither_reads_the_conversation_nor_waits_for_it(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    host = Host(broker, namespace)
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with (
        host.agent,
        Agent("spy", store=MemoryStore(), **where) as spy,
        Agent("planner-2", store=MemoryStore(), bound="off", **where) as older,
    ):
        assert await soon(planner.request("talker", "secret", context_id="c")) == "1"
        for stranger in (spy, older):
            for context in ("c", "bound:planner/c", "planner/c"):
                assert await soon(stranger.request("talker", "what was said?", context_id=context)) == "1"
        host.stuck.clear()
        blocked = await soon(spy.delegate("talker", "wait", context_id="c"))
        assert await soon(planner.request("talker", "go on", context_id="c")) == "3"
        host.stuck.set()
        await soon(blocked.result())
