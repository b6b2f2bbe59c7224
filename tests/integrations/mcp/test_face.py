"""The tools of a namespace as MCP clients see and call them, over standard input and over HTTP, in both protocols."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from brokers import Broker, free_port
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_mqtt_agent.call_results import failed_call
from mcp_types import ToolListChangedNotification
from mqtt_agent import ToolContext, ToolError, ToolResult, ToolServer
from mqtt_agent.errors import ToolFailed
from mqtt_agent.wire import ToolCard
from support import becomes, kill, soon

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])
BLOCKS = [{"type": "image", "data": "QUJD", "mimeType": "image/png"}]


@pytest.fixture
async def server(mosquitto: Broker, namespace: str) -> AsyncIterator[ToolServer]:
    server = ToolServer("weather", broker=mosquitto.url, namespace=namespace)

    @server.tool(read_only=True)
    async def forecast(city: str, ctx: ToolContext) -> dict[str, Any]:
        """Weather forecast for a city."""
        await ctx.progress(1, 2, "looking")
        return {"city": city}

    @server.tool
    async def picture() -> ToolResult:
        return ToolResult("", BLOCKS, structured=False)

    @server.tool
    async def fails(code: str | None = None) -> None:
        raise ToolError("no wind", code=code, content=None if code else BLOCKS, data={"a": 1})

    @server.tool(name="files.count")
    async def count() -> int:
        return 7

    @server.tool
    async def hang(ctx: ToolContext) -> None:
        await ctx.progress(1)
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()

    canceled = asyncio.Event()
    server.canceled = canceled  # type: ignore[attr-defined]
    async with server:
        yield server


@pytest.fixture
def face(mosquitto: Broker, namespace: str) -> StdioServerParameters:
    env = {**os.environ, "MQTT_AGENT_BROKER": mosquitto.url, "MQTT_AGENT_NAMESPACE": namespace}
    return StdioServerParameters(command=sys.executable, args=["-m", "mqtt_agent.cli", "mcp"], env=env)


@MODES
async def test_a_client_lists_and_calls_the_tools_over_standard_input(
    server: ToolServer, face: StdioServerParameters, mode: str
) -> None:
    async with Client(face, mode=mode) as client:
        tools = {tool.name: tool for tool in (await soon(client.list_tools(), 30)).tools}
        assert {"forecast", "picture", "fails", "hang"} < set(tools)
        assert tools["forecast"].description == "Weather forecast for a city."
        assert tools["forecast"].annotations is not None
        assert tools["forecast"].annotations.read_only_hint is True
        heard: list[Any] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        result = await soon(client.call_tool("forecast", {"city": "Oslo"}, progress_callback=hear), 30)
        assert result.structured_content == {"city": "Oslo"}
        assert heard == [(1, 2, "looking")]
        picture = await soon(client.call_tool("picture", {}))
        assert (picture.content[0].type, picture.structured_content) == ("image", None)
        [count] = [name for name in tools if name.startswith("files_count")]
        counted = (await soon(client.call_tool(count, {}))).content[0]
        assert counted.type == "text"
        assert counted.text == "7"
        failed = await soon(client.call_tool("fails", {}))
        assert (failed.is_error, failed.content[0].type, failed.structured_content) == (True, "image", {"a": 1})
        wrong = await soon(client.call_tool("forecast", {"town": 1}))
        assert wrong.is_error
        with pytest.raises(MCPError, match="no wind") as fault:
            await soon(client.call_tool("fails", {"code": "-32050"}))
        assert (fault.value.code, fault.value.data) == (-32050, {"a": 1})
        with pytest.raises(MCPError, match="Unknown tool"):
            await soon(client.call_tool("nothing", {}))


@MODES
async def test_a_client_hears_of_new_tools_and_its_cancel_reaches_the_handler(
    server: ToolServer, face: StdioServerParameters, mode: str
) -> None:
    changed = asyncio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            changed.set()

    async with Client(face, mode=mode, message_handler=on_message) as client:
        await soon(client.list_tools(), 30)
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.tools.list_changed is True
        if mode == "legacy":
            await server.add_tool("new", lambda: 1)
            await soon(changed.wait(), 20)
        else:
            async with client.listen(tools_list_changed=True) as changes:
                await server.add_tool("new", lambda: 1)
                await soon(changes.__anext__(), 20)
        assert "new" in [tool.name for tool in (await client.list_tools()).tools]
        begun = asyncio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        calling = asyncio.ensure_future(client.call_tool("hang", {}, progress_callback=hear))
        await soon(begun.wait(), 20)
        calling.cancel()
        await soon(server.canceled.wait(), 20)  # type: ignore[attr-defined]


@pytest.fixture
def http(face: StdioServerParameters, tmp_path: Path) -> Iterator[str]:
    port, secret = free_port(), tmp_path / "secret"
    secret.write_text("s3cret\n")
    command = [face.command, *face.args, "--http", str(port), "--bearer-file", str(secret)]
    process = subprocess.Popen(command, env=face.env)
    yield f"http://127.0.0.1:{port}/mcp"
    kill(process)


async def test_over_http_only_a_client_with_the_token_from_an_allowed_origin_is_served(
    server: ToolServer, http: str
) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepts = {"Accept": "application/json, text/event-stream"}
    token = {"Authorization": "Bearer s3cret"}
    async with httpx2.AsyncClient() as plain:
        answered: list[int] = []

        async def ask(**headers: str) -> int:
            try:
                return (await plain.post(http, json=ping, headers={**accepts, **headers})).status_code
            except httpx2.TransportError:
                return 0

        async def is_up() -> bool:
            answered.append(await ask())
            return answered[-1] != 0

        await becomes(is_up, 60)
        assert answered[-1] == 401
        assert await ask(Authorization="Bearer wrong") == 401
        assert await ask(**token, Host="evil.example") == 421
        assert await ask(**token, Origin="https://evil.example") == 403
    for mode in ("legacy", "auto"):
        async with httpx2.AsyncClient(headers=token) as own:
            async with Client(streamable_http_client(http, http_client=own), mode=mode) as client:
                result = await soon(client.call_tool("forecast", {"city": "Oslo"}), 30)
                assert result.structured_content == {"city": "Oslo"}
                assert client.server_capabilities.tools is not None
                assert client.server_capabilities.tools.list_changed is True


def test_without_a_token_only_this_machine_is_served(face: StdioServerParameters) -> None:
    command = [face.command, *face.args, "--http", "1", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=face.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--bearer-file" in done.stderr


def test_data_of_an_error_that_does_not_fit_the_output_schema_is_no_structured_content() -> None:
    output = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for schema, data, structured in (
        (output, {"why": "x"}, False),  # the official client in TypeScript would show an error of its own
        (output, {"n": 1}, True),
        ({"type": "array"}, {"why": "x"}, True),  # clients are not shown this schema
        (None, {"why": "x"}, True),
        ({"type": "object", "minProperties": "x"}, {"why": "x"}, False),
    ):
        card = ToolCard(tool="t", server="s", input_schema={"type": "object"}, output_schema=schema)
        answer = failed_call(ToolFailed("no luck", data=data), None, card)
        assert (answer["content"][0]["text"], answer["isError"]) == ("no luck", True)
        shown = {"structuredContent": data} if structured else {"_meta": {"mqtt-agent/data": data}}
        assert {key: answer.get(key) for key in shown} == shown
        assert ("structuredContent" in answer) is structured
