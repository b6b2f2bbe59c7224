"""A LangChain tool that is served is the same tool: its arguments, its errors, its results, and its limits."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langchain_mqtt_agent import MQTTToolkit, tool_server
from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, interrupt
from mqtt_agent import ToolClient, errors
from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.v1 import BaseModel as OldModel
from pydantic.v1 import validator
from support import soon

from .models import calls

GO: Any = {"messages": [("user", "go")]}


class Served:
    """A server with these tools, and a client."""

    def __init__(self, broker: Broker, namespace: str, *tools: Any, **options: Any) -> None:
        self.where: Any = {"broker": broker.url, "namespace": namespace}
        self.server = tool_server(tools, "toolbox", **self.where, **options)
        self.client = ToolClient("client", **self.where)

    async def __aenter__(self) -> Served:
        await soon(self.server.start())
        await soon(self.client.start())
        return self

    async def __aexit__(self, *error: object) -> None:
        await soon(self.client.stop())
        await soon(self.server.stop())

    async def call(self, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
        return await soon(self.client.call(name, arguments or {}, **options))

    async def refusal(self, name: str, arguments: dict[str, Any]) -> Any:
        with pytest.raises(errors.InvalidArguments) as refused:
            await self.call(name, arguments)
        return refused.value

    async def schema(self, name: str) -> dict[str, Any]:
        card = await soon(self.client.get_tool(name))
        assert card is not None
        return card.input_schema


# Arguments that the schema does not show

MODULE = '''
from typing import Annotated
from langchain_core.tools import InjectedToolArg, tool

@tool
def who(x: int, user: Annotated[str, InjectedToolArg] = "guest") -> str:
    """Tell who is asking."""
    return user

tools = [who]
'''


async def test_an_injected_argument_of_a_tool_in_another_process_cannot_come_from_outside(
    broker: Broker, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(MODULE)
    command = [sys.executable, "-m", "langchain_mqtt_agent", "serve-tools", "app:tools", "--server", "box"]
    environment = {**os.environ, "MQTT_AGENT_BROKER": broker.url}
    server = subprocess.Popen([*command, "--namespace", namespace], cwd=tmp_path, env=environment)
    try:
        async with ToolClient("client", broker=broker.url, namespace=namespace) as client:
            assert await client.call("who", {"x": 1}, wait_online=True, timeout=30) == "guest"
            with pytest.raises(errors.InvalidArguments, match="argument 'user' does not exist"):
                await client.call("who", {"x": 1, "user": "admin"}, timeout=30)
    finally:
        server.terminate()
        assert await soon(asyncio.to_thread(server.wait), 20) == 0


class Lenient(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int


async def test_what_a_schema_does_not_show_is_refused(broker: Broker, namespace: str) -> None:
    @tool
    def plain(x: int, call: Annotated[str, InjectedToolCallId], config: RunnableConfig, runtime: ToolRuntime) -> str:
        """Take everything that LangChain can inject."""
        return f"{x} {bool(call)} {type(config).__name__} {runtime.tool_call_id == call}"

    @tool(args_schema=Lenient)
    def lenient(x: int, user: Annotated[str, InjectedToolArg] = "guest", **others: Any) -> str:
        """Take anything else."""
        return f"{x} {user} {others}"

    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "additionalProperties": True}

    async def run(runtime: Annotated[Any, InjectedToolArg] = None, user: str = "guest", **arguments: Any) -> str:
        return f"{runtime} {user} {arguments}"

    by_schema = StructuredTool.from_function(coroutine=run, name="by_schema", description="d", args_schema=schema)

    class ByClass(BaseTool):
        name: str = "by_class"
        description: str = "A class."

        def _run(self, x: int, config: RunnableConfig, run_manager: Any = None) -> str:
            return f"{x} {type(config).__name__}"

    old = Tool(name="old", description="Takes one text", func=lambda text: f"got {text}")

    async with Served(broker, namespace, plain, lenient, by_schema, ByClass(), old) as served:
        assert await served.call("plain", {"x": 1}) == "1 True dict True"
        assert (await served.schema("plain"))["additionalProperties"] is False
        for hidden in ("call", "config", "runtime", "run_manager", "callbacks", "anything"):
            refusal = await served.refusal("plain", {"x": 1, hidden: {}})
            assert refusal.data == [{"path": f"/{hidden}", "message": "does not exist"}]
        assert await served.call("lenient", {"x": 1, "z": 2}) == "1 guest {'z': 2}"
        assert (await served.refusal("lenient", {"x": 1, "user": "admin"})).data[0]["path"] == "/user"
        assert await served.call("by_schema", {"x": 1, "z": 2}) == "None guest {'x': 1, 'z': 2}"
        for hidden in ("runtime", "user"):
            assert (await served.refusal("by_schema", {hidden: "admin"})).data[0]["path"] == f"/{hidden}"
        assert (await served.schema("by_class"))["properties"].keys() == {"x"}
        assert await served.call("by_class", {"x": 1}) == "1 dict"
        assert "'config'" in str(await served.refusal("by_class", {"x": 1, "config": {}}))
        assert (await served.schema("old"))["properties"].keys() == {"tool_input"}
        assert await served.call("old", {"tool_input": "it"}) == "got it"


OURS = (
    "mqtt_runtime",
    "mqtt_runtime_",
    "arguments",
    "tool_call_id",
    "runtime",
    "config",
    "run_manager",
    "self",
    "state",
    "context",
)


async def test_arguments_with_the_names_of_ours_arrive_also_through_a_second_server(
    broker: Broker, namespace: str
) -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in OURS}, "required": list(OURS)}
    given = {name: f"the {name}" for name in OURS}
    served = Served(broker, namespace)
    served.server.add_tool("echo", lambda everything: everything, input_schema=schema)
    async with served:
        async with MQTTToolkit(**served.where, agent_id="first") as toolkit:
            [echo] = await toolkit.aget_tools()
            state: Any = await soon(create_agent(calls(("echo", given)), [echo]).ainvoke(GO))
            [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
            assert message.artifact["structured_content"] == given
            again = echo.model_copy(update={"name": "again"})
            async with tool_server([again], "second", **served.where):
                assert await served.call("again", given, wait_online=True) == given
                assert "mqtt_runtime" in str(await served.refusal("again", {}))


# The same tool


class Order(BaseModel):
    n: int
    to: str = "Ada"

    @field_validator("n")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("order at least one")
        return value


class OldOrder(OldModel):
    n: int

    @validator("n")
    def _positive(cls, value: int) -> int:  # noqa: N805
        if value < 1:
            raise ValueError("order at least one")
        return value


async def test_the_model_of_the_arguments_converts_and_checks_them(broker: Broker, namespace: str) -> None:
    @tool(args_schema=Order)
    def order(n: int, to: str) -> dict[str, Any]:
        """Order something."""
        return {"n": n, "to": to}

    @tool(args_schema=OldOrder)
    async def old_order(n: int) -> dict[str, Any]:
        """Order something, as before."""
        return {"n": n}

    @tool(args_schema=Order)
    def worded(n: int, to: str) -> str:
        """Order something."""
        return "ok"

    worded.handle_validation_error = lambda error: f"{len(error.errors())} mistake"
    async with Served(broker, namespace, order, old_order, worded) as served:
        assert await served.call("order", {"n": "5"}) == {"n": 5, "to": "Ada"}
        assert await served.call("old_order", {"n": "5"}) == {"n": 5}
        assert (await served.schema("old_order"))["properties"]["n"]["type"] == "integer"
        for name in ("order", "old_order"):
            refusal = await served.refusal(name, {"n": 0})
            assert refusal.data[0]["path"] == "/n"
            assert "order at least one" in str(refusal)
            assert (await served.refusal(name, {"n": 1, "user": 1})).data[0]["path"] == "/user"
        assert str(await served.refusal("worded", {"n": 0})) == "worded: 1 mistake"


async def test_an_error_in_the_tool_itself_is_no_error_of_the_arguments(broker: Broker, namespace: str) -> None:
    @tool
    def broken(n: int) -> str:
        """Fail inside."""
        return str(Order.model_validate({"n": n}))

    @tool
    def worded(n: int) -> str:
        """Fail on purpose."""
        raise ToolException("E17")

    worded.handle_tool_error = "Try again tomorrow."
    async with Served(broker, namespace, broken, worded) as served:
        with pytest.raises(errors.ToolFailed, match="order at least one"):
            await served.call("broken", {"n": 0})
        with pytest.raises(errors.ToolFailed, match="Try again tomorrow") as failed:
            await served.call("worded", {"n": 0})
        assert failed.value.code == "ToolException"


async def test_artifacts_and_return_direct_reach_the_caller(broker: Broker, namespace: str) -> None:
    @tool(response_format="content_and_artifact", return_direct=True)
    def search(query: str) -> tuple[str, list[Document]]:
        """Search."""
        return "1 page", [Document("text", metadata={"source": query})]

    @tool(response_format="content_and_artifact")
    def odd(query: str) -> tuple[str, Any]:
        """Return what no JSON can carry."""
        return "done", object()

    async with Served(broker, namespace, search, odd) as served:
        async with MQTTToolkit(**served.where, agent_id="agent-a") as toolkit:
            tools = await toolkit.aget_tools()
            state: Any = await soon(create_agent(calls(("search", {"query": "q"})), tools).ainvoke(GO))
        message = state["messages"][-1]  # the agent ends with the tool's result
        assert isinstance(message, ToolMessage)
        assert message.text == "1 page"
        [document] = message.artifact["structured_content"]
        assert (document["page_content"], document["metadata"]) == ("text", {"source": "q"})
        assert await served.call("odd", {"query": "q"}) == "done"


async def test_a_tool_has_its_runtime_and_the_store_of_the_server(broker: Broker, namespace: str) -> None:
    @tool
    async def remember(key: str, runtime: ToolRuntime, store: Annotated[Any, InjectedStore()]) -> dict[str, Any]:
        """Remember a key."""
        for number in range(40):
            runtime.stream_writer({"number": number})
        store.put(("keys",), key, {"call": runtime.tool_call_id})
        assert runtime.store is store
        return {"config": sorted(runtime.config)}

    @tool
    def blocking(key: str, runtime: ToolRuntime) -> str:
        """Write too."""
        runtime.stream_writer(key)
        return "written"

    @tool
    def curious(runtime: ToolRuntime) -> str:
        """Read the state."""
        return str(runtime.state["messages"])

    store, told = InMemoryStore(), list[Any]()
    async with Served(broker, namespace, remember, blocking, curious, store=store) as served:
        assert "callbacks" in (await served.call("remember", {"key": "k"}, on_partial=told.append))["config"]
        assert told == [{"number": number} for number in range(40)]
        [item] = store.search(("keys",))
        assert item.value["call"]
        assert await served.call("blocking", {"key": "k"}, on_partial=told.append) == "written"
        assert told[-1] == "k"
        with pytest.raises(errors.ToolFailed, match="reads the state of a graph") as failed:
            await served.call("curious")
        assert failed.value.code == "NO_STATE"


@tool
def with_state(x: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Need the state."""
    return ""


