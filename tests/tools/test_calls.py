"""Calls: arguments, results, partials, errors, and the view of each caller."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import ToolClient, ToolContext, ToolError, ToolResult
from mqtt_agent.errors import (
    BrokerUnreachable,
    CallCanceled,
    CallTimeout,
    ConnectionLost,
    InvalidArguments,
    InvalidIdentifier,
    QueueFull,
    ToolFailed,
    ToolUnavailable,
    WireError,
)
from mqtt_agent.sync import ToolContext as SyncToolContext
from support import soon, until

from .conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS


async def test_a_call_gives_the_result(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: int = 3) -> dict[str, Any]:
        """Weather forecast for a city."""
        return {"city": city, "days": days, "nothing": None}

    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("forecast", {"city": "Oslo"})) == {"city": "Oslo", "days": 3, "nothing": None}


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "größe 工具", [], {}, [None, {"a": [1]}]])
async def test_any_json_value_comes_back_as_it_went(
    value: Any, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("echo", lambda arguments: arguments["value"], input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("echo", {"value": value})) == value


async def test_a_handler_can_return_content_beside_its_result(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    content = [{"type": "text", "text": "21 degrees"}]

    @server.tool
    async def forecast() -> ToolResult:
        return ToolResult({"celsius": 21}, content)

    await soon(server.start())
    handle = await soon((await make_client()).submit("forecast"))
    assert await soon(handle.result()) == {"celsius": 21}
    assert handle.response is not None
    assert handle.response.content == content


async def test_many_calls_at_once_each_get_their_own_answer(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    await soon(server.start())
    client = await make_client()
    results = await soon(asyncio.gather(*(client.call("double", {"n": n}) for n in range(500))), 30)
    assert results == [2 * n for n in range(500)]


async def test_plain_functions_run_in_threads_beside_each_other(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    together = threading.Barrier(3, timeout=10)

    @server.tool
    def meet() -> bool:
        together.wait()
        return threading.current_thread() is not threading.main_thread()

    await soon(server.start())
    client = await make_client()
    assert await soon(asyncio.gather(*(client.call("meet") for _ in range(3)))) == [True] * 3


@pytest.mark.rule("CALL-15")
async def test_no_more_handlers_run_at_once_than_allowed(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server(max_concurrency=3)
    running = 0
    most = 0
    go_on = asyncio.Semaphore(0)

    @server.tool
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.acquire()
        running -= 1

    await soon(server.start())
    client = await make_client()
    calls = asyncio.gather(*(client.call("work") for _ in range(12)))
    await until(lambda: server.active_calls == 12)
    assert running == 3
    for _ in range(12):
        go_on.release()
    await soon(calls, 20)
    assert most == 3


@pytest.mark.rule("STREAM-1", "STREAM-2", "STREAM-12")
async def test_partials_come_in_order_before_the_result(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def crawl(pages: int, ctx: ToolContext) -> str:
        for page in range(pages):
            await ctx.stream(f"page {page}")
        await ctx.stream({"found": pages})
        await ctx.progress(pages, total=pages, message="done")
        return "result"

    @server.tool
    def crawl_in_thread(pages: int, ctx: SyncToolContext) -> str:
        for page in range(pages):
            ctx.stream(f"page {page}")
        ctx.stream({"found": pages})
        ctx.progress(pages, total=pages, message="done")
        return "result"

    await soon(server.start())
    client = await make_client()
    expected = [
        *(f"page {page}" for page in range(200)),
        {"found": 200},
        {"progress": 200, "total": 200, "message": "done"},
    ]
    for tool in ("crawl", "crawl_in_thread"):
        seen: list[Any] = []
        assert await soon(client.call(tool, {"pages": 200}, on_partial=seen.append)) == "result"
        assert seen == expected
        handle = await soon(client.submit(tool, {"pages": 200}))
        assert [partial async for partial in handle.partials()] == expected
        assert await soon(handle.result()) == "result"
        assert handle.server == server.server_id
        assert handle.elapsed_ms is not None


async def test_an_async_on_partial_is_awaited(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    seen: list[Any] = []

    @server.tool
    async def two(ctx: ToolContext) -> None:
        await ctx.stream(1)
        await ctx.stream(2)

    async def on_partial(value: Any) -> None:
        await asyncio.sleep(0)
        seen.append(value)

    await soon(server.start())
    client = await make_client()
    await soon(client.call("two", on_partial=on_partial))
    assert seen == [1, 2]


@pytest.mark.rule("LIMIT-7")
async def test_partials_that_nobody_reads_are_bounded(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def chatter(ctx: ToolContext) -> str:
        for n in range(1500):
            await ctx.stream(n)
        return "done"

    await soon(server.start())
    client = await make_client()
    handle = await soon(client.submit("chatter"))
    assert await soon(handle.result(), 20) == "done"
    await until(lambda: handle.dropped_partials == 500)
    assert [partial async for partial in handle.partials()] == list(range(500, 1500))


@pytest.mark.rule("CALL-9")
async def test_wrong_arguments_name_the_path(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: int = 3) -> None:
        raise AssertionError("never called")

    await soon(server.start())
    client = await make_client()
    what = 'must be a whole number, not the text "x"'
    with pytest.raises(InvalidArguments, match=f"forecast: argument 'days' {what}") as caught:
        await soon(client.call("forecast", {"city": "Oslo", "days": "x"}))
    assert caught.value.data == [{"path": "/days", "message": what}]
    with pytest.raises(InvalidArguments, match="argument 'city' is missing"):
        await soon(client.call("forecast"))


@pytest.mark.rule("RESP-2", "RESP-10", "RESP-11")
async def test_an_exception_of_the_handler_is_tool_failed_without_a_traceback(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def broken() -> None:
        raise KeyError("the key")

    @server.tool
    def leave() -> None:
        raise SystemExit("no")

    @server.tool
    async def choosy() -> None:
        raise ToolError("the database is away", code="E_DB", data={"host": "db1"})

    @server.tool
    async def give_up() -> None:
        raise asyncio.CancelledError

    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match="broken: 'the key'") as caught:
        await soon(client.call("broken"))
    assert caught.value.code == "KeyError"
    assert caught.value.server == server.server_id
    assert "Traceback" not in str(caught.value)
    with pytest.raises(ToolFailed, match="leave: no"):
        await soon(client.call("leave"))
    with pytest.raises(ToolFailed) as caught:
        await soon(client.call("choosy"))
    assert (caught.value.code, caught.value.data) == ("E_DB", {"host": "db1"})
    with pytest.raises(ToolFailed, match="CancelledError"):
        await soon(client.call("give_up"))
    with pytest.raises(ToolFailed, match="broken"):
        await soon(client.call("broken"))


@pytest.mark.rule("RESP-12")
async def test_a_result_without_json_form_is_tool_failed(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    server.add_tool("odd", lambda: object(), input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match="odd: .*JSON") as caught:
        await soon(client.call("odd"))
    assert caught.value.code == "RESULT_NOT_JSON"


async def test_arguments_without_json_form_are_refused_before_anything_is_sent(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("any", lambda arguments: 1, input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client()
    with pytest.raises(WireError, match="JSON"):
        await soon(client.call("any", {"a": object()}))
    assert await soon(client.call("any", {"a": 1})) == 1


async def test_an_unknown_tool_is_unavailable_at_once(make_server: MakeServer, make_client: MakeClient) -> None:
    await soon(make_server().start())
    client = await make_client()
    started = time.monotonic()
    with pytest.raises(ToolUnavailable, match="nothing: there is no such tool") as caught:
        await client.call("nothing", timeout=60)
    assert not caught.value.maybe_executed
    assert time.monotonic() - started < 30, "not after the timeout"


async def test_for_an_unknown_tool_a_name_like_it_is_suggested(
    make_server: MakeServer, make_client: MakeClient, namespace: str
) -> None:
    server = make_server()
    server.add_tool("search", lambda: 1)
    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolUnavailable, match=f"serch: .* in namespace {namespace!r}; did you mean 'search'"):
        await soon(client.call("serch"))


async def test_in_an_empty_namespace_an_unknown_tool_raises_doubts_about_the_namespace(
    make_client: MakeClient, namespace: str
) -> None:
    client = await make_client()
    says = f"search: there is no such tool in namespace {namespace!r}; this namespace has no tool at all: do all"
    with pytest.raises(ToolUnavailable, match=says):
        await soon(client.call("search"))


async def test_a_tools_argument_as_a_keyword_is_refused_with_the_right_form(make_client: MakeClient) -> None:
    client = await make_client()
    mistakes: dict[str, Any] = {"city": "Oslo", "days": 3}
    says = r"""call\(\) has no parameter 'city'; .* one dict: call\('forecast', {"city": ..., "days": ...}\)"""
    with pytest.raises(TypeError, match=says):
        await client.call("forecast", **mistakes)
    with pytest.raises(TypeError, match=r"submit\(\) has no parameter 'tiemout'; did you mean 'timeout'"):
        await client.submit("forecast", tiemout=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"submit\(\) has no parameter 'on_partial'; the arguments of a tool"):
        await client.submit("forecast", on_partial=print)  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("NAME-1")
async def test_a_name_with_topic_characters_is_refused(make_client: MakeClient) -> None:
    client = await make_client()
    with pytest.raises(InvalidIdentifier, match="tool name 'a/b'"):
        await client.call("a/b")
    with pytest.raises(InvalidIdentifier):
        ToolClient("a+b")


async def test_a_broker_that_is_not_there_is_one_error_that_names_the_url(url_of_nobody: str) -> None:
    with pytest.raises(BrokerUnreachable, match=url_of_nobody):
        await soon(ToolClient(broker=url_of_nobody).start())
    with pytest.raises(ConnectionLost, match="not started"):
        await ToolClient(broker=url_of_nobody).call("x")


@pytest.mark.rule("CALL-10", "CALL-11")
async def test_a_caller_stops_waiting_after_its_timeout_and_can_attach_again(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    go_on = asyncio.Event()
    runs: list[int] = []

    @server.tool
    async def slow(n: int) -> int:
        runs.append(n)
        await go_on.wait()
        return n

    await soon(server.start())
    client = await make_client()
    with pytest.raises(CallTimeout) as caught:
        await soon(client.call("slow", {"n": 7}, timeout=0.2))
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.call_id is not None
    again = await soon(client.submit("slow", {"n": 7}, call_id=caught.value.call_id))
    go_on.set()
    assert await soon(again.result()) == 7
    late = await soon(client.submit("slow", {"n": 7}, call_id=caught.value.call_id))
    assert await soon(late.result()) == 7
    assert runs == [7]


@pytest.mark.rule("RESP-13")
async def test_a_handler_past_its_timeout_is_canceled(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    ended = asyncio.Event()
    timed_out = threading.Event()
    canceled: list[bool] = []

    @server.tool(timeout=0.1)
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @server.tool(timeout=0.1)
    def forever_in_a_thread(ctx: SyncToolContext) -> None:
        timed_out.wait(10)
        canceled.append(ctx.canceled)
        server_loop.call_soon_threadsafe(thread_ended.set)

    server_loop = asyncio.get_running_loop()
    thread_ended = asyncio.Event()
    await soon(server.start())
    client = await make_client()
    for tool, event in (("forever", ended), ("forever_in_a_thread", thread_ended)):
        with pytest.raises(CallTimeout, match=r"ran longer than 0\.1 s"):
            await soon(client.call(tool))
        if event is thread_ended:
            timed_out.set()
        await soon(event.wait())
    assert canceled == [True]


@pytest.mark.rule("CANCEL-1")
async def test_cancelling_the_caller_cancels_the_handler(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    started, canceled = asyncio.Event(), asyncio.Event()

    @server.tool
    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled.set()
            raise

    await soon(server.start())
    client = await make_client()
    calling = asyncio.ensure_future(client.call("work"))
    await soon(started.wait())
    calling.cancel()
    await soon(canceled.wait())
    with pytest.raises(asyncio.CancelledError):
        await calling

    started.clear()
    canceled.clear()
    handle = await soon(client.submit("work"))
    await soon(started.wait())
    await handle.cancel("changed my mind")
    await soon(canceled.wait())
    with pytest.raises(CallCanceled):
        await soon(handle.result())

    started.clear()
    canceled.clear()
    handle = await soon(client.submit("work"))
    await soon(started.wait())
    await soon(client.stop())
    await soon(canceled.wait())
    with pytest.raises(CallCanceled):
        await soon(handle.result())


@pytest.mark.rule("CALL-11")
async def test_the_same_call_id_runs_once(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    runs: list[int] = []

    @server.tool
    async def count() -> int:
        runs.append(1)
        return len(runs)

    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("count", call_id="my id")) == 1
    assert await soon(client.call("count", call_id="my id")) == 1
    assert await soon(client.call("count")) == 2


@pytest.mark.rule("LIMIT-6")
async def test_the_number_of_calls_under_way_is_bounded(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    go_on = asyncio.Event()
    server.add_tool("wait", go_on.wait, input_schema={"type": "object"})
    await soon(server.start())
    client = await make_client(max_pending=2)
    handles = [await soon(client.submit("wait")) for _ in range(2)]
    with pytest.raises(QueueFull):
        await client.submit("wait")
    go_on.set()
    assert [await soon(handle.result()) for handle in handles] == [True, True]
    await soon(client.call("wait"))


@pytest.mark.rule("LOST-1", "LOST-6")
async def test_a_broker_that_dies_and_forgets_costs_no_call(own_broker: Broker, namespace: str) -> None:
    from mqtt_agent import ToolServer

    server = ToolServer("server", broker=own_broker.url, namespace=namespace)
    started = asyncio.Event()
    go_on = asyncio.Event()
    runs: list[int] = []

    @server.tool(idempotent=True)
    async def work(n: int) -> int:
        runs.append(n)
        started.set()
        await go_on.wait()
        return n

    async with server, ToolClient(broker=own_broker.url, namespace=namespace) as client:
        calls = [asyncio.ensure_future(client.call("work", {"n": n}, timeout=60)) for n in range(40)]
        await soon(started.wait())
        await until(lambda: len(runs) == 40)
        own_broker.restart(keep_state=False, kill=True)
        go_on.set()
        assert await soon(asyncio.gather(*calls), 30) == list(range(40))
        assert sorted(runs) == list(range(40))
        assert await soon(client.call("work", {"n": 99}, wait_online=True)) == 99
