"""A tool call that is made for a framework: the call is canceled at its server when nobody waits any more."""

from __future__ import annotations

import asyncio

import pytest
from mqtt_agent import ToolContext, ToolResult
from mqtt_agent.adapting.calling import call_tool, calling
from mqtt_agent.errors import CallTimeout, ToolFailed, ToolUnavailable
from support import soon

from tests.tools.conftest import MakeClient, MakeServer


async def test_what_a_tool_streams_is_told_and_its_answer_is_in_the_handle(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def crawl(url: str, ctx: ToolContext) -> ToolResult:
        await ctx.stream("page 1")
        return ToolResult({"pages": 1}, [{"type": "text", "text": url}])

    await soon(server.start())
    client = await make_client()
    told: list[object] = []

    async def tell(call_id: str, partial: object) -> None:
        told.append((call_id, partial))

    handle = await soon(call_tool(client, "crawl", {"url": "x"}, timeout=5, call_id="c-1", on_partial=tell))
    assert told == [("c-1", "page 1")]
    assert handle.response is not None
    assert handle.response.result == {"pages": 1}
    assert handle.response.content == [{"type": "text", "text": "x"}]
    assert handle.failure() is None


async def test_the_error_of_a_failed_call_is_in_the_handle_with_the_whole_answer(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def fail() -> None:
        raise RuntimeError("no paper")

    await soon(server.start())
    handle = await soon(call_tool(await make_client(), "fail", {}, timeout=5))
    assert isinstance(handle.failure(), ToolFailed)
    assert handle.response is not None
    assert handle.response.error is not None


async def test_a_tool_that_nobody_serves_is_an_error_of_the_caller(make_client: MakeClient) -> None:
    with pytest.raises(ToolUnavailable):
        await soon(call_tool(await make_client(), "nothing", {}, timeout=5))


async def test_a_caller_that_gives_up_and_a_call_past_its_timeout_stop_the_handler(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server, begun, canceled = make_server(), asyncio.Queue[int](), asyncio.Queue[int]()

    @server.tool
    async def wait(number: int) -> None:
        begun.put_nowait(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.put_nowait(number)
            raise

    await soon(server.start())
    client = await make_client()
    waiting = asyncio.ensure_future(call_tool(client, "wait", {"number": 1}, timeout=None))
    assert await soon(begun.get()) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(waiting)
    assert await soon(canceled.get()) == 1

    handle = await soon(call_tool(client, "wait", {"number": 2}, timeout=0.2))
    assert isinstance(handle.failure(), CallTimeout)
    assert await soon(canceled.get()) == 2

    async with calling(client, "wait", {"number": 3}, timeout=None):
        await soon(begun.get())
        await soon(begun.get())
    assert await soon(canceled.get()) == 3
