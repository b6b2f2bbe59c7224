"""Tools that ask in the middle of a call: an interrupt in a graph, and the user's function outside a graph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Embedded
from langchain.agents import create_agent
from langchain_core.tools import BaseTool, ToolException
from langchain_mqtt_agent import MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from mqtt_agent import ToolContext, ToolServer
from support import becomes, soon

from .models import calls
from .test_remote_graph import GO, THREAD


@pytest.fixture
async def runs(embedded: Embedded, namespace: str) -> AsyncIterator[list[str]]:
    """A server with the tool ``book``, which asks twice; the list has the argument of each run."""
    server, runs = ToolServer("travel", broker=embedded.url, namespace=namespace), list[str]()

    @server.tool
    async def book(day: str, ctx: ToolContext) -> str:
        runs.append(day)
        city = await ctx.ask("Where to?")
        return f"{day}: {city}, {await ctx.ask('How many?', {'type': 'integer'})}"

    async with server:
        yield runs


async def book(toolkit: MQTTToolkit) -> BaseTool:
    found: list[BaseTool] = []

    async def there() -> bool:
        found[:] = await toolkit.aget_online_tools()
        return bool(found)

    await becomes(there)
    return found[0]


async def test_each_question_interrupts_the_graph_and_the_call_runs_once(
    embedded: Embedded, namespace: str, runs: list[str]
) -> None:
    async with MQTTToolkit(broker=embedded.url, namespace=namespace) as toolkit:
        tool = await book(toolkit)
        graph = create_agent(calls(("book", {"day": "today"})), [tool], checkpointer=InMemorySaver())
        state: Any = await soon(graph.ainvoke(GO, THREAD), 20)
        [asked] = state["__interrupt__"]
        assert (asked.value["prompt"], asked.value["schema"]) == ("Where to?", {"type": "string"})
        assert asked.value["tool"] == "book"
        state = await soon(graph.ainvoke(Command(resume="Oslo"), THREAD), 20)
        assert state["__interrupt__"][0].value["prompt"] == "How many?"
        state = await soon(graph.ainvoke(Command(resume=2), THREAD), 20)
        assert [message.content for message in state["messages"] if message.type == "tool"] == ["today: Oslo, 2"]
        assert runs == ["today"]


async def test_outside_a_graph_the_function_answers_and_without_one_the_tool_gets_an_error(
    embedded: Embedded, namespace: str, runs: list[str]
) -> None:
    answers: dict[str, Any] = {"Where to?": "Rome", "How many?": 3}

    async def answer(question: str, schema: dict[str, Any] | None) -> Any:
        return answers[question]

    place: Any = {"broker": embedded.url, "namespace": namespace}
    async with MQTTToolkit(**place, on_question=answer) as toolkit:
        assert await soon((await book(toolkit)).ainvoke({"day": "now"})) == "now: Rome, 3"
    async with MQTTToolkit(**place, handle_tool_error=False) as toolkit:
        with pytest.raises(ToolException, match="on_question="):
            await soon((await book(toolkit)).ainvoke({"day": "now"}))
