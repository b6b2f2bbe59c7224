"""Peer agents as nodes of LangGraph graphs, and as tools of agents: one task for each place, whatever happens."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ToolException
from langchain_mqtt_agent import MQTTRemoteAgent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy
from mqtt_agent import Agent, MemoryStore, TaskContext, errors
from skips import inapplicable
from support import soon, until

from .models import calls

GO: Any = {"messages": [("user", "go")]}
THREAD: Any = {"configurable": {"thread_id": "1"}}


@pytest.fixture
async def peer(broker: Broker, namespace: str) -> Any:
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1, drain_timeout=0)
    agent.runs = []  # type: ignore[attr-defined]
    await soon(agent.start())
    yield agent
    await soon(agent.stop())


@pytest.fixture
def writer(broker: Broker, namespace: str) -> Iterator[MQTTRemoteAgent]:
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
    with MQTTRemoteAgent("writer", timeout=20, **options) as remote:
        yield remote


def graph_of(node: Any, *, saver: Any = None, state: Any = MessagesState, **options: Any) -> Any:
    builder = StateGraph(state)
    builder.add_node("write", node, **options)
    builder.add_edge(START, "write")
    return builder.compile(checkpointer=saver)


async def test_it_is_a_node(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return f"{task.prompt} {task.context_id}"

    for graph in (graph_of(writer), graph_of(writer, saver=InMemorySaver())):
        state = await soon(graph.ainvoke(GO, THREAD))
        assert state["messages"][-1].text == "go planner/1"
        assert state["messages"][-1].name == "writer"
    state = await soon(asyncio.to_thread(graph_of(writer, saver=InMemorySaver()).invoke, GO, THREAD))
    assert state["messages"][-1].text == "go planner/1"


async def test_it_is_a_node_of_any_state(peer: Agent, writer: MQTTRemoteAgent) -> None:
    class State(TypedDict, total=False):
        question: str
        answer: str

    @peer.on_task
    async def handle(task: TaskContext) -> Any:
        return {"answer": f"{task.data['question']} 42"} if task.data else f"{task.prompt} 43"

    assert (await soon(graph_of(writer, state=State).ainvoke({"question": "Why?"})))["answer"] == "Why? 42"
    keyed = MQTTRemoteAgent("writer", agent=writer.agent, input_key="question", output_key="answer")
    assert (await soon(graph_of(keyed, state=State).ainvoke({"question": "Why?"})))["answer"] == "Why? 43"


async def test_its_events_and_tokens_go_to_the_stream(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await task.progress(1, message="begun")
        for word in ("Hello", " world"):
            await task.stream(word)
        return "Hello world"

    def check(parts: list[Any]) -> None:
        assert [
            (data["peer"], data["content"]) for mode, data in parts if mode == "custom" and data["type"] != "status"
        ] == [("writer", "begun"), ("writer", "Hello"), ("writer", " world")]
        told = [message for mode, data in parts if mode == "messages" for message in data[:1]]
        assert [message.text for message in told if message.type != "human"] == ["Hello", " world"]

    graph = graph_of(writer)
    modes: Any = ["custom", "messages"]

    async def parts() -> list[Any]:
        return [part async for part in graph.astream(GO, stream_mode=modes)]

    check(await soon(parts()))
    check(await soon(asyncio.to_thread(lambda: list(graph.stream(GO, stream_mode=modes)))))


async def test_a_question_is_an_interrupt_and_any_number_of_rounds_works(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        city = await task.ask("Which city?")
        year = await task.ask("Which year?", {"type": "integer"})
        month = await task.ask("Which month?")
        return f"{city} {month} {year}"

    async def converse(graph: Any, thread: Any, invoke: Any) -> None:
        runs.clear()
        answers: list[Any] = ["Oslo", "last year", "2024?", 2024, "May"]
        state = await soon(invoke(graph, GO, thread))
        prompts: list[Any] = []
        for answer in answers:
            [asked] = state["__interrupt__"]
            assert asked.value["peer"] == "writer"
            assert asked.value["round"] == len(prompts) + 1
            if asked.value["prompt"] == "Which year?":
                assert asked.value["schema"] == {"type": "integer"}
                assert getattr(asked, "response_schema", asked.value["schema"]) == {"type": "integer"}
            prompts.append((asked.value["prompt"], "fault" in asked.value))
            state = await soon(invoke(graph, Command(resume=answer), thread))
        assert prompts == [
            ("Which city?", False),
            ("Which year?", False),
            ("Which year?", True),
            ("Which year?", True),
            ("Which month?", False),
        ]
        assert state["messages"][-1].text == "Oslo May 2024"
        assert len(runs) == 1

    graph = graph_of(writer, saver=InMemorySaver())
    await converse(graph, THREAD, lambda graph, *args: graph.ainvoke(*args))
    other: Any = {"configurable": {"thread_id": "2"}}
    await converse(graph, other, lambda graph, *args: asyncio.to_thread(graph.invoke, *args))


async def test_a_graph_resumed_elsewhere_answers_the_right_question(
    broker: Broker, namespace: str, peer: Agent
) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return f"{await task.ask('Which city?')} {await task.ask('Which year?')}"

    saver, store = InMemorySaver(), MemoryStore()

    async def step(value: Any) -> Any:
        # Each step uses its own agent, as a new process would do.
        options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": store}
        async with MQTTRemoteAgent("writer", **options) as remote:
            return await soon(graph_of(remote, saver=saver).ainvoke(value, THREAD))

    state = await step(GO)
    assert state["__interrupt__"][0].value["prompt"] == "Which city?"
    state = await step(Command(resume="Oslo"))
    assert state["__interrupt__"][0].value["prompt"] == "Which year?"
    state = await step(Command(resume="2024"))
    assert state["messages"][-1].text == "Oslo 2024"
    assert len(runs) == 1


async def test_a_node_that_fails_after_its_task_gets_the_same_result_again(
    peer: Agent, writer: MQTTRemoteAgent
) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return f"run {len(runs)}"

    failures = 2

    async def node(state: MessagesState) -> Any:
        nonlocal failures
        first = await writer.ainvoke("one")
        second = await writer.ainvoke("two")
        if failures:
            failures -= 1
            raise ConnectionError("not yet")
        return {"messages": [AIMessage(f"{first.text}, {second.text}")]}

    graph = graph_of(node, saver=InMemorySaver(), retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    with pytest.raises(ConnectionError):
        await soon(graph.ainvoke(GO, THREAD))
    state = await soon(graph.ainvoke(None, THREAD))
    assert state["messages"][-1].text == "run 1, run 2"
    assert len(set(runs)) == len(runs) == 2
    assert (await soon(graph.ainvoke(GO, THREAD)))["messages"][-1].text == "run 3, run 4"


async def test_a_failed_task_is_tried_anew(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        if len(runs) < 3:
            raise ValueError("no luck")
        return "done"

    graph = graph_of(writer, saver=InMemorySaver(), retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    with pytest.raises(errors.TaskFailed, match="no luck"):
        await soon(graph.ainvoke(GO, THREAD))
    assert (await soon(graph.ainvoke(None, THREAD)))["messages"][-1].text == "done"
    assert len(set(runs)) == 3


async def test_other_work_at_the_same_place_is_another_task(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return task.prompt or ""

    turn = 0

    async def node(state: MessagesState) -> Any:
        nonlocal turn
        turn += 1
        message = await writer.ainvoke(f"turn {turn}")
        if turn == 1:
            raise ValueError("after the task")
        return {"messages": [message]}

    graph = graph_of(node, saver=InMemorySaver())
    with pytest.raises(ValueError, match="after the task"):
        await soon(graph.ainvoke(GO, THREAD))
    assert (await soon(graph.ainvoke(None, THREAD)))["messages"][-1].text == "turn 2"
    assert len(set(runs)) == 2


@pytest.mark.parametrize("together", ["gather", "batch"])
async def test_parallel_tasks_stay_the_same_when_their_order_changes(
    peer: Agent, writer: MQTTRemoteAgent, together: str
) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return f"{task.prompt} {runs.index(task.id)}"

    orders = [["a", "b", "b", "c"], ["c", "b", "a", "b"]]
    got: list[dict[str, set[str]]] = []

    async def node(state: MessagesState) -> Any:
        order = orders[len(got)]
        given = [writer.ainvoke(each) for each in order] if together == "gather" else [writer.abatch(list(order))]
        results: list[Any] = await asyncio.gather(*given)
        messages: list[Any] = results if together == "gather" else results[0]
        got.append({each: {m.text for m in messages if m.text.startswith(each)} for each in order})
        if len(got) == 1:
            raise ConnectionError("after the tasks")
        return {"messages": messages}

    graph = graph_of(node, saver=InMemorySaver())
    with pytest.raises(ConnectionError):
        await soon(graph.ainvoke(GO, THREAD))
    await soon(graph.ainvoke(None, THREAD))
    assert got[0] == got[1]
    assert (len(got[0]["b"]), len(set(runs)), len(runs)) == (2, 4, 4)


async def test_branches_and_batches_have_tasks_of_their_own(peer: Agent, writer: MQTTRemoteAgent) -> None:
    from langgraph.types import Send

    class State(TypedDict):
        topics: list[str]
        texts: Annotated[list[str], operator.add]

    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return f"on {task.prompt}"

    async def node(state: Any) -> Any:
        return {"texts": [message.text for message in await writer.abatch([state["topic"], "more"])]}

    builder = StateGraph(State)
    builder.add_node("write", node)
    builder.add_conditional_edges(START, lambda state: [Send("write", {"topic": topic}) for topic in state["topics"]])
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    state = await soon(graph.ainvoke({"topics": ["a", "b", "a"], "texts": []}, THREAD))
    assert state["texts"] == ["on a", "on more", "on b", "on more", "on a", "on more"]
    assert len(set(runs)) == 6


async def test_cancelling_the_graph_cancels_the_task_and_resuming_begins_anew(
    peer: Agent, writer: MQTTRemoteAgent
) -> None:
    running, canceled = asyncio.Event(), asyncio.Event()

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        if running.is_set():
            return "second"
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()
        return "first"

    graph = graph_of(writer, saver=InMemorySaver())
    run = asyncio.create_task(graph.ainvoke(GO, THREAD))
    await soon(running.wait())
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(run)
    await soon(canceled.wait())
    assert (await soon(graph.ainvoke(None, THREAD)))["messages"][-1].text == "second"


async def test_a_node_in_a_subgraph_has_a_task_of_its_own(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return await task.ask("Well?")

    inner = graph_of(writer)
    builder = StateGraph(MessagesState)
    builder.add_node("one", inner)
    builder.add_node("two", graph_of(writer))
    builder.add_edge(START, "one")
    builder.add_edge("one", "two")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    state = await soon(graph.ainvoke(GO, THREAD))
    for answer in ("first", "second"):
        assert state["__interrupt__"]
        state = await soon(graph.ainvoke(Command(resume=answer), THREAD))
    assert [message.text for message in state["messages"]] == ["go", "first", "second"]
    assert len(set(runs)) == 2


async def test_a_long_task_keeps_its_node_from_being_idle(peer: Agent, writer: MQTTRemoteAgent) -> None:
    types = pytest.importorskip("langgraph.types")
    if not hasattr(types, "TimeoutPolicy"):
        inapplicable("this LangGraph has no idle timeout")
    go = asyncio.Event()

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await go.wait()
        return "done"

    policy = types.TimeoutPolicy(idle_timeout=0.6, refresh_on="heartbeat")
    asyncio.get_running_loop().call_later(1.5, go.set)
    state = await soon(graph_of(writer, timeout=policy).ainvoke(GO))
    assert state["messages"][-1].text == "done"


# As a tool


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


async def test_it_is_a_tool_whose_questions_are_interrupts(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> dict[str, Any]:
        runs.append(task.id)
        await task.stream("working")
        return {"prompt": task.prompt, "year": await task.ask("Which year?")}

    tool = writer.as_tool()
    assert (tool.name, set(tool.args)) == ("ask_writer", {"prompt", "task_id"})
    assert set(MQTTRemoteAgent("writer", agent=writer.agent).as_tool().args) == {"prompt"}
    model = calls(("ask_writer", {"prompt": "a"}), ("ask_writer", {"prompt": "b"}))
    agent: Any = create_agent(model, [tool], checkpointer=InMemorySaver())
    updates: list[Any] = []
    state: Any = GO
    for answer in (None, 2023, 2024):
        given = GO if answer is None else Command(resume=answer)
        async for mode, data in agent.astream(given, THREAD, stream_mode=["custom", "values"]):
            if mode == "custom":
                updates.append(data)
            else:
                state = data
    first, second = tool_messages(state)
    assert first.artifact["structured_content"] == {"prompt": "a", "year": 2023}
    assert second.artifact["structured_content"] == {"prompt": "b", "year": 2024}
    assert first.artifact["task_id"] != second.artifact["task_id"]
    assert second.content == '{"prompt": "b", "year": 2024}'
    assert len(runs) == 2
    partials = [(data["tool_call_id"], data["content"]) for data in updates if data["type"] == "partial"]
    assert partials == [("call-0", "working"), ("call-1", "working")]


async def test_a_peer_that_fails_or_is_gone_is_told_to_the_model(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> None:
        raise errors.TaskRejected("not my job")

    agent: Any = create_agent(calls(("ask_writer", {"prompt": "a"})), [writer.as_tool(name="ask_writer")])
    [message] = tool_messages(await soon(agent.ainvoke(GO)))
    assert message.status == "error"
    assert "not my job" in message.text
    strict = create_agent(calls(("ask", {"prompt": "a"})), [writer.as_tool(name="ask", handle_tool_error=False)])
    with pytest.raises(ToolException, match="not my job"):
        await soon(strict.ainvoke(GO))
    await soon(peer.stop())
    await until(lambda: (card := writer.agent.peer("writer")) is not None and card.status == "offline")
    [message] = tool_messages(await soon(agent.ainvoke(GO)))
    assert "offline" in message.text


async def test_a_tool_outside_a_graph_works_too(peer: Agent, writer: MQTTRemoteAgent) -> None:
    @peer.on_task
    async def handle(task: TaskContext) -> str:
        await task.progress(1)
        return f"did {task.prompt}"

    tool = writer.as_tool(name="do", description="Does it")
    assert await soon(tool.ainvoke({"prompt": "a"})) == "did a"
    assert await soon(asyncio.to_thread(tool.invoke, {"prompt": "b"})) == "did b"
    typed = writer.as_tool(arg_types={"n": int}, name="typed", description="Takes a number")
    assert set(typed.args) == {"n"}


async def test_the_config_of_a_plain_run_is_no_node(peer: Agent, writer: MQTTRemoteAgent) -> None:
    runs: list[str] = []

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        runs.append(task.id)
        return "done"

    config = RunnableConfig(configurable={"thread_id": "1", "checkpoint_ns": "x"})
    for _ in range(2):
        await soon(writer.ainvoke("go", config))
    assert len(set(runs)) == 2
