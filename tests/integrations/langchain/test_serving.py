"""LangChain tools and LangGraph apps, offered to others."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from brokers import Broker
from forking import forked_program
from langchain.agents import create_agent
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, ToolException, tool
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit, aserve_graph, aserve_tools, graph_agent, tool_server
from langchain_mqtt_agent.__main__ import main
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from mqtt_agent import Agent, MemoryStore, ToolClient, errors
from support import soon, until

from .models import calls
from .test_remote_processes import IMPORTED

PNG = "iVBORw0KGgo="


@pytest.fixture
async def planner(broker: Broker, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=broker.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


class Serving:
    """Run a server in the background, and wait until it is ready."""

    def __init__(self, function: Any, *args: Any, **options: Any) -> None:
        self._started = asyncio.Event()
        self._task = asyncio.ensure_future(function(*args, on_started=self._started.set, **options))

    async def __aenter__(self) -> None:
        started = asyncio.ensure_future(self._started.wait())
        await asyncio.wait([started, self._task], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=20)


# Tools


class Meeting:
    """Handlers that block until as many of them as expected run at the same time."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)

    def attend(self, n: int) -> int:
        """Meet the others."""
        self._barrier.wait(20)
        return n


class MeetingTool(BaseTool):
    """A tool without an async form, made as a class."""

    name: str = "meet"
    description: str = "Meet the others."
    meeting: Any

    def _run(self, n: int) -> int:
        return self.meeting.attend(n)


@pytest.mark.parametrize("how", ["function", "class"])
async def test_tools_that_block_run_as_many_at_once_as_max_concurrency_allows(
    broker: Broker, namespace: str, how: str
) -> None:
    meeting = Meeting(40)
    meet = MeetingTool(meeting=meeting) if how == "class" else tool("meet")(meeting.attend)
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with tool_server([meet], "toolbox", max_concurrency=40, **where), ToolClient("client", **where) as client:
        calls = asyncio.gather(*(client.call("meet", {"n": n}) for n in range(40)))
        assert await soon(calls, 30) == list(range(40))


async def test_graphs_whose_nodes_block_run_as_many_at_once_as_max_concurrency_allows(
    broker: Broker, namespace: str, planner: Agent
) -> None:
    meeting = Meeting(20)
    builder = StateGraph(MessagesState)
    builder.add_node("meet", lambda state: {"messages": [("ai", str(meeting.attend(1)))]})
    builder.add_edge(START, "meet")
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with graph_agent(builder, "graph", max_concurrency=20, **where):
        results = await soon(asyncio.gather(*(planner.request("graph", f"task {n}") for n in range(20))), 30)
    assert results == ["1"] * 20


@tool
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@tool(response_format="content_and_artifact")
async def draw(what: str) -> tuple[list[Any], dict[str, Any]]:
    """Draw something."""
    blocks = [
        {"type": "text", "text": f"a {what}"},
        {"type": "image", "base64": PNG, "mime_type": "image/png"},
        {"type": "file", "base64": "cGRm", "mime_type": "application/pdf"},
        {"type": "file", "base64": "d2F2", "mime_type": "audio/wav"},
        {"type": "file", "url": "https://example.com/a.pdf", "mime_type": "application/pdf"},
    ]
    return blocks, {"structured_content": {"drawn": what}}


@tool
def fail(hard: bool) -> str:
    """Never works."""
    raise (ValueError if hard else ToolException)("no luck")


@tool
def work(call_id: Annotated[str, InjectedToolCallId]) -> str:
    """Tell how it goes."""
    dispatch_custom_event("progress", {"progress": 1})
    return f"called {bool(call_id)}"


def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


