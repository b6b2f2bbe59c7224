"""Remote tools in LangChain agents, over real brokers."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from brokers import Broker, Embedded
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent import ToolServer
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import BrokerUnreachable, ToolUnavailable
from pydantic import ValidationError
from support import soon, until

from .conftest import AWKWARD_NAMES, Toolbox
from .models import calls

ASK: Any = {"messages": [("user", "go")]}


def by_name(tools: list[BaseTool]) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in tools}


def tool_messages(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def agent_that(toolkit: MQTTToolkit, *wanted: tuple[str, dict[str, Any]]) -> Any:
    return create_agent(calls(*wanted), toolkit.get_tools())


def test_every_tool_of_the_namespace_is_there_with_its_schema(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    tools = by_name(toolkit.get_tools())
    assert set(tools) == {card.tool for card in toolbox.tools}
    assert tools["add"].description == "Add two numbers."
    assert set(tools["add"].args) == {"a", "b"}
    assert tools["no_schema"].args == {}
    assert tools["add"].metadata is not None
    assert tools["add"].metadata["mqtt"]["tool"] == "add"
    assert convert_to_openai_tool(tools["add"])["function"]["parameters"]["required"] == ["a", "b"]


async def test_the_tools_are_the_same_when_they_are_awaited(toolkit: MQTTToolkit) -> None:
    assert by_name(await toolkit.aget_tools()).keys() == by_name(toolkit.get_tools()).keys()


def test_an_agent_calls_tools_with_invoke(toolkit: MQTTToolkit) -> None:
    agent = agent_that(toolkit, ("add", {"a": 2, "b": 3}), ("greet", {"name": "Ada"}))
    added, greeted = tool_messages(agent.invoke(ASK))
    assert added.content == '{"sum": 5}'
    assert added.artifact["structured_content"] == {"sum": 5}
    assert added.artifact["server"] == "toolbox:only"
    assert added.artifact["call_id"] != greeted.artifact["call_id"]
    assert added.artifact["elapsed_ms"] >= 0
    assert greeted.content == "Hello Ada"


async def test_an_agent_calls_tools_with_ainvoke(toolkit: MQTTToolkit) -> None:
    agent = create_agent(calls(("add", {"a": 2, "b": 3})), await toolkit.aget_tools())
    [added] = tool_messages(await agent.ainvoke(ASK))
    assert added.artifact["structured_content"] == {"sum": 5}


def assert_streamed(parts: list[Any]) -> None:
    partials = [data for mode, data in parts if mode == "custom"]
    assert [partial["partial"] for partial in partials] == [{"progress": n, "total": 3} for n in (1, 2, 3)]
    assert {(partial["tool"], partial["tool_call_id"]) for partial in partials} == {("count", "call-0")}
    [result] = [data["tools"]["messages"][0] for mode, data in parts if mode == "updates" and "tools" in data]
    assert {partial["call_id"] for partial in partials} == {result.artifact["call_id"]}
    last_partial = max(index for index, (mode, _) in enumerate(parts) if mode == "custom")
    assert last_partial < parts.index(("updates", {"tools": {"messages": [result]}}))


def test_partials_go_to_the_stream_writer_of_stream(toolkit: MQTTToolkit) -> None:
    agent = agent_that(toolkit, ("count", {"to": 3}))
    assert_streamed(list(agent.stream(ASK, stream_mode=["updates", "custom"])))


async def test_partials_go_to_the_stream_writer_of_astream(toolkit: MQTTToolkit) -> None:
    agent = create_agent(calls(("count", {"to": 3})), await toolkit.aget_tools())
    assert_streamed([part async for part in agent.astream(ASK, stream_mode=["updates", "custom"])])


def test_threads_and_event_loops_share_one_connection(toolkit: MQTTToolkit, broker: Broker) -> None:
    add = by_name(toolkit.get_tools())["add"]
    together = threading.Barrier(6)

    def in_a_loop_of_its_own(number: int) -> Any:
        async def several() -> list[Any]:
            together.wait(10)
            return await asyncio.gather(*(add.ainvoke({"a": number, "b": n}) for n in range(5)))

        return asyncio.run(several())

    def in_a_thread(number: int) -> Any:
        together.wait(10)
        return [add.invoke({"a": number, "b": n}) for n in range(5)]

    with ThreadPoolExecutor(6) as pool:
        loops = pool.map(in_a_loop_of_its_own, (10, 20, 30), timeout=20)
        threads = pool.map(in_a_thread, (40, 50, 60), timeout=20)
        answers = [*loops, *threads]
    assert answers == [[f'{{"sum": {base + n}}}' for n in range(5)] for base in (10, 20, 30, 40, 50, 60)]
    assert toolkit.connection.epoch == 1


async def test_a_sync_call_works_inside_a_running_event_loop(toolkit: MQTTToolkit) -> None:
    assert by_name(toolkit.get_tools())["add"].invoke({"a": 1, "b": 1}) == '{"sum": 2}'


def test_a_failed_call_is_told_to_the_model(toolkit: MQTTToolkit) -> None:
    agent = agent_that(toolkit, ("fail", {}), ("add", {"a": 1, "b": "two"}), ("add", {"a": 1, "b": 2}))
    failed, refused, added = tool_messages(agent.invoke(ASK))
    assert (failed.status, failed.content) == ("error", "fail: no luck today")
    assert refused.status == "error"
    assert "argument 'b'" in refused.text
    assert (added.status, added.content) == ("success", '{"sum": 3}')


def test_a_failed_call_ends_the_run_where_that_is_wanted(broker: Broker, namespace: str, toolbox: Toolbox) -> None:
    with MQTTToolkit(broker=broker.url, namespace=namespace, handle_tool_error=False) as toolkit:
        with pytest.raises(ToolException, match="no luck today"):
            agent_that(toolkit, ("fail", {})).invoke(ASK)


def test_the_model_is_told_that_a_server_has_gone(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    agent = agent_that(toolkit, ("add", {"a": 1, "b": 2}))
    toolbox.stop()
    [message] = tool_messages(agent.invoke(ASK))
    assert message.status == "error"
    assert "offline" in message.text


@pytest.mark.parametrize("tool", ["awkward", "no_schema"])
def test_arguments_may_have_any_name(toolkit: MQTTToolkit, tool: str) -> None:
    arguments = {name: name.upper() for name in AWKWARD_NAMES}
    [echo] = tool_messages(agent_that(toolkit, (tool, arguments)).invoke(ASK))
    assert echo.artifact["structured_content"] == arguments


async def test_a_name_that_models_refuse_gets_a_suffix_made_from_its_own_text(broker: Broker, namespace: str) -> None:
    async def handler() -> str:
        return "ok"

    names = ("weather.today", "weather today", "größe", "x" * 80)
    server = ToolServer("names", broker=broker.url, namespace=namespace)
    for name in names:
        server.add_tool(name, handler)
    async with server, MQTTToolkit(broker=broker.url, namespace=namespace) as toolkit:
        tools = await toolkit.aget_tools()
        assert {tool.metadata["mqtt"]["tool"] for tool in tools if tool.metadata} == set(names)
        assert {tool.name for tool in tools} == {model_name(name) for name in names}
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name) for tool in tools)
        assert [await tool.ainvoke({}) for tool in tools] == ["ok"] * 4


def test_only_the_wanted_tools_are_taken(
    broker: Broker, namespace: str, toolbox: Toolbox, caplog: pytest.LogCaptureFixture
) -> None:
    with MQTTToolkit(broker=broker.url, namespace=namespace, tools=["greet", "ghost", "add"]) as toolkit:
        assert [tool.name for tool in toolkit.get_tools()] == ["greet", "add"]
    assert "ghost" in caplog.text
    with MQTTToolkit(broker=broker.url, namespace=namespace, tools=["ghost"], on_unavailable="raise") as toolkit:
        with pytest.raises(ToolUnavailable, match="ghost"):
            toolkit.get_tools()


async def test_cancelling_a_call_cancels_it_at_its_server(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    agent = create_agent(calls(("hang", {})), await toolkit.aget_tools())
    running = asyncio.Event()

    async def run() -> None:
        async for _ in agent.astream(ASK, stream_mode="custom"):
            running.set()

    task = asyncio.create_task(run())
    await soon(running.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    await until(lambda: len(toolbox.canceled) == 1)


def test_a_broker_that_is_not_there_is_named(namespace: str, url_of_nobody: str) -> None:
    with MQTTToolkit(broker=url_of_nobody, namespace=namespace) as toolkit:
        with pytest.raises(BrokerUnreachable, match=url_of_nobody):
            toolkit.get_tools()


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="brokers"):
        MQTTToolkit(brokers="mqtt://localhost")  # type: ignore[call-arg]


def test_it_works_without_langgraph(embedded: Embedded, namespace: str) -> None:
    program = f"""
import sys
sys.modules["langgraph"] = None
from langchain_mqtt_agent import MQTTToolkit
from mqtt_agent.sync import ToolServer
server = ToolServer("s", broker={embedded.url!r}, namespace={namespace!r})
@server.tool
def add(a: int, b: int) -> int:
    return a + b
with server:
    [tool] = MQTTToolkit(broker={embedded.url!r}, namespace={namespace!r}).get_tools()
    print(tool.invoke({{"a": 1, "b": 2}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
