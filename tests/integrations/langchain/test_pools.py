"""Pools with LangChain: several processes serve one graph, or give tasks in one name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, die_with_parent
from databases import shared_postgres
from langchain_core.messages import AIMessage
from langchain_mqtt_agent import graph_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from mqtt_agent import Agent, MemoryStore, PostgresStore, TaskContext
from support import soon, until

WORKER = """
import sys
from langchain_mqtt_agent import MQTTRemoteAgent

broker, namespace, store, *prompts = sys.argv[1:]
remote = MQTTRemoteAgent("writer", broker=broker, namespace=namespace, agent_id="web", store=store, pool=True)
for prompt in prompts:
    print(remote.invoke(prompt).content, flush=True)
remote.close()
"""

RESUMER = """
import sys
from langchain_core.messages import HumanMessage
from langchain_mqtt_agent import MQTTRemoteAgent
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

broker, namespace, store, memory, what = sys.argv[1:]
remote = MQTTRemoteAgent("writer", broker=broker, namespace=namespace, agent_id="web", store=store, pool=True)
with SqliteSaver.from_conn_string(memory) as saver:
    graph = StateGraph(MessagesState).add_node("ask", remote).add_edge(START, "ask").compile(checkpointer=saver)
    given = None if what == "resume" else {"messages": [HumanMessage(what)]}
    ended = graph.invoke(given, {"configurable": {"thread_id": "t"}}, durability="sync")
    print(ended["messages"][-1].content, flush=True)
remote.close()
"""


@pytest.fixture
def url() -> str:
    return shared_postgres().new_database()


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


async def test_all_processes_of_a_pool_continue_the_conversations_of_a_graph(
    mosquitto: Mosquitto, namespace: str, url: str, planner: Agent, tmp_path: Path
) -> None:
    where: Any = {"broker": mosquitto.url, "namespace": namespace, "will_delay": 1}
    seen: list[str] = []
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:

        def hosted(member: str) -> Agent:
            def talk(state: MessagesState) -> Any:
                seen.append(member)
                return {"messages": [AIMessage(f"{len(state['messages'])} messages")]}

            graph = StateGraph(MessagesState).add_node("talk", talk).add_edge(START, "talk")
            return graph_agent(graph, "writer", checkpointer=saver, pool=True, store=PostgresStore(url), **where)

        async with hosted("a"), hosted("b"):
            for turn in range(8):
                talk = [{"role": "user", "content": f"q{turn}"}]
                answer = await soon(planner.request("writer", messages=talk, context_id="c", wait_online=True))
                assert answer == f"{2 * turn + 1} messages"
    assert set(seen) == {"a", "b"}


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
def test_a_pool_refuses_a_graph_whose_memory_is_in_the_process(saver: Any, url: str) -> None:
    graph = StateGraph(MessagesState).add_node("talk", lambda state: state).add_edge(START, "talk")
    with pytest.raises(ValueError, match="pool=True needs a checkpointer that all processes share"):
        graph_agent(graph, "writer", checkpointer=saver, pool=True, store=url)


@pytest.mark.long
@pytest.mark.timeout(480)
async def test_web_workers_give_tasks_in_one_name_and_each_gets_its_answers(
    mosquitto: Mosquitto, namespace: str, url: str
) -> None:
    async with Agent("writer", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as writer:

        @writer.on_task
        async def work(task: TaskContext) -> str:
            assert task.sender == "web"
            return f"{task.prompt}!"

        async def worker(name: str) -> list[str]:
            command = [sys.executable, "-c", WORKER, mosquitto.url, namespace, url, *(f"{name}{n}" for n in range(5))]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            output, _ = await soon(process.communicate(), 200)
            assert process.returncode == 0
            return output.decode().split()

        for name, said in zip("xyz", await asyncio.gather(*map(worker, "xyz")), strict=True):
            assert said == [f"{name}{n}!" for n in range(5)]


@pytest.mark.long
@pytest.mark.timeout(480)
async def test_a_graph_of_a_killed_worker_goes_on_in_another_one_with_the_same_task(
    mosquitto: Mosquitto, namespace: str, url: str, tmp_path: Path
) -> None:
    prompts, go = list[str](), asyncio.Event()
    async with Agent("writer", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as writer:

        @writer.on_task
        async def work(task: TaskContext) -> str:
            assert task.sender == "web"
            prompts.append(str(task.prompt))
            await go.wait()
            return f"{task.prompt}!"

        async def start(memory: str, what: str) -> asyncio.subprocess.Process:
            command = [sys.executable, "-c", RESUMER, mosquitto.url, namespace, url, str(tmp_path / memory), what]
            return await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent
            )

        killed, stays = await start("a.db", "hello"), await start("b.db", "other")
        await until(lambda: len(prompts) == 2, 200)
        killed.kill()
        await killed.wait()
        resumed = await start("a.db", "resume")
        go.set()
        for process, said in ((resumed, b"hello!"), (stays, b"other!")):
            output, _ = await soon(process.communicate(), 200)
            assert (process.returncode, output.strip()) == (0, said)
    assert sorted(prompts) == ["hello", "other"]
