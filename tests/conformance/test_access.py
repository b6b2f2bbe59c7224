"""Endpoints that have only the rights that docs/wire-format.md names, on a broker that checks these rights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from brokers import Mosquitto, password_line
from mqtt_agent import Password, ToolClient, ToolContext, ToolServer
from support import soon, until

MakeMosquitto = Callable[..., Mosquitto]

SERVER_SPEC = """\
topic write ns/mcp/servers/weather:a/card
topic write ns/mcp/tools/forecast/card
topic write ns/mcp/clients/+/responses
topic write ns/mcp/tools/forecast/stream/+
topic read ns/mcp/tools/forecast/call
"""
SERVER_OURS = """\
topic write ns/mcp/servers/weather:a/query
topic read ns/mcp/servers/+/card
topic read ns/mcp/tools/forecast/card
topic read ns/mcp/tools/forecast/cancel
topic read ns/mcp/servers/weather:a/query
"""
CLIENT_SPEC = """\
topic write ns/mcp/tools/forecast/call
topic read ns/mcp/clients/agent-a/responses
topic read ns/mcp/servers/+/card
topic read ns/mcp/tools/+/card
topic read ns/mcp/tools/+/stream/+
"""
CLIENT_OURS = """\
topic write ns/mcp/clients/agent-a/responses
topic write ns/mcp/tools/forecast/cancel
topic write ns/mcp/servers/+/query
"""


def start(make_mosquitto: MakeMosquitto, client: str) -> Mosquitto:
    return make_mosquitto(
        ["acl_file {folder}/acl", "password_file {folder}/passwords"],
        anonymous=False,
        files={
            "acl": f"user server\n{SERVER_SPEC}{SERVER_OURS}\nuser client\n{client}",
            "passwords": password_line("server", "secret") + password_line("client", "secret"),
        },
        credentials={"username": "client", "password": "secret"},
    )


@pytest.mark.rule("ACCESS-1", "ACCESS-2")
async def test_the_rights_of_the_document_are_enough(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    await use(start(make_mosquitto, CLIENT_SPEC + CLIENT_OURS), cancels=True)
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("mqtt_agent") and record.levelno >= logging.WARNING
    ] == []


@pytest.mark.rule("ACCESS-3")
async def test_a_client_works_with_the_rights_of_the_specification_alone(
    make_mosquitto: MakeMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    await use(start(make_mosquitto, CLIENT_SPEC), cancels=False)
    assert [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("mqtt_agent") and record.levelno >= logging.ERROR
    ] == []


@pytest.mark.rule("DISC-4")
async def test_a_client_without_wildcards_finds_a_tool_by_its_exact_topic(make_mosquitto: MakeMosquitto) -> None:
    rights = CLIENT_SPEC.replace("tools/+/card", "tools/forecast/card").replace(
        "topic read ns/mcp/servers/+/card\n", ""
    )
    broker = start(make_mosquitto, rights)
    server, client = endpoints(broker)
    async with server, client:
        card = await soon(client.get_tool("forecast"))
        assert card is not None
        assert await soon(client.call("forecast", {"city": "Oslo"}, timeout=20), 20) == "Oslo"


def endpoints(broker: Mosquitto) -> tuple[ToolServer, ToolClient]:
    where: dict[str, Any] = {"broker": broker.url, "namespace": "ns"}
    server = ToolServer("weather", replica="a", credentials=Password("server", "secret"), **where)
    client = ToolClient("agent-a", credentials=Password("client", "secret"), **where)

    @server.tool
    async def forecast(city: str, ctx: ToolContext) -> str:
        await ctx.stream(city)
        if city == "nowhere":
            await asyncio.Event().wait()
        return city

    return server, client


async def use(broker: Mosquitto, *, cancels: bool) -> None:
    server, client = endpoints(broker)
    async with server, client:
        assert [card.tool for card in await soon(client.list_tools())] == ["forecast"]
        seen: list[str] = []
        assert await soon(client.call("forecast", {"city": "Oslo"}, on_partial=seen.append)) == "Oslo"
        assert seen == ["Oslo"]
        handle = await soon(client.submit("forecast", {"city": "nowhere"}))
        assert await soon(anext(handle.partials())) == "nowhere"
        await handle.cancel()
        if cancels:
            executor = server._executor
            assert executor is not None
            await until(lambda: executor.active == 0)
        else:
            server._drain_timeout = 0.1
