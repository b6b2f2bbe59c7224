"""How a toolkit selects tools (by name, server, tag and predicate) and peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_mqtt_agent import MQTTLiveTools, MQTTToolkit
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolServer
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import ToolUnavailable
from proxy import Proxy
from support import soon, until

from .models import ScriptedModel, calls

GO: Any = {"messages": [("user", "go")]}


async def handler() -> str:
    """Do it."""
    return "ok"


@pytest.fixture
async def servers(broker: Broker, namespace: str) -> AsyncIterator[None]:
    one = ToolServer("one", broker=broker.url, namespace=namespace, replica="a")
    two = ToolServer("two", broker=broker.url, namespace=namespace)
    for name, tags in {"git_log": ["read"], "git_push": ["write"], "files.read": ["read"]}.items():
        one.add_tool(name, handler, meta={"tags": tags})
    two.add_tool("files read", handler, read_only=True)
    async with one, two:
        yield


async def names(broker: Broker, namespace: str, **options: Any) -> list[str]:
    async with MQTTToolkit(broker=broker.url, namespace=namespace, **options) as toolkit:
        return sorted(tool.name for tool in await toolkit.aget_tools())


async def test_tools_are_chosen(broker: Broker, namespace: str, servers: None) -> None:
    assert await names(broker, namespace, tools=["git_*"]) == ["git_log", "git_push"]
    assert await names(broker, namespace, exclude=["git_p*", "files*"]) == ["git_log"]
    assert await names(broker, namespace, servers=["two"]) == [model_name("files read")]
    assert await names(broker, namespace, servers=["one:a"], tags=["read"]) == [model_name("files.read"), "git_log"]
    assert await names(broker, namespace, where=lambda card: card.read_only) == [model_name("files read")]
    assert await names(broker, namespace, tools=["git_*"], tags=["nothing"]) == []
    with pytest.raises(ToolUnavailable, match=r"svn_\*"):
        await names(broker, namespace, tools=["svn_*"], on_unavailable="raise")
    with pytest.raises(ValueError, match="not allowed as a Sequence"):
        MQTTToolkit(tools="git_log")
    with pytest.raises(ValueError, match="Input should be 'all'"):
        MQTTToolkit(peers="researcher")


async def test_a_name_does_not_depend_on_the_other_tools(broker: Broker, namespace: str, servers: None) -> None:
    tools = ["files.read", "files read"]
    assert await names(broker, namespace, tools=["files*"]) == sorted(model_name(tool) for tool in tools)
    for tool in tools:
        assert await names(broker, namespace, tools=[tool]) == [model_name(tool)]


async def test_a_name_begins_with_the_servers_name_when_asked_for(
    broker: Broker, namespace: str, servers: None
) -> None:
    assert await names(broker, namespace, tools=["git*"], prefix=True) == ["one_git_log", "one_git_push"]


async def test_an_unchanged_tool_is_the_same_object(broker: Broker, namespace: str, servers: None) -> None:
    async with MQTTToolkit(broker=broker.url, namespace=namespace) as toolkit:
        first, second = await toolkit.aget_tools(), await toolkit.aget_tools()
        assert all(one is two for one, two in zip(first, second, strict=True))


async def test_peers_are_tools(broker: Broker, namespace: str) -> None:
    skill = {"id": "papers", "name": "Papers", "description": "Finds papers"}
    peer = Agent(
        "re.searcher",
        broker=broker.url,
        namespace=namespace,
        store=MemoryStore(),
        description="Knows a lot",
        capabilities=["research"],
        skills=[skill],
    )

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return f"notes on {task.prompt} for {task.sender}"

    where: Any = {"broker": broker.url, "namespace": namespace, "store": MemoryStore()}
    async with peer, MQTTToolkit(agent_id="agent-a", peers="all", **where) as toolkit:
        [tool] = await toolkit.aget_tools()
        assert tool.name == model_name("ask_re.searcher")
        assert tool.description == "Knows a lot\nCapabilities: research.\n- Papers: Finds papers"
        agent: Any = create_agent(calls((tool.name, {"prompt": "cats"})), [tool])
        state = await soon(agent.ainvoke(GO))
        [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
        assert message.content == "notes on cats for agent-a"
        assert message.artifact["peer"] == "re.searcher"
        assert message.artifact["attempt"] == 1
        assert await soon(asyncio.to_thread(tool.invoke, {"prompt": "dogs"})) == "notes on dogs for agent-a"
    async with MQTTToolkit(agent_id="agent-a", peers=["nobody"], on_unavailable="raise", **where) as toolkit:
        with pytest.raises(ToolUnavailable, match="nobody: no agent"):
            await toolkit.aget_tools()


async def test_tools_and_peers_share_one_connection_that_outlives_a_broken_network(
    broker: Broker, namespace: str
) -> None:
    peer = Agent("researcher", broker=broker.url, namespace=namespace, store=MemoryStore())

    @peer.on_task
    async def handle(task: TaskContext) -> str:
        return f"notes on {task.prompt}"

    server = ToolServer("one", broker=broker.url, namespace=namespace)
    server.add_tool("work", handler)
    async with peer, server, Proxy(broker.url) as proxy:
        where: Any = {"broker": proxy.url, "namespace": namespace, "store": MemoryStore()}
        async with MQTTToolkit(agent_id="agent-a", peers="all", timeout=30, **where) as toolkit:
            tools = {tool.name: tool for tool in await soon(toolkit.aget_tools())}
            assert await soon(tools["work"].ainvoke({})) == "ok"
            assert await soon(tools["ask_researcher"].ainvoke({"prompt": "cats"})) == "notes on cats"
            assert await soon(asyncio.to_thread(tools["work"].invoke, {})) == "ok"
            assert (proxy.connections, toolkit.connection.epoch) == (1, 1)
            await proxy.cut()
            await until(lambda: not toolkit.connection.connected)
            again = asyncio.gather(tools["work"].ainvoke({}), tools["ask_researcher"].ainvoke({"prompt": "dogs"}))
            await proxy.mend()
            assert await soon(again, 30) == ["ok", "notes on dogs"]
            assert toolkit.connection.epoch == 2


class Watching(ScriptedModel):
    """A model that records the tools that it is offered."""

    offered: list[list[str]] = []  # noqa: RUF012

    def bind_tools(self, tools: Any, **options: Any) -> Watching:
        self.offered.append(sorted(tool.name for tool in tools if isinstance(tool, BaseTool)))
        return self


@pytest.mark.parametrize("mode", ["async", "sync"])
async def test_the_model_sees_the_tools_that_are_there_now(broker: Broker, namespace: str, mode: str) -> None:
    late = ToolServer("late", broker=broker.url, namespace=namespace)
    late.add_tool("appears", handler)
    early = ToolServer("early", broker=broker.url, namespace=namespace)
    loop = asyncio.get_running_loop()
    toolkit = MQTTToolkit(broker=broker.url, namespace=namespace, timeout=10)

    async def switch() -> str:
        """Start the other server."""
        await late.start()
        return "started"

    def see(name: str, there: bool) -> Any:
        return until(lambda: (name in {tool.name for tool in toolkit.get_tools()}) is there)

    async def vanish() -> str:
        """Tell that this server will go."""
        loop.call_soon(lambda: stopping.append(asyncio.ensure_future(early.stop())))
        return "going"

    stopping: list[Any] = []
    early.add_tool("switch", switch)
    early.add_tool("vanish", vanish)

    class Pause(MQTTLiveTools):
        """A middleware that waits until the change has arrived, because a real model would be slow enough for it."""

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            await asyncio.to_thread(asyncio.run, news(len(model.offered)))
            return await super().awrap_model_call(request, handler)

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            asyncio.run(news(len(model.offered)))
            return super().wrap_model_call(request, handler)

    async def news(turn: int) -> None:
        await see("appears", turn > 0)
        await see("switch", turn < 3)

    model = Watching(
        responses=[  # type: ignore[arg-type]
            AIMessage("", tool_calls=[{"name": name, "args": {}, "id": str(number)}])
            for number, name in enumerate(("switch", "appears", "vanish", "switch"))
        ]
        + [AIMessage("done")],
        offered=[],
    )
    agent: Any = create_agent(model, middleware=[Pause(toolkit)])
    async with toolkit:
        await soon(early.start())
        try:
            running = agent.ainvoke(GO) if mode == "async" else asyncio.to_thread(agent.invoke, GO)
            state = await soon(running, 30)
        finally:
            await early.stop()
            await late.stop()
    both = ["appears", "switch", "vanish"]
    assert model.offered == [["switch", "vanish"], both, both, ["appears"], ["appears"]]
    told = [(message.text, message.status) for message in state["messages"] if isinstance(message, ToolMessage)]
    assert told[:3] == [("started", "success"), ("ok", "success"), ("going", "success")]
    assert told[3][1] == "error"


@pytest.mark.parametrize("mode", ["get_tools", "get_online_tools"])
def test_an_agent_without_tools_is_told_once(
    broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    url = broker.url.replace("//", "//user:secret@") if broker.takes_unknown_logins else broker.url
    with MQTTToolkit(broker=url, namespace=namespace) as toolkit:
        for _ in range(2):
            assert getattr(toolkit, mode)() == []
    [told] = [record.getMessage() for record in caplog.records if "has no tools" in record.getMessage()]
    assert (broker.url in told, repr(namespace) in told, "secret" in told) == (True, True, False)


def test_a_toolkit_takes_its_arguments_by_name() -> None:
    make: Any = MQTTToolkit
    with pytest.raises(TypeError, match=r"by name, as in MQTTToolkit\(broker='mqtt://localhost:1883'\)"):
        make("mqtt://localhost:1883")
