"""Faults that users of other bridges have reported; the table in docs/mcp.md names where."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx2
import pytest
from brokers import Broker
from mcp import Client
from mcp_mqtt_agent import Face
from mcp_mqtt_agent.http_face import HTTPFaces, serve_http
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.adapting.bearers import Identity
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.errors import ToolUnavailable
from support import becomes, soon

from .conftest import ANYTHING, MakeBridge, OddServer, shows

pytestmark = pytest.mark.long


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": ANYTHING, **more}


@pytest.mark.parametrize("stuck", [False, True])
async def test_all_pages_of_a_list_are_offered_also_when_the_last_cursor_leads_nowhere(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer, stuck: bool
) -> None:
    odd.path.write_text(json.dumps({"pages": [[tool("a")], [tool("b")], [tool("c")]], "stuck": stuck}))
    await make_bridge("odd", odd.command)
    await shows(client, "odd.a", "odd.b", "odd.c")


async def test_everything_that_describes_a_tool_and_its_result_reaches_the_mcp_client(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    icons = [{"src": "https://x.example/icon.png", "mimeType": "image/png", "sizes": ["48x48"]}]
    hints = {"title": "Meta!", "readOnlyHint": True, "destructiveHint": False, "openWorldHint": False}
    odd.offer(tool("meta", title="The meta", icons=icons, annotations=hints, _meta={"ui": {"resourceUri": "ui://a"}}))
    await make_bridge("odd", odd.command)
    await shows(client, "odd.meta")
    for mode in ("legacy", "auto"):
        face = Face(client)
        async with face.live(), Client(face.server, mode=mode) as peer:
            [shown] = (await soon(peer.list_tools())).tools
            seen = shown.model_dump(by_alias=True, exclude_none=True)
            assert (seen["title"], seen["icons"], seen["annotations"]) == (
                "The meta",
                icons,
                hints | {"title": "The meta"},
            )
            assert seen["_meta"]["ui"] == {"resourceUri": "ui://a"}
            result = await soon(peer.call_tool(shown.name, {}))
            assert (result.meta or {})["ui"] == {"uri": "ui://a"}


async def test_an_error_keeps_its_flag_its_words_and_its_structured_content(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("shows", "shows_data")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.shows", "odd.shows_data")
    face = Face(client)
    async with face.live(), Client(face.server) as peer:
        shown: Any = await soon(peer.call_tool(model_name("odd.shows"), {}))
        assert (shown.is_error, shown.content[0].text, shown.structured_content) == (True, "broken", {"page": 7})
        bare: Any = await soon(peer.call_tool(model_name("odd.shows_data"), {}))
        assert (bare.is_error, bare.structured_content) == (True, {"code": "RATE_LIMITED", "retry_after": 30})
        assert "RATE_LIMITED" in bare.content[0].text


async def test_a_schema_that_names_no_type_and_a_name_that_begins_with_a_line_are_offered(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    either = {"anyOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]}
    odd.offer({"name": "_either", "inputSchema": either}, "echo")
    await make_bridge("odd", odd.command, prefix="")
    await shows(client, "_either", "echo")
    face = Face(client)
    async with face.live(), Client(face.server) as peer:
        shown = {each.name: each.input_schema for each in (await soon(peer.list_tools())).tools}
        assert set(shown) == {model_name("_either"), model_name("echo")}
        assert shown[model_name("_either")] == {"type": "object", **either}
        result: Any = await soon(peer.call_tool(model_name("_either"), {"b": 1}))
        assert json.loads(result.content[0].text) == {"b": 1}


async def test_text_in_every_script_goes_through_whatever_the_locale_of_the_server_is(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("echo")
    await make_bridge("odd", odd.command, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"})
    await shows(client, "odd.echo")
    given = {"тест": "Đường → ★ 文件 🎉 \u2028 \x7f"}
    assert json.loads(await soon(client.call("odd.echo", given))) == given


async def test_one_server_that_is_down_hides_no_other(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("echo", "die")
    await make_bridge("good", odd.command)
    await make_bridge("bad", odd.command)
    await shows(client, "bad.die", "bad.echo", "good.die", "good.echo")
    odd.path.write_text("no JSON")  # a server that is started again ends at once
    face = Face(client)
    async with face.live(), Client(face.server) as peer:
        with pytest.raises(ToolUnavailable):
            await soon(client.call("bad.die"))

        async def shows_the_good_one() -> bool:
            names = {each.name for each in (await peer.list_tools()).tools}
            return names == {model_name("good.die"), model_name("good.echo")}

        await becomes(shows_the_good_one, 20)
        result: Any = await soon(peer.call_tool(model_name("good.echo"), {"a": 1}))
        assert json.loads(result.content[0].text) == {"a": 1}


async def test_two_mcp_clients_at_once_get_their_own_answers_and_a_second_stream_ends_nothing(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer, mosquitto: Broker, namespace: str
) -> None:
    odd.offer("echo")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.echo")
    ports: asyncio.Queue[int] = asyncio.Queue()
    faces = HTTPFaces([Identity("peer")], lambda _: ToolClient("peer", broker=mosquitto.url, namespace=namespace))
    serving = asyncio.create_task(serve_http(faces, "127.0.0.1", 0, ports.put_nowait))
    url = f"http://127.0.0.1:{await soon(ports.get(), 60)}/mcp"

    async def use(peer: Client, number: int) -> None:
        result: Any = await peer.call_tool(model_name("odd.echo"), {"n": number})
        assert json.loads(result.content[0].text) == {"n": number}

    async with Client(url, mode="legacy") as first, Client(url, mode="legacy") as second, Client(url) as third:

        async def sees_it() -> bool:
            return bool((await third.list_tools()).tools)

        await becomes(sees_it, 20)
        peers = (first, second, third)
        await soon(asyncio.gather(*(use(peers[number % 3], number) for number in range(60))), 30)
    async with httpx2.AsyncClient(timeout=20) as http:
        accept = {"Accept": "application/json, text/event-stream"}
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
        answer = await http.post(url, json=hello, headers=accept)
        own = accept | {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        await http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=own)
        async with contextlib.AsyncExitStack() as streams:
            opened = [await streams.enter_async_context(http.stream("GET", url, headers=own)) for _ in range(2)]
            assert [each.status_code for each in opened] == [200, 409]
        listed = await http.post(url, json={"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, headers=own)
        assert "odd_echo" in listed.text
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_a_result_of_data_alone_has_a_text_and_the_marks_of_a_block_are_kept(
    make_bridge: MakeBridge, client: ToolClient, odd: OddServer
) -> None:
    odd.offer("data_only", "marked")
    await make_bridge("odd", odd.command)
    await shows(client, "odd.data_only", "odd.marked")
    for mode in ("legacy", "auto"):
        face = Face(client)
        async with face.live(), Client(face.server, mode=mode) as peer:
            data: Any = await soon(peer.call_tool(model_name("odd.data_only"), {}))
            assert data.structured_content == {"memories": ["one"]}
            assert json.loads(data.content[0].text) == {"memories": ["one"]}
            marked: Any = await soon(peer.call_tool(model_name("odd.marked"), {}))
            [block] = marked.model_dump(by_alias=True, exclude_none=True)["content"]
            marks = {"audience": ["user"], "priority": 0.9, "lastModified": "2026-01-01T00:00:00Z"}
            assert block == {"type": "text", "text": "for people", "annotations": marks}


async def test_each_progress_value_that_a_client_gets_is_greater_than_the_one_before(
    client: ToolClient, mosquitto: Broker, namespace: str
) -> None:
    async def count(ctx: ToolContext) -> str:
        for value in (5, 5, 3, 10):
            await ctx.progress(value, 10)
        return "counted"

    server = ToolServer("counter", broker=mosquitto.url, namespace=namespace)
    server.add_tool("count", count)
    async with server:
        await shows(client, "count")
        for mode in ("legacy", "auto"):
            face, heard = Face(client), list[float]()

            async def hear(progress: float, total: float | None, message: str | None) -> None:
                heard.append(progress)  # noqa: B023

            async with face.live(), Client(face.server, mode=mode) as peer:
                await soon(peer.call_tool("count", {}, progress_callback=hear), 20)
            assert heard == [5, 10]
