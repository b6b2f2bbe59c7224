"""The progress and partial output of a tool, and the handling of its errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_mqtt_agent import MQTTToolkit
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent.errors import TransportError
from skips import inapplicable
from support import soon

from .conftest import Toolbox
from .models import calls

GO: Any = {"messages": [("user", "go")]}
PARTIALS = [{"progress": n, "total": 3} for n in (1, 2, 3)]


async def tool_named(toolkit: MQTTToolkit, name: str) -> BaseTool:
    [tool] = [tool for tool in await toolkit.aget_tools() if tool.name == name]
    return tool


async def test_progress_goes_to_mode_tools(toolkit: MQTTToolkit) -> None:
    agent: Any = create_agent(calls(("count", {"to": 3})), [await tool_named(toolkit, "count")])
    try:
        told = [part async for part in agent.astream(GO, stream_mode="tools")]
    except (TypeError, ValueError):
        inapplicable("this LangGraph has no mode tools")
    if not told:
        inapplicable("this LangGraph has no mode tools")
    deltas = [part for part in told if part["event"] == "tool-output-delta"]
    assert [part["delta"]["partial"] for part in deltas] == PARTIALS
    assert {part["tool_call_id"] for part in deltas} == {"call-0"}


async def test_progress_is_a_custom_event(toolkit: MQTTToolkit) -> None:
    agent: Any = create_agent(calls(("count", {"to": 3})), [await tool_named(toolkit, "count")])
    events: list[Any] = [event async for event in agent.astream_events(GO, version="v2")]
    told = [event["data"] for event in events if event["event"] == "on_custom_event"]
    assert [each["partial"] for each in told] == PARTIALS
    assert {each["tool_call_id"] for each in told} == {"call-0"}


async def test_outside_a_graph_progress_is_a_custom_event_or_nothing(toolkit: MQTTToolkit) -> None:
    count = await tool_named(toolkit, "count")
    assert await soon(count.ainvoke({"to": 3})) == '{"counted": 3}'
    assert await soon(asyncio.to_thread(count.invoke, {"to": 3})) == '{"counted": 3}'
    events: list[Any] = [event async for event in count.astream_events({"to": 3}, version="v2")]
    assert [each["data"]["partial"] for each in events if each["event"] == "on_custom_event"] == PARTIALS


async def test_a_long_call_keeps_its_node_from_being_idle(toolkit: MQTTToolkit) -> None:
    types = pytest.importorskip("langgraph.types")
    if not hasattr(types, "TimeoutPolicy"):
        inapplicable("this LangGraph has no idle timeout")
    slow = await tool_named(toolkit, "slow")

    async def node(state: MessagesState) -> Any:
        return {"messages": [("ai", await slow.ainvoke({"seconds": 1.5}))]}

    policy = types.TimeoutPolicy(idle_timeout=0.6, refresh_on="heartbeat")
    graph: Any = StateGraph(MessagesState).add_node("node", node, timeout=policy).add_edge(START, "node").compile()
    assert (await soon(graph.ainvoke(GO)))["messages"][-1].text == "slept"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [(("fail", {}), "no luck today"), (("add", {"a": 1}), "b"), (("hang", {}), "no answer")],
)
@pytest.mark.parametrize("handle", [True, False, "Sorry", lambda error: f"<{error}>"])
async def test_what_a_peer_says_is_for_the_model(
    broker: Broker, namespace: str, toolbox: Toolbox, wanted: Any, words: str, handle: Any
) -> None:
    where: Any = {"broker": broker.url, "namespace": namespace}
    async with MQTTToolkit(timeout=1, handle_tool_error=handle, **where) as toolkit:
        agent: Any = create_agent(calls(wanted), await toolkit.aget_tools())
        if handle is False:
            with pytest.raises(ToolException, match=words):
                await soon(agent.ainvoke(GO))
            return
        state = await soon(agent.ainvoke(GO))
    [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
    assert message.status == "error"
    expected = {True: words, "Sorry": "Sorry"}.get(handle, "<") if isinstance(handle, (bool, str)) else "<"
    assert expected in message.text


async def test_a_lost_connection_is_no_word_for_the_model(toolkit: MQTTToolkit) -> None:
    tools = await toolkit.aget_tools()

    def refuse(*args: Any, **options: Any) -> Any:
        raise TransportError("the broker is gone")

    toolkit._remote.await_on_loop = refuse  # type: ignore[method-assign]
    with pytest.raises(ConnectionError, match="gone"):
        await soon(create_agent(calls(("add", {"a": 1, "b": 2})), tools).ainvoke(GO))
