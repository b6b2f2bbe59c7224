"""Tool calls of graphs that are killed, retried and resumed: each place in a graph has one call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Embedded
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from langchain_mqtt_agent import MQTTToolkit
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from langgraph.types import RetryPolicy
from mqtt_agent import ToolServer
from support import becomes, soon, until

from .conftest import Toolbox
from .models import calls
from .test_remote_graph import GO, THREAD, graph_of
from .test_remote_processes import Start, lines, output_of, start

__all__ = ["start"]

LONG_ON = [Embedded]


async def two_replicas(start: Start, folder: Path) -> None:
    """The broker gives each new call to another replica."""
    for replica in ("a", "b"):
        start("gated_server.py", replica)
    await until(lambda: all((folder / f"online-{each}").exists() for each in "ab"), 40)


def kill(process: Any) -> None:
    process.kill()
    process.wait(10)


async def test_a_call_that_runs_while_its_graph_is_killed_runs_once(start: Start, tmp_path: Path) -> None:
    await two_replicas(start, tmp_path)
    graph = start("calling_graph.py", "start")
    await until(lambda: len(lines(tmp_path)) == 1, 40)
    kill(graph)
    resumed = start("calling_graph.py", "resume")
    (tmp_path / "open").touch()
    answer = await output_of(resumed)
    [[replica, call_id, _]] = lines(tmp_path)
    assert answer == {"text": f"7 by {replica}", "call_id": call_id}


async def test_a_call_whose_answer_was_not_stored_when_its_graph_was_killed_runs_once(
    start: Start, tmp_path: Path
) -> None:
    await two_replicas(start, tmp_path)
    (tmp_path / "open").touch()
    graph = start("calling_graph.py", "hang")
    await until((tmp_path / "answered").exists, 40)
    kill(graph)
    answer = await output_of(start("calling_graph.py", "resume"))
    [[replica, call_id, _]] = lines(tmp_path)
    assert answer == {"text": f"7 by {replica}", "call_id": call_id}


async def test_another_run_makes_another_call(start: Start, tmp_path: Path) -> None:
    await two_replicas(start, tmp_path)
    (tmp_path / "open").touch()
    first = await output_of(start("calling_graph.py", "start"))
    second = await output_of(start("calling_graph.py", "start"))
    assert first["call_id"] != second["call_id"]
    assert len(lines(tmp_path)) == 2


# In one process


class Counting:
    """A tool that counts its runs, and fails in the runs that are named."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.failing: set[int] = set()

    async def work(self, n: int) -> str:
        self.runs.append(n)
        if len(self.runs) in self.failing:
            raise ValueError(f"run {len(self.runs)} fails")
        return f"{n} in run {len(self.runs)}"


@pytest.fixture
async def counting(broker: Broker, namespace: str) -> Any:
    made = Counting()
    server = ToolServer("counting", broker=broker.url, namespace=namespace)
    server.add_tool("work", made.work)
    async with server:
        yield made


@pytest.fixture
async def work(broker: Broker, namespace: str, counting: Counting) -> Any:
    """The tool in LangChain; its failures are raised."""
    options: Any = {"agent_id": "caller", "tools": ["work"], "handle_tool_error": False, "timeout": 10}
    async with MQTTToolkit(broker=broker.url, namespace=namespace, **options) as toolkit:
        found: list[Any] = []

        async def there() -> bool:
            found[:] = await toolkit.aget_online_tools()
            return bool(found)

        await becomes(there)
        yield found[0]


RETRY = RetryPolicy(initial_interval=0.01, max_attempts=3)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["no checkpointer", "checkpointer"])
async def test_an_attempt_after_a_broken_connection_gets_the_same_answer(
    counting: Counting, work: Any, mode: str, saver: Any
) -> None:
    attempts = 0

    async def node(state: MessagesState) -> Any:
        nonlocal attempts
        attempts += 1
        answer = await work.ainvoke({"n": 1}) if mode == "async" else await asyncio.to_thread(work.invoke, {"n": 1})
        if attempts < 3:
            raise ConnectionError("not yet")
        return {"messages": [answer]}

    graph = graph_of(node, saver=saver, retry_policy=RETRY)
    state = await soon(graph.ainvoke(GO, THREAD))
    assert (state["messages"][-1].text, attempts, counting.runs) == ("1 in run 1", 3, [1])


