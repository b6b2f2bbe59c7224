"""The reference's client with our tool server."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Annotated, Any

import pytest
from mqtt_agent import ToolContext, ToolError
from pydantic import Field
from support import soon

from .conftest import MakeServer, StartReferenceClient
from .reference import CallFailed


@pytest.mark.rule("RESP-1")
async def test_it_gets_our_results(make_server: MakeServer, start_reference_client: StartReferenceClient) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: int = 3) -> dict[str, Any]:
        return {"city": city, "days": days, "nothing": None, "text": "größe 工具 🎈", "big": "x" * 300_000}

    @server.tool
    def in_thread(n: int) -> int:
        return 2 * n

    await soon(server.start())
    client = await start_reference_client()
    result = await client.call("forecast", {"city": "Oslo"})
    assert result == {"city": "Oslo", "days": 3, "nothing": None, "text": "größe 工具 🎈", "big": "x" * 300_000}
    assert await client.call("in_thread", {"n": 21}) == 42
    assert client.heard("log") == []


@pytest.mark.parametrize("value", [True, 0, -1.5, "", [], {}, [None, {"a": [1]}]])
async def test_any_json_value_reaches_it(
    value: Any, make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()
    server.add_tool("echo", lambda arguments: arguments["value"], input_schema={"type": "object"})
    await soon(server.start())
    client = await start_reference_client()
    assert await client.call("echo", {"value": value}) == value


@pytest.mark.rule("JSON-3", "RESP-5")
async def test_our_none_is_null_or_nothing_to_it(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()
    server.add_tool("nothing", lambda: None)
    await soon(server.start())
    client = await start_reference_client()
    assert await client.call("nothing") in (None, ...)


@pytest.mark.rule("NAME-4")
async def test_our_handlers_see_its_name_and_its_odd_call_ids(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()
    seen: list[tuple[str, str]] = []

    @server.tool
    async def who(ctx: ToolContext) -> str:
        seen.append((ctx.client, ctx.call_id))
        return ctx.call_id

    await soon(server.start())
    client = await start_reference_client("node-client")
    call_ids = [await client.call("who") for _ in range(5)]
    assert seen == [("node-client", call_id) for call_id in call_ids]
    assert len(set(call_ids)) == 5
    for call_id in call_ids:
        assert re.fullmatch(r"call_[0-9a-z]+_[0-9a-z]+", call_id)


@pytest.mark.rule("STREAM-1", "STREAM-2", "STREAM-7")
async def test_it_gets_what_we_stream_in_order_before_the_result(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()

    @server.tool
    async def crawl(pages: int, ctx: ToolContext) -> str:
        for page in range(pages):
            await ctx.stream(f"page {page}")
        await ctx.stream({"found": pages})
        await ctx.stream("")
        await ctx.stream(7)
        await ctx.progress(pages, total=pages, message="done")
        return "result"

    await soon(server.start())
    client = await start_reference_client()
    partials, result = await client.call_streaming("crawl", {"pages": 200})
    assert result == "result"
    progress = {"progress": 200, "total": 200, "message": "done"}
    assert partials == [*(f"page {page}" for page in range(200)), {"found": 200}, "", 7, progress]
    assert await client.call("crawl", {"pages": 1}) == "result"  # without listening to the stream


async def test_our_long_tools_stream_to_it_while_they_run(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()
    go_on = asyncio.Event()

    @server.tool
    async def slow(ctx: ToolContext) -> str:
        await ctx.stream("waiting")
        await go_on.wait()
        return "done"

    await soon(server.start())
    client = await start_reference_client()
    call = asyncio.ensure_future(client.call_streaming("slow"))
    await client.hear("partial")
    assert not call.done()
    go_on.set()
    assert await soon(call) == (["waiting"], "done")


@pytest.mark.rule("CALL-9")
async def test_wrong_arguments_are_invalid_arguments_to_it(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: Annotated[int, Field(ge=1)] = 3) -> None:
        raise AssertionError("never called")

    await soon(server.start())
    client = await start_reference_client()
    with pytest.raises(CallFailed, match=r"""^MCP tool "forecast" failed \(invalid_arguments\): .*'city'"""):
        await client.call("forecast")
    with pytest.raises(CallFailed, match=r"\(invalid_arguments\): .*'days'"):
        await client.call("forecast", {"city": "Oslo", "days": "x"})


@pytest.mark.rule("RESP-2", "RESP-3", "RESP-13")
async def test_a_tool_of_ours_that_fails_is_a_tool_error_to_it(
    make_server: MakeServer, start_reference_client: StartReferenceClient, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server()

    @server.tool
    async def broken() -> None:
        raise RuntimeError("no such luck")

    @server.tool
    async def refuses() -> None:
        raise ToolError("not today", code="E_LATER")

    @server.tool(timeout=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    await soon(server.start())
    client = await start_reference_client()
    with caplog.at_level(logging.CRITICAL):
        with pytest.raises(CallFailed, match=r'^MCP tool "broken" failed \(tool_error\): '):
            await client.call("broken")
    with pytest.raises(CallFailed, match=r'^MCP tool "refuses" failed \(tool_error\): not today$'):
        await client.call("refuses")
    with pytest.raises(CallFailed, match=r'^MCP tool "slow" failed \(timeout\): '):
        await client.call("slow")


async def test_many_calls_at_once_each_get_their_own_answer_from_us(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()

    @server.tool
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    await soon(server.start())
    client = await start_reference_client()
    results = await soon(asyncio.gather(*(client.call("double", {"n": n}) for n in range(300))), 30)
    assert results == [2 * n for n in range(300)]


@pytest.mark.rule("TCARD-1", "PRES-7")
async def test_it_finds_our_cards(
    make_server: MakeServer, start_reference_client: StartReferenceClient, namespace: str
) -> None:
    server = make_server("weather")

    @server.tool(read_only=True, version="2.1", allowed_callers=["node-client"])
    async def forecast(city: str, ctx: ToolContext) -> dict[str, Any]:
        """Weather forecast for a city."""
        return {}

    await soon(server.start())
    client = await start_reference_client()
    card = await client.card("forecast")
    assert (card["version"], card["tool"], card["server"]) == ("1", "forecast", "weather")
    assert (card["namespace"], card["status"]) == (namespace, "online")
    assert card["description"] == "Weather forecast for a city."
    assert card["input_schema"]["required"] == ["city"]
    assert card["supports_streaming"] is True
    assert card["version_info"]["tool"] == "2.1"
    assert card["allowed_callers"] == ["node-client"]
    assert await client.card("no-such-tool") is None
    await soon(server.stop())
    assert (await client.card("forecast"))["status"] == "offline"


@pytest.mark.rule("NAME-6")
async def test_it_may_write_the_namespace_with_slashes_around(
    make_server: MakeServer, start_reference_client: StartReferenceClient, namespace: str
) -> None:
    server = make_server()
    server.add_tool("one", lambda: 1)
    await soon(server.start())
    client = await start_reference_client(namespace=f"/{namespace}/")
    assert await client.call("one") == 1


async def test_two_of_its_clients_do_not_get_each_others_answers(
    make_server: MakeServer, start_reference_client: StartReferenceClient
) -> None:
    server = make_server()

    @server.tool
    async def who(ctx: ToolContext) -> str:
        return ctx.client

    await soon(server.start())
    one, two = await start_reference_client("one"), await start_reference_client("two")
    answers = await soon(asyncio.gather(*(client.call("who") for client in (one, two) for _ in range(20))))
    assert answers == ["one"] * 20 + ["two"] * 20
