"""Calls and tasks that fail: what the model is told, and what the program finds in the artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import langchain_core
import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import ToolException
from langchain_mqtt_agent import MQTTLiveTools, MQTTRemoteAgent, MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolError, errors
from packaging.version import Version
from skips import inapplicable
from support import becomes, soon

from .conftest import Toolbox
from .models import ScriptedModel, calls
from .test_remote_graph import graph_of

GO: Any = {"messages": [("user", "go")]}
THREAD: Any = {"configurable": {"thread_id": "1"}}


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
async def writer(broker: Broker, namespace: str) -> Any:
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), will_delay=1, drain_timeout=0)

    @agent.on_task
    async def handle(task: TaskContext) -> str:
        if task.prompt == "fail":
            raise errors.TaskFailed("no idea", code="E_IDEA", data={"tried": 3})
        return f"{len(task.prompt or '')} characters"

    await soon(agent.start())
    yield agent
    await soon(agent.stop())


@pytest.fixture
def planner(broker: Broker, namespace: str) -> Iterator[MQTTRemoteAgent]:
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
    with MQTTRemoteAgent("writer", timeout=20, **options) as remote:
        yield remote


async def run(agent: Any, mode: str, given: Any = GO, config: Any = None) -> Any:
    return await soon(
        agent.ainvoke(given, config) if mode == "async" else asyncio.to_thread(agent.invoke, given, config), 30
    )


WRITES_ARGUMENTS_ONLY = Version("1.7")
REFUSED: dict[str, tuple[Any, str]] = {
    "too deep": (nested(300), "nested deeper than 200 levels"),
    "far too deep": (nested(20_000), "nested deeper than 200 levels"),
    "NaN": (float("nan"), "NaN"),
    "too large for the packet": ("x" * 20_000_000, "20,000,"),
    "no JSON": (b"\xff", "no JSON form"),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("why", REFUSED)
async def test_arguments_that_the_callers_side_refuses_are_told_to_the_model(
    toolkit: MQTTToolkit, mode: str, why: str
) -> None:
    if why == "far too deep" and Version(langchain_core.__version__) < WRITES_ARGUMENTS_ONLY:
        inapplicable("this version of LangChain writes the whole state of the run as text for each call of a tool")
    value, told = REFUSED[why]
    agent: Any = create_agent(calls(("no_schema", {"value": value}), ("greet", {"name": "Ada"})), toolkit.get_tools())
    refused, greeted = tool_messages(await run(agent, mode))
    assert (refused.status, greeted.text) == ("error", "Hello Ada")
    assert told in refused.text
    assert refused.artifact["code"] == "invalid_arguments"


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_prompt_that_the_callers_side_refuses_is_told_to_the_model(
    writer: Agent, planner: MQTTRemoteAgent, mode: str
) -> None:
    model = calls(("ask_writer", {"prompt": "x" * 20_000_000}), ("ask_writer", {}), ("ask_writer", {"prompt": "short"}))
    agent: Any = create_agent(model, [planner.as_tool()])
    large, missing, short = tool_messages(await run(agent, mode))
    assert (large.status, missing.status, short.text) == ("error", "error", "5 characters")
    assert "20,000," in large.text
    assert {large.artifact["code"], missing.artifact["code"]} == {"invalid_arguments"}


async def test_the_user_decides_what_the_model_is_told_about_refused_arguments(
    broker: Broker, namespace: str, toolbox: Toolbox
) -> None:
    wanted = ("no_schema", {"value": float("nan")})
    forms: list[tuple[Any, str]] = [
        ("Try again.", "Try again."),
        (lambda error: f"{error.artifact['code']}: {type(error.__cause__).__name__}", "invalid_arguments: WireError"),
    ]
    for form, told in forms:
        with MQTTToolkit(broker=broker.url, namespace=namespace, handle_tool_error=form) as toolkit:
            [message] = tool_messages(await run(create_agent(calls(wanted), toolkit.get_tools()), "async"))
            assert (message.text, message.status, message.artifact["data"]) == (told, "error", None)
    with MQTTToolkit(broker=broker.url, namespace=namespace, handle_tool_error=False) as toolkit:
        with pytest.raises(ToolException, match="NaN"):
            await run(create_agent(calls(wanted), toolkit.get_tools()), "async")
        [tool] = [each for each in toolkit.get_tools() if each.name == "no_schema"]
        with pytest.raises(ToolException, match="NaN"):
            tool.invoke({"value": float("nan")})


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_arguments_that_are_no_json_are_told_to_the_model(toolkit: MQTTToolkit, mode: str) -> None:
    broken = {"name": "add", "args": '{"a": 1, "b": ', "id": "call-0", "error": None, "type": "invalid_tool_call"}
    turns: list[Any] = [
        AIMessage("", invalid_tool_calls=[broken]),
        AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "call-1"}]),
        AIMessage("done"),
    ]
    agent: Any = create_agent(ScriptedModel(responses=turns), middleware=[MQTTLiveTools(toolkit)])
    state = await run(agent, mode)
    refused, added = tool_messages(state)
    assert (refused.tool_call_id, refused.status, added.text) == ("call-0", "error", '{"sum": 3}')
    assert "no JSON" in refused.text
    assert state["messages"][-1].text == "done"


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_an_answer_that_cannot_be_sent_is_asked_for_again(broker: Broker, namespace: str, mode: str) -> None:
    async def handle(task: TaskContext) -> Any:
        return await task.ask("Which year?")

    agent = Agent("asker", broker=broker.url, namespace=namespace, store=MemoryStore())
    agent.on_task(handle)
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
    asked: list[str] = []

    def answer(question: str, schema: Any) -> Any:
        asked.append(question)
        return float("nan") if len(asked) == 1 else 2024

    async with agent:
        with MQTTRemoteAgent("asker", on_question=answer, output_key="year", **options) as remote:
            assert (await run(remote, mode, "go"))["year"] == 2024
        assert (len(asked), "NaN" in asked[1]) == (2, True)
        with MQTTRemoteAgent("asker", **options) as remote:
            graph = graph_of(remote, saver=InMemorySaver())
            await run(graph, mode, GO, THREAD)
            state = await run(graph, mode, Command(resume={"year": float("nan")}), THREAD)
            assert "NaN" in state["__interrupt__"][0].value["fault"]
            state = await run(graph, mode, Command(resume=2024), THREAD)
            assert state["messages"][-1].text == "2024"


async def test_a_failed_call_has_an_artifact(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    async def limited() -> None:
        raise ToolError("too many requests", code="RATE_LIMITED", data={"retry_after": 30}, retryable=True)

    toolbox.add_tool("limited", limited)
    await becomes(lambda: _names(toolkit, "limited"))
    wanted = [("limited", {}), ("fail", {}), ("add", {"a": 1, "b": "two"}), ("slow", {"seconds": 60})]
    [*tools, slow] = [next(each for each in toolkit.get_tools() if each.name == name) for name, _ in wanted]
    with MQTTToolkit(broker=toolkit.broker, namespace=toolkit.namespace, tools=["slow"], timeout=0.2) as impatient:
        [slow] = impatient.get_tools()
        agent: Any = create_agent(calls(*wanted), [*tools, slow])
        limit, failed, refused, late = [message.artifact for message in tool_messages(await run(agent, "async"))]
    assert (limit["code"], limit["data"], limit["retryable"]) == ("RATE_LIMITED", {"retry_after": 30}, True)
    assert (limit["server"], limit["attempt"], limit["structured_content"]) == ("toolbox:only", 1, None)
    assert limit["call_id"] != failed["call_id"]
    assert limit["elapsed_ms"] >= 0
    assert (failed["code"], failed["data"], failed["retryable"]) == ("E_LUCK", None, False)
    assert (refused["code"], refused["data"][0]["path"], refused["retryable"]) == ("invalid_arguments", "/b", False)
    assert (late["code"], late["retryable"]) == ("timeout", False)


async def _names(toolkit: MQTTToolkit, name: str) -> bool:
    return name in {tool.name for tool in await toolkit.aget_tools()}


async def test_a_call_of_a_tool_that_is_gone_can_be_made_again(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    agent: Any = create_agent(calls(("add", {"a": 1, "b": 2})), toolkit.get_tools())
    toolbox.stop()
    [message] = tool_messages(await run(agent, "sync"))
    artifact = message.artifact
    assert (artifact["code"], artifact["retryable"], artifact["maybe_executed"]) == ("offline", True, False)


async def test_a_failed_task_has_an_artifact(writer: Agent, planner: MQTTRemoteAgent) -> None:
    agent: Any = create_agent(calls(("ask_writer", {"prompt": "fail"})), [planner.as_tool()])
    [message] = tool_messages(await run(agent, "async"))
    artifact = message.artifact
    assert message.status == "error"
    assert (artifact["code"], artifact["data"], artifact["retryable"]) == ("E_IDEA", {"tried": 3}, None)
    assert (artifact["peer"], artifact["attempt"], artifact["structured_content"]) == ("writer", 1, None)
    assert artifact["task_id"]


async def test_the_content_blocks_of_an_error_reach_the_model(
    broker: Broker, namespace: str, toolbox: Toolbox, toolkit: MQTTToolkit
) -> None:
    blocks = [{"type": "text", "text": "no such page"}, {"type": "image", "data": "QUJD", "mimeType": "image/png"}]

    async def shows() -> None:
        raise ToolError("no such page", content=blocks, data={"page": 7})

    toolbox.add_tool("shows", shows)
    [tool] = [tool for tool in toolkit.get_tools() if tool.name == "shows"]
    message = await tool.ainvoke({"type": "tool_call", "name": "shows", "id": "1", "args": {}})
    assert message.status == "error"
    assert message.content == [
        {"type": "text", "text": "no such page"},
        {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
    ]
    assert message.artifact["data"] == {"page": 7}
