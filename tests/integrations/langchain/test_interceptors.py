"""Interceptors see each call of a toolkit's tools, and may change it, answer it themselves, or repeat it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from brokers import Broker
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException
from langchain_mqtt_agent import MQTTToolCallRequest, MQTTToolCallResult, MQTTToolkit
from langgraph.types import Command
from mqtt_agent import MemoryStore, ToolContext, ToolError
from mqtt_agent.sync import Agent, ToolServer
from support import soon

from .models import calls

Handler = Callable[[MQTTToolCallRequest], Awaitable[Any]]


@pytest.fixture
def server(broker: Broker, namespace: str) -> Iterator[ToolServer]:
    server, attempts = ToolServer("toolbox", broker=broker.url, namespace=namespace), []

    @server.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool
    def subtract(a: int, b: int) -> int:
        """Subtract two numbers."""
        return a - b

    @server.tool
    def whoami(ctx: ToolContext) -> Any:
        """What the caller sends beside the arguments."""
        return ctx.meta

    @server.tool
    def flaky() -> int:
        """Fail at the first two calls."""
        attempts.append(1)
        if len(attempts) < 3:
            raise ToolError("not yet", code="EARLY")
        return len(attempts)

    with server:
        yield server


@pytest.fixture
def toolkit_with(broker: Broker, namespace: str, server: ToolServer) -> Iterator[Callable[..., dict[str, Any]]]:
    made: list[MQTTToolkit] = []

    def make(*interceptors: Any, **options: Any) -> dict[str, Any]:
        where: Any = {"broker": broker.url, "namespace": namespace, "timeout": 20}
        made.append(MQTTToolkit(**where, interceptors=interceptors, **options))
        return {tool.name: tool for tool in made[-1].get_tools()}

    yield make
    for toolkit in made:
        toolkit.close()


async def both(tool: Any, arguments: dict[str, Any]) -> list[Any]:
    """Invoke a tool from code that blocks in a thread, from code that awaits, and blocking in a running event loop."""
    blocking = await asyncio.to_thread(tool.invoke, arguments)
    return [blocking, await soon(tool.ainvoke(arguments)), tool.invoke(arguments)]


async def test_an_interceptor_sees_each_call_and_its_result(toolkit_with: Any) -> None:
    seen: list[Any] = []

    async def watch(request: MQTTToolCallRequest, handler: Handler) -> Any:
        result = await handler(request)
        seen.append((request.name, request.args, request.server_name, request.headers, result.content))
        assert result.artifact["structured_content"] == 3
        assert result.artifact["server"].startswith("toolbox")
        return result

    tools = toolkit_with(watch, prefix=True)
    assert await both(tools["toolbox_add"], {"a": 1, "b": 2}) == ["3", "3", "3"]
    assert seen == [("add", {"a": 1, "b": 2}, "toolbox", None, "3")] * 3


async def test_an_interceptor_may_await_anything_also_for_code_that_blocks(toolkit_with: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def wait(request: MQTTToolCallRequest, handler: Handler) -> Any:
        assert variable.get() == "set"
        await asyncio.sleep(0)
        result, _ = await asyncio.gather(handler(request), asyncio.sleep(0))
        return result

    variable.set("set")
    assert await both(toolkit_with(wait)["add"], {"a": 1, "b": 2}) == ["3", "3", "3"]


async def test_the_interceptors_of_code_that_blocks_run_in_its_own_thread(toolkit_with: Any) -> None:
    threads: list[str] = []

    async def note(request: MQTTToolCallRequest, handler: Handler) -> Any:
        threads.append(threading.current_thread().name)
        return await handler(request)

    tool = toolkit_with(note)["add"]
    thread = threading.Thread(target=tool.invoke, args=({"a": 1, "b": 2},), name="the caller's")
    thread.start()
    await asyncio.to_thread(thread.join)
    assert threads == ["the caller's"]


async def test_an_interceptor_changes_the_arguments_the_tool_and_the_result(toolkit_with: Any) -> None:
    async def change(request: MQTTToolCallRequest, handler: Handler) -> Any:
        result = await handler(request.override(name="subtract", args={**request.args, "b": 10}))
        return MQTTToolCallResult(f"changed: {result.content}", result.artifact)

    assert await both(toolkit_with(change)["add"], {"a": 1, "b": 2}) == ["changed: -9"] * 3


async def test_headers_reach_the_tool_as_meta(toolkit_with: Any) -> None:
    async def sign(request: MQTTToolCallRequest, handler: Handler) -> Any:
        return await handler(request.override(headers={"authorization": "Bearer x"}))

    tools = toolkit_with(sign, context=["user_id"])
    config: Any = {"configurable": {"user_id": "u1"}}
    message = await soon(tools["whoami"].ainvoke(call("whoami"), config))
    told = message.artifact["structured_content"]
    assert told == {"context": {"user_id": "u1"}, "headers": {"authorization": "Bearer x"}}


async def test_an_interceptor_answers_without_a_call(toolkit_with: Any) -> None:
    async def cached(request: MQTTToolCallRequest, handler: Handler) -> Any:
        return MQTTToolCallResult("from the cache", {"cached": True})

    message = await soon(toolkit_with(cached)["flaky"].ainvoke(call("flaky")))
    assert (message.content, message.artifact, message.status) == ("from the cache", {"cached": True}, "success")


async def test_an_interceptor_repeats_a_call_that_failed(toolkit_with: Any) -> None:
    codes: list[Any] = []

    async def retry(request: MQTTToolCallRequest, handler: Handler) -> Any:
        while True:
            try:
                return await handler(request)
            except ToolException as error:
                codes.append(error.artifact["code"])  # type: ignore[attr-defined]

    assert await soon(toolkit_with(retry)["flaky"].ainvoke({})) == "3"
    assert codes == ["EARLY", "EARLY"]


async def test_a_failure_that_no_interceptor_catches_is_told_to_the_model(toolkit_with: Any) -> None:
    async def nothing(request: MQTTToolCallRequest, handler: Handler) -> Any:
        return await handler(request)

    message = await soon(toolkit_with(nothing)["flaky"].ainvoke(call("flaky")))
    assert (message.status, message.content) == ("error", "flaky: not yet")
    assert message.artifact["code"] == "EARLY"


async def test_the_first_interceptor_is_the_outermost_and_may_be_a_plain_function(toolkit_with: Any) -> None:
    order: list[str] = []

    def first(request: MQTTToolCallRequest, handler: Handler) -> Any:
        order.append("first")
        return handler(request)

    async def second(request: MQTTToolCallRequest, handler: Handler) -> Any:
        order.append("second")
        return await handler(request)

    assert await soon(toolkit_with(first, second)["add"].ainvoke({"a": 1, "b": 2})) == "3"
    assert order == ["first", "second"]


async def test_an_interceptor_that_returns_something_else_is_told_what_to_return(toolkit_with: Any) -> None:
    async def wrong(request: MQTTToolCallRequest, handler: Handler) -> Any:
        return (await handler(request)).content

    with pytest.raises(TypeError, match=r"the interceptor wrong returned str: return what the handler returned"):
        await soon(toolkit_with(wrong)["add"].ainvoke({"a": 1, "b": 2}))


def test_a_request_cannot_get_another_server(toolkit_with: Any) -> None:
    request: Any = MQTTToolCallRequest("add", {}, "toolbox")
    with pytest.raises(TypeError, match="can change name, args and headers, and not server_name"):
        request.override(server_name="other")


@pytest.mark.parametrize("awaits", [True, False], ids=["awaiting", "blocking"])
async def test_in_an_agent_the_interceptor_sees_the_state_and_may_return_a_command(
    toolkit_with: Any, awaits: bool
) -> None:
    async def guard(request: MQTTToolCallRequest, handler: Handler) -> Any:
        runtime: Any = request.runtime
        assert runtime.state["messages"][0].content == "add them"
        if request.name == "add":
            return await handler(request)
        refused = ToolMessage("not allowed", tool_call_id=runtime.tool_call_id)
        return Command(update={"messages": [refused]})

    tools = toolkit_with(guard)
    model = calls(("add", {"a": 1, "b": 2}), ("subtract", {"a": 1, "b": 2}))
    agent: Any = create_agent(model, list(tools.values()))
    state: Any = {"messages": [("user", "add them")]}
    found = await soon(agent.ainvoke(state) if awaits else asyncio.to_thread(agent.invoke, state), 30)
    told = [each.content for each in found["messages"] if isinstance(each, ToolMessage)]
    assert told == ["3", "not allowed"]


async def test_a_call_that_the_interceptor_gives_up_is_canceled_at_the_server(
    broker: Broker, namespace: str, toolkit_with: Any, server: ToolServer
) -> None:
    canceled = threading.Event()

    async def hang(ctx: ToolContext) -> None:
        """Never end."""
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()

    await asyncio.to_thread(server.add_tool, "hang", hang)

    async def hurry(request: MQTTToolCallRequest, handler: Handler) -> Any:
        try:
            return await asyncio.wait_for(handler(request), 0.5)
        except asyncio.TimeoutError:
            return MQTTToolCallResult("too slow")

    tool = toolkit_with(hurry)["hang"]
    assert await soon(asyncio.to_thread(tool.invoke, {})) == "too slow"
    assert await asyncio.to_thread(canceled.wait, 10)


async def test_an_interceptor_sees_the_tools_of_peers(broker: Broker, namespace: str, toolkit_with: Any) -> None:
    told: list[Any] = []
    peer = Agent("writer", broker=broker.url, namespace=namespace, store=MemoryStore())

    @peer.on_task
    def handle(task: Any) -> str:
        told.append((task.prompt, task.metadata))
        return "done"

    async def sign(request: MQTTToolCallRequest, handler: Handler) -> Any:
        assert (request.name, request.server_name) == ("ask_writer", "writer")
        return await handler(request.override(args={"prompt": "a poem"}, headers={"key": "x"}))

    with peer:
        tool = (await asyncio.to_thread(toolkit_with, sign, peers="all", store=MemoryStore()))["ask_writer"]
        assert await both(tool, {"prompt": "a song"}) == ["done"] * 3
    assert told == [("a poem", {"headers": {"key": "x"}})] * 3


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "1", "name": name, "args": arguments}