async def test_langchain_tools_are_tools_for_everybody(
    broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with Serving(aserve_tools, [add, draw, fail, work, shout], "toolbox", **where):
        async with ToolClient("client", **where) as client:
            cards = {card.tool: card for card in await client.list_tools()}
            assert cards["add"].description == "Add two numbers."
            assert cards["add"].input_schema["required"] == ["a", "b"]
            assert cards["work"].input_schema["properties"] == {}
            assert await soon(client.call("add", {"a": 1, "b": 2})) == {"sum": 3}
            assert await soon(client.call("shout", {"text": "hi"})) == "HI"
            with pytest.raises(errors.ToolFailed, match="no luck") as failed:
                await soon(client.call("fail", {"hard": False}))
            assert failed.value.code == "ToolException"
            assert "tool fail failed" not in caplog.text  # a ToolException is the tool's answer
            with pytest.raises(errors.ToolFailed, match="no luck") as failed:
                await soon(client.call("fail", {"hard": True}))
            assert failed.value.code == "ValueError"
            assert re.search(rf"tool fail failed in .*: ValueError: no luck \(at {__file__}:\d+ in fail\)", caplog.text)
            with pytest.raises(errors.InvalidArguments):
                await soon(client.call("add", {"a": "one", "b": 2}))
            told: list[Any] = []
            assert await soon(client.call("work", on_partial=told.append)) == "called True"
            assert told == [{"progress": 1}]
            handle = await client.submit("draw", {"what": "cat"})
            assert await soon(handle.result()) == {"drawn": "cat"}
            assert handle.response is not None
            assert handle.response.content is not None
            assert [block["type"] for block in handle.response.content] == [
                "text",
                "image",
                "resource",
                "audio",
                "resource_link",
            ]


async def test_content_blocks_go_there_and_back(broker: Broker, namespace: str) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with Serving(aserve_tools, [draw], "toolbox", **where), MQTTToolkit(**where) as toolkit:
        agent: Any = create_agent(calls(("draw", {"what": "cat"})), await toolkit.aget_tools())
        state = await soon(agent.ainvoke({"messages": [("user", "go")]}))
        [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    text, image, file, sound, link = message.content
    assert text == {"type": "text", "text": "a cat"}
    assert image == {"type": "image", "base64": PNG, "mime_type": "image/png"}
    assert file == {"type": "file", "base64": "cGRm", "mime_type": "application/pdf"}
    # Sent as a file, because LangChain converts an audio block of a tool to text.
    assert sound == {"type": "file", "base64": "d2F2", "mime_type": "audio/wav"}
    assert link == {"type": "file", "url": "https://example.com/a.pdf", "mime_type": "application/pdf"}
    assert message.artifact["structured_content"] == {"drawn": "cat"}
    assert message.artifact["server"].startswith("toolbox:")


# Graphs


def talking_graph(**options: Any) -> Any:
    def talk(state: MessagesState) -> Any:
        get_stream_writer()({"progress": 1, "total": 2, "message": "thinking"})
        get_stream_writer()({"note": len(state["messages"])})
        return {"messages": [AIMessage(" / ".join(message.text for message in state["messages"]))]}

    return StateGraph(MessagesState).add_node("talk", talk).add_edge(START, "talk").compile(**options)


async def test_a_graph_is_an_agent(broker: Broker, namespace: str, planner: Agent) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with Serving(aserve_graph, talking_graph(), "talker", description="Talks", **where):
        task = await soon(planner.delegate("talker", "hello"))
        events = [event async for event in task.events()]
        assert await soon(task.result()) == "hello"
        assert [(e.progress, e.total, e.content) for e in events if e.type == "progress"] == [(1, 2, "thinking")]
        assert [e.data for e in events if e.type == "partial" and e.data] == [{"note": 1}]
        assert [e.content for e in events if e.type == "partial" and e.content] == ["hello"]
        [card] = await planner.peers()
        assert card.description == "Talks"


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
async def test_tasks_of_one_context_share_the_memory_of_the_graph(
    broker: Broker, namespace: str, planner: Agent, tmp_path: Path, saver: str
) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    with SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as sqlite:
        graph = talking_graph(checkpointer=sqlite if saver == "sqlite" else InMemorySaver())
        async with Serving(aserve_graph, graph, "talker", **where):
            assert await soon(planner.request("talker", "one", context_id="c")) == "one"
            conversation = [
                {"role": "user", "content": "one"},
                {"role": "agent", "content": "one"},
                {"role": "user", "content": "two"},
            ]
            assert await soon(planner.request("talker", messages=conversation, context_id="c")) == "one / one / two"
            assert await soon(planner.request("talker", "three")) == "three"
            state = await asyncio.to_thread(graph.get_state, {"configurable": {"thread_id": "bound:planner/c"}})
            assert len(state.values["messages"]) == 4


def asking_graph(**options: Any) -> Any:
    class State(TypedDict, total=False):
        topic: str
        answers: list[Any]

    def ask(state: State) -> Any:
        first = interrupt("Which city?")
        second = interrupt({"question": "Which city?", "schema": {"type": "integer"}})
        return {"answers": [state.get("topic"), first, second]}

    return StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile(**options)


async def test_interrupts_are_questions_also_to_a_graph_at_the_other_end(broker: Broker, namespace: str) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with Serving(aserve_graph, asking_graph(), "asker", store=MemoryStore(), **where):
        remote = MQTTRemoteAgent("asker", agent_id="planner", store=MemoryStore(), timeout=20, **where)

        class State(TypedDict, total=False):
            topic: str
            answers: list[Any]

        builder = StateGraph(State).add_node("remote", remote).add_edge(START, "remote")
        graph: Any = builder.compile(checkpointer=InMemorySaver())
        config: Any = {"configurable": {"thread_id": "1"}}
        async with remote:
            state = await soon(graph.ainvoke({"topic": "t"}, config))
            assert state["__interrupt__"][0].value["prompt"] == "Which city?"
            state = await soon(graph.ainvoke(Command(resume="Oslo"), config))
            assert state["__interrupt__"][0].value["schema"] == {"type": "integer"}
            state = await soon(graph.ainvoke(Command(resume=7), config))
        assert state["answers"] == ["t", "Oslo", 7]


async def test_a_canceled_task_stops_the_run(broker: Broker, namespace: str, planner: Agent) -> None:
    running, stopped = asyncio.Event(), asyncio.Event()

    async def hang(state: MessagesState) -> Any:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    graph = StateGraph(MessagesState).add_node("hang", hang).add_edge(START, "hang").compile()
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with Serving(aserve_graph, graph, "hanger", **where):
        task = await soon(planner.delegate("hanger", "go"))
        await soon(running.wait())
        await soon(task.cancel())
        with pytest.raises(errors.TaskCanceled):
            await soon(task.result())
        await soon(stopped.wait())


async def test_an_agent_of_langchain_is_an_agent_here(broker: Broker, namespace: str, planner: Agent) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with Serving(aserve_graph, create_agent(calls(("add", {"a": 1, "b": 2})), [add]), "adder", **where):
        assert await soon(planner.request("adder", "add")) == "done"


async def test_a_node_that_fails_fails_the_task(
    broker: Broker, namespace: str, planner: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(state: MessagesState) -> Any:
        raise ValueError("no luck")

    graph = StateGraph(MessagesState).add_node("broken", broken).add_edge(START, "broken")
    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with Serving(aserve_graph, graph, "broken", **where):
        with pytest.raises(errors.TaskFailed, match="no luck") as failed:
            await soon(planner.request("broken", "go"))
        assert failed.value.type == "ValueError"
    assert re.search(rf"failed at agent broken: ValueError: no luck \(at {__file__}:\d+ in broken\)", caplog.text)
    with pytest.raises(TypeError, match="a graph is needed"):
        graph_agent(object(), "nothing")


# The command line

MODULE = '''
import os, pathlib, time
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from langchain_core.tools import tool

log = pathlib.Path("log")

def note(line):
    with log.open("a") as file:
        file.write(line + "\\n")

def first(state):
    note("first")
    return {"messages": [("ai", "first")]}

def second(state):
    note("second")
    if not pathlib.Path("go").exists():
        time.sleep(600)  # until it is killed
    return {"messages": [("ai", "second " + interrupt("Well?"))]}

async def graph():
    builder = StateGraph(MessagesState)
    builder.add_sequence([first, second])
    builder.add_edge(START, "first")
    return builder

@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b

tools = [add]
'''


async def test_a_killed_host_goes_on_with_its_graph_where_it_was(
    broker: Broker, namespace: str, planner: Agent, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(MODULE)
    command = [sys.executable, "-m", "langchain_mqtt_agent", "serve", "app:graph", "--agent-id", "host"]
    command += ["--broker", broker.url, "--namespace", namespace, "--store", "tasks.db", "--checkpoints", "graph.db"]

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "said").open("w") as said:
            return forked_program(IMPORTED, command, cwd=tmp_path, stderr=said)

    def notes() -> list[str]:
        log = tmp_path / "log"
        return log.read_text().split() if log.exists() else []

    host = await asyncio.to_thread(start)
    try:
        task = await soon(planner.delegate("host", "go", wait_online=True), 30)
        await until(lambda: notes() == ["first", "second"], 40)
        host.kill()
        host.wait(10)
        (tmp_path / "go").touch()
        host = start()
        await until(lambda: task.question, 40)
        await soon(task.send("done"))
        assert await soon(task.result(), 20) == "second done"
        assert notes() == ["first", "second", "second", "second"]
        host.send_signal(signal.SIGTERM)
        assert await soon(asyncio.to_thread(host.wait), 20) == 0
        assert f"agent host takes tasks at {broker.url}" in (tmp_path / "said").read_text()
    finally:
        host.kill()
        host.wait(10)


async def test_tools_are_served_from_the_command_line(broker: Broker, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(MODULE)
    command = [sys.executable, "-m", "langchain_mqtt_agent", "serve-tools", "app:tools", "--server", "box"]
    environment = {**os.environ, "MQTT_AGENT_BROKER": broker.url}
    server = subprocess.Popen([*command, "--namespace", namespace], cwd=tmp_path, env=environment)
    try:
        async with ToolClient("client", broker=broker.url, namespace=namespace) as client:
            assert await client.call("add", {"a": 1, "b": 2}, wait_online=True, timeout=30) == 3
    finally:
        server.terminate()
        ended = await soon(asyncio.to_thread(server.wait), 20)
    assert ended == 0


@pytest.mark.parametrize(
    ("target", "problem"),
    [("nothing", "module:name"), ("no_such_module:graph", "No module"), ("json:graph", "has no graph")],
)
def test_a_wrong_target_is_told_in_one_line(target: str, problem: str) -> None:
    with pytest.raises(SystemExit, match=problem):
        main(["serve", target, "--agent-id", "a"])
