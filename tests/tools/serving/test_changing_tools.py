"""Tools that come, change and go while their server runs, and tools whose schemas and errors come from elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import Connection, ToolClient, ToolError, ToolResult, ToolServer
from mqtt_agent.errors import InvalidArguments, ToolFailed, ToolUnavailable
from mqtt_agent.transport import InboundMessage
from support import becomes, soon

from ..conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS
ANYTHING = {"type": "object"}


async def names(client: ToolClient) -> list[str]:
    return [card.tool for card in await client.list_tools()]


async def shows(client: ToolClient, *tools: str) -> None:
    """Wait until a client finds exactly these tools."""

    async def so() -> bool:
        return await names(client) == sorted(tools)

    await becomes(so, 20)


async def retained_cards(broker: Broker, namespace: str, status: bytes = b"") -> list[str]:
    """The names of the tools whose cards the broker keeps, with this text in them."""
    found: dict[str, bytes] = {}

    def keep(message: InboundMessage) -> None:
        found[message.topic.split("/")[-2]] = message.payload

    connection = Connection(broker.url)
    await connection.start()
    end = asyncio.Event()
    await connection.subscribe(f"{namespace}/mcp/tools/+/card", keep, qos=0, snapshot=True)
    await connection.subscribe(f"{namespace}/end", lambda _: end.set())
    await connection.publish(f"{namespace}/end", b"end")
    await soon(end.wait())
    await connection.stop(end_session=True)
    return sorted(name for name, payload in found.items() if payload and status in payload)


async def test_a_removed_tool_is_gone_for_clients_and_its_running_call_ends_with_its_result(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    server, begun, go_on = make_server(), asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    server.add_tool("slow", slow)
    server.add_tool("other", lambda: "still here")
    await soon(server.start())
    client = await make_client()
    handle = await soon(client.submit("slow"))
    await soon(begun.wait())
    await soon(server.remove_tool("slow"), 20)
    assert [card.tool for card in server.tools] == ["other"]
    await shows(client, "other")
    assert await retained_cards(broker, namespace) == ["other"]
    go_on.set()
    assert await soon(handle.result()) == "done"
    with pytest.raises(ToolUnavailable):
        await soon(client.call("slow"))
    assert await soon(client.call("other")) == "still here"
    await soon(server.add_tool("slow", lambda: "again"), 20)
    assert await soon(client.call("slow", wait_online=True), 20) == "again"


async def test_a_tool_that_another_replica_offers_keeps_its_card_when_one_replica_removes_it(
    broker: Broker, namespace: str, make_server: MakeServer, make_client: MakeClient
) -> None:
    replicas = [make_server(replica=each) for each in ("a", "b")]
    for server in replicas:
        server.add_tool("shared", lambda: "here")
        await soon(server.start(), 20)
    client = await make_client()
    await shows(client, "shared")
    await soon(replicas[0].remove_tool("shared"), 20)
    if not broker.shared_subscriptions:  # the other replica is on standby there, and offers nothing
        assert await retained_cards(broker, namespace) == []
        return
    assert await retained_cards(broker, namespace) == ["shared"]
    assert {await soon(client.call("shared"), 20) for _ in range(10)} == {"here"}


async def test_a_server_that_stops_while_it_removes_tools_shows_none_of_them_online(
    broker: Broker, namespace: str, make_server: MakeServer
) -> None:
    server = make_server()
    for name in ("a", "b", "c"):
        server.add_tool(name, lambda: 1)
    await soon(server.start())
    for name in ("a", "b"):
        server.remove_tool(name)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await soon(server.stop(), 20)
    assert await retained_cards(broker, namespace, b'"online"') == []
    assert "c" in await retained_cards(broker, namespace, b'"offline"')


async def test_many_tools_are_added_and_removed_together(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    server.add_tool("first", lambda: 1)
    await soon(server.start())
    client = await make_client()
    many = [f"tool-{number:03}" for number in range(200)]
    await soon(asyncio.gather(*(server.add_tool(name, lambda: 1) for name in many)), 30)
    await shows(client, "first", *many)
    await soon(asyncio.gather(*(server.remove_tool(name) for name in many)), 30)
    await shows(client, "first")


async def test_a_replaced_tool_shows_its_new_card_and_runs_the_new_function(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("greet", lambda name: f"hello {name}", description="old")
    await soon(server.start())
    client = await make_client()
    await shows(client, "greet")
    schema = {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]}
    await soon(server.replace_tool("greet", lambda who: f"hi {who}", description="new", input_schema=schema))

    async def is_new() -> bool:
        card = await client.get_tool("greet")
        return card is not None and card.description == "new" and card.input_schema == schema

    await becomes(is_new)
    assert await soon(client.call("greet", {"who": "Ada"})) == "hi Ada"
    with pytest.raises(InvalidArguments):
        await soon(client.call("greet", {"name": "Ada"}))


def test_before_the_start_tools_are_removed_and_replaced_at_once() -> None:
    server = ToolServer("s")
    server.add_tool("a", lambda: 1)
    server.add_tool("b", lambda: 1, title="old")
    server.remove_tool("a")
    server.replace_tool("b", lambda: 2, title="new")
    assert [(card.tool, card.title) for card in server.tools] == [("b", "new")]
    with pytest.raises(ValueError, match="offers no tool 'a'"):
        server.remove_tool("a")
    with pytest.raises(ValueError, match="not valid JSON Schema"):
        server.replace_tool("b", lambda x: x, input_schema={"type": "object", "properties": 7})
    assert [(card.tool, card.title) for card in server.tools] == [("b", "new")]


HARD_SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"$ref": "https://elsewhere.example/schema.json"}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<bad"}}},
    {"type": "object", "properties": {"arguments": {}, "context": {}, "self": {}}},
    {"type": "object", "properties": 7},
]


@pytest.mark.parametrize("schema", HARD_SCHEMAS)
async def test_a_tool_whose_handler_checks_the_arguments_takes_any_schema(
    embedded: Broker, namespace: str, schema: dict[str, Any]
) -> None:
    async with ToolServer("s", broker=embedded.url, namespace=namespace) as server:
        options: dict[str, Any] = {"input_schema": schema, "validate": False, "whole_arguments": True}
        await soon(server.add_tool("hard", lambda arguments: arguments, icons=[{"src": "a.png"}], **options))
        async with ToolClient(broker=embedded.url, namespace=namespace) as client:
            given = {"arguments": 1, "context": 2, "self": 3, "a": "x"}
            assert await soon(client.call("hard", given, wait_online=True)) == given
            card = await client.get_tool("hard")
            assert card is not None
            assert (card.input_schema, card.icons) == (schema, [{"src": "a.png"}])


def test_a_tool_that_returns_content_blocks_shows_no_schema_of_their_wrapping() -> None:
    server = ToolServer("s")

    @server.tool
    def tells() -> ToolResult:
        return ToolResult("text", [])

    assert server.tools[0].output_schema is None


def test_whole_arguments_need_a_schema_and_a_parameter() -> None:
    server = ToolServer("s")
    with pytest.raises(TypeError, match="whole_arguments needs an input_schema"):
        server.add_tool("a", lambda arguments: arguments, whole_arguments=True)
    with pytest.raises(TypeError, match="no parameter for the dict"):
        server.add_tool("a", lambda: None, input_schema=ANYTHING, whole_arguments=True)


async def test_a_handler_that_says_unavailable_tells_whether_the_tool_may_have_run(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def lost(maybe: bool) -> None:
        data = {"maybe_executed": maybe}
        raise ToolError("the child process ended", type="unavailable", data=data, retryable=True)

    await soon(server.start())
    client = await make_client()
    for maybe in (True, False):
        with pytest.raises(ToolUnavailable, match="the child process ended") as caught:
            await soon(client.call("lost", {"maybe": maybe}))
        assert caught.value.maybe_executed is maybe


async def test_an_error_carries_content_blocks_and_a_text_result_says_that_it_is_no_value(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, blocks = make_server(), [{"type": "text", "text": "no such file"}]

    @server.tool
    async def fails() -> None:
        raise ToolError("no such file", content=blocks, data={"path": "/x"})

    @server.tool
    async def tells() -> ToolResult:
        return ToolResult("no such file", blocks, structured=False)

    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed) as caught:
        await soon(client.call("fails"))
    assert (caught.value.content, caught.value.data) == (blocks, {"path": "/x"})
    handle = await soon(client.submit("tells"))
    assert await soon(handle.result()) == "no such file"
    assert handle.response is not None
    assert (handle.response.structured, handle.response.content) == (False, blocks)
