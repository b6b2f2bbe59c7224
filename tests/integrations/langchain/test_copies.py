"""Copies and pickles of toolkits, tools and remote agents: settings travel, and connections do not."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from typing import Any

import pytest
from brokers import Broker, Embedded
from langchain_core.tools import BaseTool
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit
from mqtt_agent import TLS, Agent, MemoryStore, Password, TaskContext
from support import soon

from .conftest import Toolbox

LONG_ON = [Embedded]
IN_ANOTHER_PROCESS = """
import pickle, sys
with pickle.load(sys.stdin.buffer) as unpickled:
    print(unpickled.invoke("go").text if hasattr(unpickled, "invoke") else [t.name for t in unpickled.get_tools()])
"""


ANSWERS: Any = max  # any function that another process can import


async def elsewhere(value: Any) -> str:
    """What another process prints that unpickles a value."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        input=pickle.dumps(value),
        capture_output=True,
        timeout=60,
    )
    assert not done.returncode, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.fixture
async def writer(broker: Broker, namespace: str) -> Any:
    agent = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore(), drain_timeout=0)

    @agent.on_task
    async def handle(task: TaskContext) -> str:
        return f"wrote {task.prompt} for {task.sender}"

    await soon(agent.start())
    yield agent
    await soon(agent.stop())


async def test_a_copy_of_a_remote_agent_shares_its_agent(broker: Broker, namespace: str, writer: Agent) -> None:
    options: Any = {"broker": broker.url, "namespace": namespace, "agent_id": "planner", "store": MemoryStore()}
    with MQTTRemoteAgent("writer", on_question=ANSWERS, **options) as remote:
        copied = copy.deepcopy(remote)
        assert copied.agent is remote.agent
        assert copy.deepcopy(remote.as_tool()).name == "ask_writer"
        remote.close()
        assert (await soon(copied.ainvoke("go"))).text == "wrote go for planner"
        copied.close()
    with MQTTRemoteAgent("writer", **{**options, "agent_id": "owner"}) as owner:
        borrowed = copy.deepcopy(MQTTRemoteAgent("writer", agent=owner.agent))
        assert borrowed.agent is owner.agent
        with pytest.raises(TypeError, match="agent= belongs to this process"):
            pickle.dumps(borrowed)


async def test_a_pickled_remote_agent_works_in_another_process(
    broker: Broker, namespace: str, writer: Agent, tmp_path: Any
) -> None:
    options: Any = {"broker": broker.url, "namespace": namespace, "store": tmp_path / "tasks.db"}
    remote = MQTTRemoteAgent("writer", agent_id="planner", on_question=ANSWERS, **options)
    assert await elsewhere(remote) == "wrote go for planner"


async def test_a_pickled_toolkit_works_in_another_process(broker: Broker, namespace: str, toolbox: Toolbox) -> None:
    with MQTTToolkit(broker=broker.url, namespace=namespace, tools=["add"], timeouts={"add": 3}) as toolkit:
        assert [tool.name for tool in toolkit.get_tools()] == ["add"]
        assert await elsewhere(toolkit) == "['add']"
        again: MQTTToolkit = pickle.loads(pickle.dumps(toolkit))
        assert again.agent_id != toolkit.agent_id  # two processes with one id would get the answers of each other
        assert again.timeouts == {"add": 3}
    named = MQTTToolkit(broker=broker.url, namespace=namespace, agent_id="me")
    assert pickle.loads(pickle.dumps(named)).agent_id == "me"


def test_copies_of_a_toolkit_and_its_tools_share_the_connection(toolkit: MQTTToolkit) -> None:
    copied = copy.deepcopy(toolkit)
    assert copied.connection is toolkit.connection
    tools: dict[str, BaseTool] = {tool.name: copy.deepcopy(tool) for tool in copied.get_tools()}
    assert tools["add"].invoke({"a": 1, "b": 2}) == '{"sum": 3}'
    with pytest.raises(TypeError, match="pickle its toolkit"):
        pickle.dumps(tools["add"])


def test_the_login_travels_with_a_pickle(url_of_nobody: str) -> None:
    login: Any = {"credentials": Password("user", "secret"), "tls": TLS()}
    remote = MQTTRemoteAgent("writer", broker=url_of_nobody.replace("mqtt:", "mqtts:"), agent_id="me", **login)
    again = pickle.loads(pickle.dumps(remote))
    assert again._requester._settings.broker == remote._requester._settings.broker
    with pytest.raises(TypeError, match="a store object belongs to this process"):
        pickle.dumps(MQTTRemoteAgent("writer", broker=url_of_nobody, agent_id="other", store=MemoryStore()))
