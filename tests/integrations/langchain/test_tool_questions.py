"""Tools that ask in the middle of a call: an interrupt in a graph, and the user's function outside a graph."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from brokers import Embedded
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, ToolException
from langchain_mqtt_agent import MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolContext, ToolServer
from support import becomes, soon

from .models import calls
from .test_remote_graph import GO, THREAD, graph_of


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


@pytest.fixture
async def askers(embedded: Embedded, namespace: str) -> AsyncIterator[dict[str, BaseTool]]:
    """The tools ``paint`` and ``ask_clerk``: each asks whether it may do its work, and returns the answer."""
    place: Any = {"broker": embedded.url, "namespace": namespace}
    server, clerk = ToolServer("painter", **place), Agent("clerk", store=MemoryStore(), **place)

    @server.tool
    async def paint(color: str, ctx: ToolContext) -> str:
        return f"{color}: {await ctx.ask(f'{color}?')}"

    @clerk.on_task
    async def stamp(task: TaskContext) -> str:
        return f"{task.prompt}: {await task.ask(f'{task.prompt}?')}"

    async with server, clerk, MQTTToolkit(**place, agent_id="boss", store=MemoryStore(), peers=["clerk"]) as toolkit:
        found: dict[str, BaseTool] = {}

        async def there() -> bool:
            found.update({each.name: each for each in await toolkit.aget_online_tools()})
            return {"paint", "ask_clerk"} <= found.keys()

        await becomes(there)
        yield found


async def answered(invoke: Callable[[Any], Awaitable[Any]]) -> tuple[Any, list[str]]:
    """Run a graph, answer each question with its own words, and return the last state and the questions."""
    state, asked = await soon(invoke(GO), 20), list[str]()
    while "__interrupt__" in state and len(asked) < 10:
        value = state["__interrupt__"][0].value
        asked.append(value if isinstance(value, str) else value["prompt"])
        state = await soon(invoke(Command(resume=f"yes, {asked[-1]}")), 20)
    return state, asked


async def test_the_questions_of_one_node_get_their_own_answers(askers: dict[str, BaseTool]) -> None:
    paint, clerk = askers["paint"], askers["ask_clerk"]

    async def node(state: Any) -> Any:
        said = [
            interrupt("first?"),
            await paint.ainvoke({"color": "red"}),
            await clerk.ainvoke({"prompt": "form"}),
            interrupt("second?"),
            *await asyncio.gather(paint.ainvoke({"color": "blue"}), clerk.ainvoke({"prompt": "bill"})),
            interrupt("third?"),
        ]
        return {"messages": [AIMessage("; ".join(said))]}

    graph = graph_of(node, saver=InMemorySaver())
    state, asked = await answered(lambda value: graph.ainvoke(value, THREAD))
    assert sorted(asked) == ["bill?", "blue?", "first?", "form?", "red?", "second?", "third?"]
    assert state["messages"][-1].text == (
        "yes, first?; red: yes, red?; form: yes, form?; yes, second?; blue: yes, blue?; bill: yes, bill?; yes, third?"
    )


@pytest.mark.parametrize("blocking", [False, True], ids=["awaiting", "blocking"])
async def test_tools_that_one_node_calls_at_once_get_their_own_answers(
    askers: dict[str, BaseTool], blocking: bool
) -> None:
    wanted = [("paint", {"color": color}) for color in ("red", "blue", "green")] + [("ask_clerk", {"prompt": "form"})]
    asking = [{"name": name, "args": args, "id": str(number)} for number, (name, args) in enumerate(wanted)]
    builder: Any = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [AIMessage("", tool_calls=asking)]})
    builder.add_node("tools", ToolNode(list(askers.values())))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    graph = builder.compile(checkpointer=InMemorySaver())

    async def invoke(value: Any) -> Any:
        if blocking:
            return await asyncio.to_thread(graph.invoke, value, THREAD)
        return await graph.ainvoke(value, THREAD)

    state, asked = await answered(invoke)
    assert sorted(asked) == ["blue?", "form?", "green?", "red?"]
    told = [message.text for message in state["messages"] if message.type == "tool"]
    assert told == [f"{word}: yes, {word}?" for word in ("red", "blue", "green", "form")]


async def test_a_graph_that_is_resumed_without_an_answer_asks_the_same_question_again(
    askers: dict[str, BaseTool],
) -> None:
    async def node(state: Any) -> Any:
        said = await asyncio.gather(*(askers["paint"].ainvoke({"color": color}) for color in ("red", "blue")))
        return {"messages": [AIMessage("; ".join(said))]}

    graph = graph_of(node, saver=InMemorySaver())
    state: Any = await soon(graph.ainvoke(GO, THREAD), 20)
    [first] = state["__interrupt__"]
    state = await soon(graph.ainvoke(None, THREAD), 20)
    [again] = state["__interrupt__"]
    assert (again.id, again.value["prompt"]) == (first.id, first.value["prompt"])
    state = await soon(graph.ainvoke(Command(resume={again.id: f"yes, {again.value['prompt']}"}), THREAD), 20)
    [other] = state["__interrupt__"]
    assert other.id != first.id
    state = await soon(graph.ainvoke(Command(resume={other.id: f"yes, {other.value['prompt']}"}), THREAD), 20)
    assert state["messages"][-1].text == "red: yes, red?; blue: yes, blue?"


async def test_an_answer_for_the_programs_own_interrupt_never_goes_to_a_tool(askers: dict[str, BaseTool]) -> None:
    async def node(state: Any) -> Any:
        painted = await askers["paint"].ainvoke({"color": "red"}) if late else ""
        return {"messages": [AIMessage(f"{painted}; {interrupt('delete everything?')}")]}

    late, graph = False, graph_of(node, saver=InMemorySaver())
    await soon(graph.ainvoke(GO, THREAD), 20)
    late = True  # as if the tool had run at the same time
    state, asked = await answered(lambda value: graph.ainvoke(Command(resume="yes") if value is GO else value, THREAD))
    assert asked == ["red?", "delete everything?"]
    assert state["messages"][-1].text == "red: yes, red?; yes, delete everything?"


async def test_a_question_in_a_checkpoint_of_an_earlier_version_is_asked_again(askers: dict[str, BaseTool]) -> None:
    async def node(state: Any) -> Any:
        if earlier:
            interrupt({"prompt": "red?", "round": 1})
            interrupt({"prompt": "red?", "round": 2})
        return {"messages": [AIMessage(await askers["paint"].ainvoke({"color": "red"}))]}

    earlier, graph = True, graph_of(node, saver=InMemorySaver())
    await soon(graph.ainvoke(GO, THREAD), 20)
    await soon(graph.ainvoke(Command(resume="yes"), THREAD), 20)
    earlier = False
    state, asked = await answered(lambda value: graph.ainvoke(Command(resume="yes") if value is GO else value, THREAD))
    assert (asked, state["messages"][-1].text) == (["red?"], "red: yes, red?")
