"""Timeouts of tools and peers, and tasks that outlive the turn of the model that gave them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolContext
from support import becomes, soon, until

from .conftest import Toolbox
from .models import ScriptedModel, calls

GO: Any = {"messages": [("user", "go")]}
THREAD: Any = {"configurable": {"thread_id": "1"}}


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


class ComingBack(ScriptedModel):
    """Asks a peer, and comes back to the task with the id of which the tool message tells."""

    turns: int = 1

    def _generate(self, messages: Any, *args: Any, **options: Any) -> Any:
        told = [message for message in messages if isinstance(message, ToolMessage)]
        arguments = {"task_id": told[0].artifact["task_id"]} if told else {"prompt": "go"}
        call = {"name": "ask_writer", "args": arguments, "id": f"call-{len(told)}"}
        self.responses = [AIMessage("done") if len(told) > self.turns else AIMessage("", tool_calls=[call])]
        return super()._generate(messages, *args, **options)


class Slow:
    """A peer whose task ends when the test says so."""

    def __init__(self, agent: Agent) -> None:
        self.go = asyncio.Event()
        self.runs: list[str] = []
        self.canceled: list[str] = []
        self.ask = False
        agent.on_task(self._handle)

    async def _handle(self, task: TaskContext) -> str:
        self.runs.append(task.id)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.canceled.append(task.id)
            raise
        return f"year {await task.ask('Which year?')}" if self.ask else "done at last"


@pytest.fixture
async def slow(broker: Broker, namespace: str) -> Any:
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1, drain_timeout=0)
    made = Slow(agent)
    await soon(agent.start())
    yield made
    await soon(agent.stop())


Ask = Callable[..., Any]


@pytest.fixture
async def asking(broker: Broker, namespace: str) -> Any:
    """Makes an agent with a tool `ask_writer`."""
    made: list[MQTTRemoteAgent] = []

    def make(model: Any, **options: Any) -> Any:
        settings: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
        remote = MQTTRemoteAgent("writer", **settings, **options)
        made.append(remote)
        return create_agent(model, [remote.as_tool()], checkpointer=InMemorySaver())

    yield make
    for remote in made:
        await remote.aclose()


async def test_a_model_comes_back_to_a_task_that_outlived_its_turn(slow: Slow, asking: Ask) -> None:
    agent = asking(ComingBack(responses=[AIMessage("")], turns=2), timeout=0.5)
    state: Any = None
    async for state in agent.astream(GO, THREAD, stream_mode="values"):
        if len(tool_messages(state)) == 2:
            slow.go.set()
    late, still_late, found = tool_messages(state)
    assert [late.status, still_late.status, found.status] == ["error", "error", "success"]
    assert f"task_id={slow.runs[0]!r}" in late.text
    assert (late.artifact["code"], late.artifact["task_id"]) == ("timeout", slow.runs[0])
    assert (found.text, found.artifact["task_id"]) == ("done at last", slow.runs[0])
    assert len(slow.runs) == 1
    assert slow.canceled == []


async def test_a_question_of_a_task_that_is_followed_again_is_an_interrupt(slow: Slow, asking: Ask) -> None:
    slow.ask = True
    agent = asking(ComingBack(responses=[AIMessage("")]), timeout=2)
    asyncio.get_running_loop().call_later(2.5, slow.go.set)
    state = await soon(agent.ainvoke(GO, THREAD), 20)
    assert state["__interrupt__"][0].value["prompt"] == "Which year?"
    state = await soon(agent.ainvoke(Command(resume=2024), THREAD))
    assert tool_messages(state)[-1].text == "year 2024"
    assert len(slow.runs) == 1


async def test_a_task_that_nobody_gave_is_told_to_the_model(slow: Slow, asking: Ask) -> None:
    wanted = [("ask_writer", {"task_id": task_id}) for task_id in ("unknown", "a/b", "\ud800")]
    agent = asking(calls(*wanted), timeout=5)
    messages = tool_messages(await soon(agent.ainvoke(GO, THREAD)))
    assert [message.status for message in messages] == ["error"] * 3


async def test_a_task_that_takes_too_long_is_canceled_where_that_is_wanted(slow: Slow, asking: Ask) -> None:
    agent = asking(calls(("ask_writer", {"prompt": "go"})), timeout=0.3, on_timeout="cancel")
    [message] = tool_messages(await soon(agent.ainvoke(GO, THREAD)))
    assert "it is canceled" in message.text
    await until(lambda: slow.canceled == slow.runs)


async def test_progress_extends_the_idle_timeout_of_a_peer(broker: Broker, namespace: str, asking: Ask) -> None:
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), drain_timeout=0)

    @agent.on_task
    async def handle(task: TaskContext) -> str:
        for number in range(6):
            await asyncio.sleep(0.5)  # simulates work
            await task.progress(number)
        if task.prompt == "hang":
            await asyncio.Event().wait()
        return "done"

    async with agent:
        graph = asking(calls(("ask_writer", {"prompt": "go"}), ("ask_writer", {"prompt": "hang"})), idle_timeout=1.5)
        done, hung = tool_messages(await soon(graph.ainvoke(GO, THREAD), 30))
    assert (done.text, hung.status, hung.artifact["code"]) == ("done", "error", "timeout")


@pytest.mark.parametrize("mode", [pytest.param("sync", marks=pytest.mark.long), "async"])
async def test_progress_extends_the_idle_timeout_of_a_tool(
    broker: Broker, namespace: str, toolbox: Toolbox, mode: str
) -> None:
    async def steps(hang: bool, ctx: ToolContext) -> str:
        try:
            for number in range(6):
                await asyncio.sleep(0.5)  # simulates work
                await ctx.progress(number)
            if hang:
                await asyncio.Event().wait()
        except asyncio.CancelledError:  # on a busy machine, the time may be over between two steps
            toolbox.canceled.append(ctx.call_id)
            raise
        return "done"

    toolbox.add_tool("steps", steps)
    options: Any = {"tools": ["steps"], "timeout": None, "idle_timeout": 1.5}
    async with MQTTToolkit(broker=broker.url, namespace=namespace, **options) as toolkit:
        await becomes(toolkit.aget_online_tools)
        agent: Any = create_agent(calls(("steps", {"hang": False}), ("steps", {"hang": True})), toolkit.get_tools())
        state = await soon(agent.ainvoke(GO) if mode == "async" else asyncio.to_thread(agent.invoke, GO), 30)
    done, hung = tool_messages(state)
    assert (done.text, hung.status, hung.artifact["code"]) == ("done", "error", "timeout")
    assert "no partial result within 1.5 s" in hung.text
    await until(lambda: toolbox.canceled == [hung.artifact["call_id"]])


async def test_a_tool_has_a_timeout_of_its_own(broker: Broker, namespace: str, toolbox: Toolbox, slow: Slow) -> None:
    timeouts = {"sl*": 30, "slow": 0.2, "writer": 0.2}
    options: Any = {"agent_id": "me", "store": MemoryStore(), "peers": ["writer"], "timeout": None}
    async with MQTTToolkit(broker=broker.url, namespace=namespace, timeouts=timeouts, **options) as toolkit:
        tools = {tool.name: tool for tool in await toolkit.aget_tools()}
        wanted = [("slow", {"seconds": 60}), ("ask_writer", {"prompt": "go"}), ("add", {"a": 1, "b": 2})]
        agent: Any = create_agent(calls(*wanted), list(tools.values()))
        late, also_late, added = tool_messages(await soon(agent.ainvoke(GO)))
    assert [late.artifact["code"], also_late.artifact["code"], added.status] == ["timeout", "timeout", "success"]
