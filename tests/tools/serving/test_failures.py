"""Handlers that fail in every possible way, and invalid settings."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import pytest
from brokers import ALL_BROKERS, Broker
from mqtt_agent import ToolContext, ToolError, ToolServer
from mqtt_agent.errors import (
    CallTimeout,
    InvalidArguments,
    PayloadTooLarge,
    SessionTakenOver,
    ToolFailed,
    ToolUnavailable,
    WireError,
)
from pydantic import BaseModel, Field
from support import soon, until

from ..conftest import MakeClient, MakeServer

RUN_ON = ALL_BROKERS


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class PanicException(BaseException):
    """As a panic of Rust code, such as that of Polars, which is no ``Exception``."""


def raises(error: BaseException) -> Callable[[], None]:
    def handler() -> None:
        raise error

    return handler


def raises_async(error: BaseException) -> Callable[[], Any]:
    async def handler() -> None:
        raise error

    return handler


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
async def test_what_a_task_group_raises_is_told_and_not_only_how_many_exceptions(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    def group(*errors: Exception) -> ExceptionGroup[Exception]:  # noqa: F821  # pyright: ignore
        return ExceptionGroup("unhandled errors in a TaskGroup", list(errors))  # noqa: F821  # pyright: ignore

    @server.tool
    async def one() -> None:
        raise group(group(ToolError("sold out", code="SOLD_OUT", data=7, retryable=True)))

    @server.tool
    async def many() -> None:
        raise group(ValueError("no city"), group(KeyError("day"), Unspeakable()))

    await server.start()
    client = await make_client()
    with pytest.raises(ToolFailed, match="one: sold out$") as failed:
        await soon(client.call("one"))
    assert (failed.value.code, failed.value.data, failed.value.retryable) == ("SOLD_OUT", 7, True)
    with pytest.raises(ToolFailed) as failed:
        await soon(client.call("many"))
    assert failed.value.code == "ExceptionGroup"
    assert str(failed.value).endswith(": ValueError: no city; KeyError: 'day'; Unspeakable: ")


async def test_whatever_a_handler_raises_its_caller_is_told_and_no_slot_is_lost(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(max_concurrency=2)
    handlers: dict[str, tuple[Callable[[], Any], str]] = {
        "number_as_code": (raises(ToolError("declined", code=402)), "402"),  # type: ignore[arg-type]
        "data_without_json": (raises(ToolError("nope", code="E", data=object())), "E"),
        "stop": (raises(StopIteration()), "StopIteration"),
        "exit": (raises(SystemExit(3)), "SystemExit"),
        "exit_async": (raises_async(SystemExit(3)), "SystemExit"),
        "generator_exit": (raises(GeneratorExit()), "GeneratorExit"),
        "generator_exit_async": (raises_async(GeneratorExit()), "GeneratorExit"),
        "interrupt": (raises(KeyboardInterrupt()), "KeyboardInterrupt"),
        "panic": (raises(PanicException()), "PanicException"),
        "panic_async": (raises_async(PanicException()), "PanicException"),
        "canceled": (raises_async(asyncio.CancelledError()), "CancelledError"),
        "unspeakable": (raises(Unspeakable()), "Unspeakable"),
        "surrogate": (raises(ValueError("\ud800")), "ValueError"),
        "no_json": (lambda: object(), "RESULT_NOT_JSON"),
        "huge": (lambda: "x" * 17_000_000, "RESULT_TOO_LARGE"),
    }
    for name, (handler, _) in handlers.items():
        server.add_tool(name, handler)
    await soon(server.start())
    client = await make_client()
    for name, (_, code) in handlers.items():
        with pytest.raises(ToolFailed) as caught:
            await soon(client.call(name))
        assert caught.value.code == code, name


async def test_a_coroutine_that_a_plain_handler_returns_is_awaited(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    async def later() -> str:
        return "later"

    server = make_server()
    server.add_tool("later", lambda: later())
    await soon(server.start())
    assert await soon((await make_client()).call("later")) == "later"


async def test_an_argument_that_the_tool_does_not_have_is_refused(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()

    @server.tool
    async def forecast(city: str, days: int = 3) -> str:
        return city * days

    await soon(server.start())
    with pytest.raises(InvalidArguments, match="day"):
        await soon((await make_client()).call("forecast", {"city": "Oslo", "day": 5}))


class Reading(BaseModel):
    value: Optional[float]  # noqa: UP045 (as users on Python 3.9 habits write it)
    unit: str = Field(default="C", serialization_alias="u")


@dataclass
class Pair:
    left: Any
    right: Any


@pytest.mark.rule("JSON-3")
async def test_a_none_inside_a_result_or_an_argument_stays(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def read() -> Reading:
        return Reading(value=None)

    @server.tool
    async def echo(pair: dict[str, Any]) -> dict[str, Any]:
        return pair

    await soon(server.start())
    client = await make_client()
    assert await soon(client.call("read")) == {"value": None, "u": "C"}
    assert await soon(client.call("echo", {"pair": Pair(None, Reading(value=None))})) == {
        "left": None,
        "right": {"value": None, "u": "C"},
    }


@pytest.mark.parametrize("arguments", ["Oslo", [1], {"a": object()}])
async def test_arguments_that_cannot_be_sent_are_a_wire_error(
    make_server: MakeServer, make_client: MakeClient, arguments: Any
) -> None:
    server = make_server()
    server.add_tool("tool", lambda: None)
    await soon(server.start())
    with pytest.raises(WireError):
        await soon((await make_client()).call("tool", arguments))


async def test_a_call_that_no_server_would_get_is_refused_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    server.add_tool("tool", lambda: None)
    await soon(server.start())
    with pytest.raises(PayloadTooLarge):
        await soon((await make_client()).call("tool", {"x": "x" * 17_000_000}))


async def test_a_call_past_its_timeout_can_still_be_canceled(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()
    canceled = asyncio.Event()

    @server.tool
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()

    await soon(server.start())
    client = await make_client()
    handle = await soon(client.submit("hang", timeout=0.2))
    with pytest.raises(CallTimeout, match="0.2 s"):
        await soon(handle.result())
    assert handle.timed_out
    assert not canceled.is_set()
    await handle.cancel()
    await soon(canceled.wait())


@pytest.mark.rule("PRES-11", "RESP-14")
async def test_a_stopped_server_tells_which_calls_may_have_run(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(max_concurrency=1, drain_timeout=0)
    started = asyncio.Event()

    @server.tool
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    await soon(server.start())
    client = await make_client()
    running = await soon(client.submit("hang"))
    await soon(started.wait())
    waiting = await soon(client.submit("hang"))
    await until(lambda: server.active_calls == 2)
    await soon(server.stop())
    with pytest.raises(ToolUnavailable) as of_running:
        await soon(running.result())
    with pytest.raises(ToolUnavailable) as of_waiting:
        await soon(waiting.result())
    assert (of_running.value.maybe_executed, of_waiting.value.maybe_executed) == (True, False)


@pytest.mark.rule("CALL-14")
async def test_200_long_calls_run_at_once_whatever_the_brokers_window(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server(max_concurrency=256)
    all_here = asyncio.Event()
    here: list[int] = []

    @server.tool
    async def meet(n: int) -> int:
        here.append(n)
        if len(here) == 200:
            all_here.set()
        await all_here.wait()
        return n

    await soon(server.start())
    client = await make_client()
    calls = asyncio.gather(*(client.call("meet", {"n": n}) for n in range(200)))
    assert await soon(calls, 20) == list(range(200))
    assert sorted(here) == list(range(200))


@pytest.mark.rule("PRES-13")
async def test_two_processes_with_the_same_replica_name_do_not_fight(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    first, second = make_server(replica="one"), make_server(replica="one")
    first.add_tool("who", lambda: "first")
    second.add_tool("who", lambda: "second")
    serving = asyncio.ensure_future(first.serve_forever())
    client = await make_client()
    assert await soon(client.call("who", wait_online=True)) == "first"
    await soon(second.start())
    if broker.keeps_shared_messages:  # otherwise the broker keeps both connections, and they share the calls
        with pytest.raises(SessionTakenOver, match="has started 'server:one' a second time"):
            await soon(serving, 20)
    else:
        serving.cancel()
        await asyncio.wait([serving], timeout=20)
    assert await soon(client.call("who", wait_online=True)) == "second"


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="max_concurrency"):
        ToolServer("server", max_concurrency=0)
    with pytest.raises(ValueError, match="max_concurrency"):
        ToolServer("server", max_concurrency="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="will_delay"):
        ToolServer("server", will_delay=-1)
    with pytest.raises(ValueError, match="mqtt://localhost:1883"):
        ToolServer("server", broker="localhost:1883")


def test_what_cannot_be_a_handler_is_refused_with_the_way_out() -> None:
    server = ToolServer("server")

    async def numbers() -> Any:
        yield 1

    def with_thread(thread: threading.Thread) -> None: ...

    with pytest.raises(TypeError, match="ToolContext"):
        server.add_tool("numbers", numbers)
    with pytest.raises(TypeError, match="'thread: threading.Thread'"):
        server.add_tool("with_thread", with_thread)
    with pytest.raises(TypeError, match=r"@server.tool\(name='forecast'\)"):
        server.tool("forecast")  # type: ignore[call-overload]


async def test_run_without_a_broker_ends_with_one_line() -> None:
    program = "from mqtt_agent import ToolServer; ToolServer('s', broker='mqtt://127.0.0.1:1').run()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=pipe, env=dict(os.environ))
    _, errors = await soon(process.communicate(), 30)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert b"no MQTT broker answers at mqtt://127.0.0.1:1" in errors


async def test_a_context_is_none_of_the_arguments(make_server: MakeServer, make_client: MakeClient) -> None:
    server = make_server()

    @server.tool
    async def tool(ctx: Optional[ToolContext] = None) -> bool:  # noqa: UP045
        return ctx is not None

    await soon(server.start())
    assert await soon((await make_client()).call("tool")) is True


async def test_a_handler_that_awaits_the_stop_of_its_own_server_is_told_at_once(
    make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server()
    ends: list[asyncio.Task[None]] = []

    @server.tool
    async def quit(now: bool) -> str:
        if now:
            await server.stop()
        ends.append(asyncio.create_task(server.stop()))
        return "bye"

    await soon(server.start())
    client = await make_client()
    with pytest.raises(ToolFailed, match=r"a handler of server .* cannot await stop\(\)"):
        await soon(client.call("quit", {"now": True}))
    assert await soon(client.call("quit", {"now": False})) == "bye"
    await soon(ends[0])
