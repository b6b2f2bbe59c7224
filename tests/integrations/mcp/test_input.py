"""Questions and log messages of an MCP server reach the caller over MQTT, and questions of tools reach MCP clients."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker
from mcp import Client
from mcp_mqtt_agent import Face, callers
from mcp_mqtt_agent.naming import mqtt_name
from mcp_types import (
    LOG_LEVEL_META_KEY,
    ElicitRequestParams,
    ElicitResult,
    EmptyResult,
    LoggingMessageNotificationParams,
    RequestParamsMeta,
    SetLevelRequest,
    SetLevelRequestParams,
)
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.errors import ToolFailed
from mqtt_agent.tools import CallQuestion, Elicited
from mqtt_agent.wire import StreamMessage, is_identifier
from support import soon, until

from .conftest import SDK_SERVER, MakeBridge, OddServer, shows

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
OSLO = {"action": "accept", "content": {"city": "Oslo"}}


async def test_a_question_of_a_server_of_2025_goes_to_the_caller_whose_call_asks(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "_CLEAR_WITHIN", 1.0)
    odd.offer("ask", "silent", "echo")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.ask", "odd.echo", "odd.silent")
    asked = list[CallQuestion]()

    def answer(question: CallQuestion) -> dict[str, str]:
        asked.append(question)
        return {"city": "Oslo"}

    assert json.loads(await soon(client.call("odd.ask", {"n": 1}, on_question=answer))) == OSLO
    assert (asked[0].prompt, asked[0].params["requestedSchema"]["type"]) == ("Which city?", "object")
    declined = await soon(client.call("odd.ask", {"n": 2}, on_question=lambda question: Elicited("decline")))
    assert json.loads(declined) == {"action": "decline"}
    refused = await soon(client.call("odd.ask", {"n": 3}))
    assert "call it with on_question=" in json.loads(refused)["message"]

    other = await soon(client.submit("odd.silent", {}, on_question=answer))
    asking = await soon(client.submit("odd.ask", {"n": 4}, on_question=answer))
    await until(lambda: asking.server is not None and other.server is not None)
    await other.cancel()  # the server may go on with it, so nobody knows which of them asks
    assert "does not say which call asks" in json.loads(await soon(asking.result()))["message"]
    assert len(asked) == 1


async def test_a_question_of_a_server_of_2026_goes_to_the_caller_of_its_call(
    make_bridge: MakeBridge, client: ToolClient
) -> None:
    await make_bridge("sdk", SDK_SERVER)

    async def book(day: str) -> Any:
        return await client.call("sdk.book", {"day": day}, on_question=lambda question: {"seat": f"{day}1"})

    assert await soon(asyncio.gather(book("a"), book("b")), 20) == [{"result": "a: a1"}, {"result": "b: b1"}]
    with pytest.raises(ToolFailed):
        await soon(client.call("sdk.book", {"day": "c"}))


async def test_log_messages_of_a_server_reach_the_caller_that_wants_them(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("log")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.log")
    logs = list[StreamMessage]()
    assert await soon(client.call("odd.log", on_log=logs.append, log_level="warning")) == "logged"
    await until(lambda: logs)
    assert [(log.level, log.logger, log.data) for log in logs] == [("error", "odd", ["error"])]
    assert Path(f"{odd.path}.level").read_text() == "warning"


def test_a_name_of_any_text_becomes_a_name_that_a_topic_can_hold() -> None:
    odd = ("$sys", "a/b", "a#", "\x00", "\ufdd0", "\U0001fffe", "\ud800", "\ufeff", "ok", "\u65e5.b", "x" * 400)
    for text in odd:
        assert is_identifier(mqtt_name("p.", text))
        assert is_identifier(mqtt_name("", text))


@pytest.fixture
async def asking(mosquitto: Broker, namespace: str) -> Any:
    server = ToolServer("travel", broker=mosquitto.url, namespace=namespace)

    @server.tool
    async def book(day: str, ctx: ToolContext) -> str:
        first = await ctx.ask("From where?")
        given = await ctx.elicit("To where?", {"type": "object", "properties": {"city": {"type": "string"}}})
        return f"{day}: {first} {given.action} {given.content}"

    async with server:
        yield server


@MODES
async def test_an_mcp_client_is_asked_what_a_tool_asks(asking: ToolServer, client: ToolClient, mode: str) -> None:
    face, asked = Face(client), list[str]()

    async def answer(context: Any, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        if params.message == "From where?":
            return ElicitResult(action="accept", content={"answer": "Oslo"})
        return ElicitResult(action="decline")

    async with face.live():
        async with Client(face.server, mode=mode, elicitation_callback=answer) as peer:
            result = await soon(peer.call_tool("book", {"day": "today"}), 20)
            assert result.content[0].type == "text"
            assert result.content[0].text == "today: Oslo decline None"
            assert asked == ["From where?", "To where?"]
        async with Client(face.server, mode=mode) as silent:
            result = await soon(silent.call_tool("book", {"day": "today"}), 20)
            assert (result.is_error, "on_question=" in str(result.content)) == (True, True)


@MODES
async def test_an_mcp_client_gets_the_log_messages_of_its_calls(
    mosquitto: Broker, namespace: str, client: ToolClient, mode: str
) -> None:
    server = ToolServer("chatty", broker=mosquitto.url, namespace=namespace)

    @server.tool
    async def talk(ctx: ToolContext) -> str:
        await ctx.log("info", "too much")
        await ctx.log("warning", {"disk": "full"}, "chatty")
        await ctx.log("error", "the end")
        return "said"

    face, said = Face(client), list[Any]()

    async def hear(params: LoggingMessageNotificationParams) -> None:
        said.append((params.level, params.logger, params.data))

    async with server, face.live(), Client(face.server, mode=mode, logging_callback=hear) as peer:
        assert peer.server_capabilities.logging is not None
        meta = RequestParamsMeta({LOG_LEVEL_META_KEY: "warning"}) if mode == "auto" else None
        result = await soon(peer.call_tool("talk", {}), 20)
        assert (result.content[0].type, said) == ("text", [])  # nobody has asked for them
        if mode == "legacy":
            level = SetLevelRequest(params=SetLevelRequestParams(level="warning"))
            await soon(peer.session.send_request(level, EmptyResult))
        await soon(peer.call_tool("talk", {}, meta=meta), 20)
        await until(lambda: len(said) == 2)
        assert said == [("warning", "chatty", {"disk": "full"}), ("error", None, "the end")]
