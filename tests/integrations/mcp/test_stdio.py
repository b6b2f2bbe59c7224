"""The messages of an MCP client over standard input and output, and the end of the process that serves it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator

import mcp_types as types
import pytest
from brokers import Broker
from mcp.shared.message import SessionMessage
from mcp_mqtt_agent import stdio
from mcp_mqtt_agent.lines import LONGEST, Lines
from support import soon

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The client's ends of the pipes."""
    source, told = os.pipe()
    heard, sink = os.pipe()

    @contextlib.contextmanager
    def pipes() -> Iterator[tuple[int, int]]:
        yield source, sink

    monkeypatch.setattr(stdio, "_diverted", pipes)
    yield told, heard
    for each in (told, heard):
        os.close(each)


def hang_up(descriptor: int) -> None:
    """Close an end of a pipe. Its number is not given to another file before the test is over."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)


async def test_messages_go_both_ways_and_an_unreadable_request_gets_an_error(client: tuple[int, int]) -> None:
    told, heard = client
    async with stdio.standard_streams() as (reading, writing):
        text = json.dumps(PING | {"params": {"text": "\u00e9\u2028"}}, ensure_ascii=False).encode()
        os.write(told, text[:40])
        os.write(told, text[40:] + b"\nno JSON\n\n" + b'{"id": 7, "method": 5}\n')
        message = await soon(reading.receive())
        assert isinstance(message, SessionMessage)
        assert isinstance(message.message, types.JSONRPCRequest)
        assert message.message.params == {"text": "\u00e9\u2028"}
        error = json.loads(await soon(asyncio.to_thread(os.read, heard, 10_000)))
        assert (error["id"], error["error"]["code"]) == (7, types.INVALID_REQUEST)
        await soon(writing.send(SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={}))))
        assert json.loads(await soon(asyncio.to_thread(os.read, heard, 10_000)))["result"] == {}


async def test_a_client_that_says_nothing_holds_up_neither_the_end_nor_a_cancellation(client: tuple[int, int]) -> None:
    async def serve(entered: asyncio.Event) -> None:
        async with stdio.standard_streams():
            entered.set()
            await asyncio.Event().wait()

    entered = asyncio.Event()
    serving = asyncio.create_task(serve(entered))
    await soon(entered.wait())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)


async def test_the_end_of_the_client_is_the_end_of_its_messages(client: tuple[int, int]) -> None:
    told, heard = client
    async with stdio.standard_streams() as (reading, writing):
        os.write(told, json.dumps(PING).encode())  # without the end of the line
        hang_up(told)
        assert [type(each) async for each in reading] == [SessionMessage]
        hang_up(heard)
        await soon(writing.send(SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={}))))


def test_lines_are_put_together_and_one_that_is_too_long_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines("a line is left out")
    assert lines.feed(b"one\n\ntw") == [b"one"]
    assert lines.feed(b"o\n") == [b"two"]
    assert lines.feed(b"x" * LONGEST) == lines.feed(b"x") == lines.feed(b"x" * 10) == []
    assert lines.feed(b"x\nthree\n") == [b"three"]
    assert caplog.messages == ["a line is left out"]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_while_its_client_is_silent(
    mosquitto: Broker, namespace: str, number: signal.Signals
) -> None:
    env = {**os.environ, "MQTT_AGENT_BROKER": mosquitto.url, "MQTT_AGENT_NAMESPACE": namespace}
    face = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mqtt_agent.cli", "mcp"), stdin=-1, stdout=-1, env=env
    )
    assert face.stdin is not None
    assert face.stdout is not None
    face.stdin.write(json.dumps(PING).encode() + b"\n")
    assert json.loads(await soon(face.stdout.readline(), 60))["id"] == 1
    face.send_signal(number)
    await soon(face.wait(), 20)
    face.stdin.close()


async def test_streams_that_another_program_has_made_non_blocking_are_waited_for(client: tuple[int, int]) -> None:
    told, heard = client
    with stdio._diverted() as ends:  # pyright: ignore[reportPrivateUsage]
        for each in ends:
            os.set_blocking(each, False)
    text = "x" * 300_000  # more than a pipe holds
    async with stdio.standard_streams() as (reading, writing):
        os.write(told, json.dumps(PING).encode() + b"\n")
        message = await soon(reading.receive())
        assert isinstance(message, SessionMessage)
        await soon(writing.send(SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": text}))))
        heard_all = b""
        while not heard_all.endswith(b"\n"):
            heard_all += await soon(asyncio.to_thread(os.read, heard, 100_000))
        assert json.loads(heard_all)["result"] == {"text": text}