async def test_an_attempt_after_a_failed_call_makes_another_call(counting: Counting, work: Any) -> None:
    counting.failing = {1, 2, 4}

    async def node(state: MessagesState) -> Any:
        return {"messages": [await work.ainvoke({"n": 1})]}

    graph = graph_of(node, saver=InMemorySaver(), retry_policy=RETRY)
    state = await soon(graph.ainvoke(GO, THREAD))
    assert state["messages"][-1].text == "1 in run 3"
    graph = graph_of(node, saver=graph.checkpointer)
    with pytest.raises(ToolException, match="run 4 fails"):
        await soon(graph.ainvoke(GO, THREAD))
    assert (await soon(graph.ainvoke(None, THREAD)))["messages"][-1].text == "1 in run 5"


async def test_a_model_can_repeat_a_call(counting: Counting, work: Any) -> None:
    counting.failing = {1}
    work.handle_tool_error = True
    agent: Any = create_agent(calls(("work", {"n": 1}), ("work", {"n": 1})), [work], checkpointer=InMemorySaver())
    messages = (await soon(agent.ainvoke(GO, THREAD)))["messages"]
    told = [message.text for message in messages if isinstance(message, ToolMessage)]
    assert told == ["work: run 1 fails", "1 in run 2"]


async def test_calls_in_one_node_stay_the_same_when_their_order_changes(counting: Counting, work: Any) -> None:
    orders = [[1, 2, 2, 3], [3, 2, 1, 2]]
    got: list[list[str]] = []

    async def node(state: MessagesState) -> Any:
        got.append(sorted(await asyncio.gather(*(work.ainvoke({"n": n}) for n in orders[len(got)]))))
        if len(got) == 1:
            raise ConnectionError("after the calls")
        return {}

    graph = graph_of(node, saver=InMemorySaver())
    with pytest.raises(ConnectionError):
        await soon(graph.ainvoke(GO, THREAD))
    await soon(graph.ainvoke(None, THREAD))
    assert got[0] == got[1]
    assert len(counting.runs) == 4


async def test_another_branch_of_the_thread_makes_another_call(counting: Counting, work: Any) -> None:
    async def node(state: MessagesState) -> Any:
        return {"messages": [await work.ainvoke({"n": 1})]}

    graph = graph_of(node, saver=InMemorySaver())
    await soon(graph.ainvoke(GO, THREAD))
    [before] = [each async for each in graph.aget_state_history(THREAD) if each.next == ("write",)]
    assert (await soon(graph.ainvoke(None, before.config)))["messages"][-1].text == "1 in run 2"
    branch = await graph.aupdate_state(before.config, {"messages": [("user", "go on")]})
    assert (await soon(graph.ainvoke(None, branch)))["messages"][-1].text == "1 in run 3"


async def test_a_canceled_run_that_is_resumed_makes_another_call(toolkit: MQTTToolkit, toolbox: Toolbox) -> None:
    [hang] = [tool for tool in await toolkit.aget_tools() if tool.name == "hang"]
    agent: Any = create_agent(calls(("hang", {})), [hang], checkpointer=InMemorySaver())
    for number in (1, 2):
        running = asyncio.Event()

        async def run(given: Any, running: asyncio.Event) -> None:
            async for _ in agent.astream(given, THREAD, stream_mode="custom"):
                running.set()

        task = asyncio.create_task(run(GO if number == 1 else None, running))
        await soon(running.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        await until(lambda number=number: len(toolbox.canceled) == number)
    assert len(set(toolbox.canceled)) == 2