@tool
def with_store(x: int, store: Annotated[Any, InjectedStore()]) -> str:
    """Need a store."""
    return ""


@tool
def with_user(x: int, user: Annotated[str, InjectedToolArg]) -> str:
    """Need a user."""
    return ""


@tool
def with_command(x: int) -> Command[Any]:
    """Go elsewhere."""
    return Command(goto="x")


@tool
def with_interrupt(x: int) -> str:
    """Ask."""
    return str(interrupt("Well?"))


async def _clashing(user: Annotated[str, InjectedToolArg] = "guest", **arguments: Any) -> str:
    return user


with_clash = StructuredTool.from_function(
    coroutine=_clashing,
    name="with_clash",
    description="Shows what is injected.",
    args_schema={"type": "object", "properties": {"user": {"type": "string"}}},
)


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (with_state, "InjectedState.*serve_graph"),
        (with_store, "InjectedStore.*store="),
        (with_user, "'user' is injected.*give the argument a default"),
        (with_clash, "schema shows the argument 'user'"),
        (with_command, "returns a Command"),
        (with_interrupt, r"calls interrupt\(\).*serve_graph"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_tool_that_cannot_be_served_is_refused_at_the_start_with_its_name(offered: BaseTool, why: str) -> None:
    with pytest.raises(TypeError, match=f"tool '{offered.name}' cannot be served: .*{why}"):
        tool_server([offered], "toolbox")


async def test_what_shows_only_when_the_tool_runs_is_a_clear_error_of_the_call(broker: Broker, namespace: str) -> None:
    ask = functools.partial(interrupt, "Well?")

    @tool
    def commands(x: int):  # type: ignore[no-untyped-def]
        """Go elsewhere."""
        return Command(goto="x")

    @tool
    async def asks(x: int) -> str:
        """Ask."""
        return str(ask())

    async with Served(broker, namespace, commands, asks) as served:
        with pytest.raises(errors.ToolFailed, match="'commands' returned a Command.*serve_graph") as failed:
            await served.call("commands", {"x": 1})
        assert failed.value.code == "COMMAND"
        with pytest.raises(errors.ToolFailed, match=r"'asks' calls interrupt\(\).*serve_graph") as failed:
            await served.call("asks", {"x": 1})
        assert failed.value.code == "INTERRUPT"


# Data that looks like content

RECORDS: list[Any] = [
    [{"type": "invoice", "number": 1}],
    [{"type": "text", "text": "hello", "author": "Ada"}],
    [{"type": "file", "name": "a.txt", "size": 3}],
    [{"type": "image", "id": 7}, {"type": "image", "id": 8}],
    {"content": [{"type": "text", "text": "hello"}], "title": "Greeting"},
    {"content": [{"type": "text", "text": "hello", "author": "Ada"}]},
    [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
]


@pytest.mark.parametrize("value", RECORDS, ids=str)
async def test_data_with_a_type_or_a_content_arrives_whole(broker: Broker, namespace: str, value: Any) -> None:
    @tool
    def records() -> Any:
        """Give data."""
        return value

    async with Served(broker, namespace, records) as served:
        assert await served.call("records") == value
        async with MQTTToolkit(**served.where, agent_id="agent-a") as toolkit:
            tools = await toolkit.aget_tools()
            state: Any = await soon(create_agent(calls(("records", {})), tools).ainvoke(GO))
        [message] = [each for each in state["messages"] if isinstance(each, ToolMessage)]
        assert message.artifact["structured_content"] == value
        for word in ("Ada", "Greeting", "invoice", "a.txt"):
            assert (word in str(value)) == (word in message.text)
