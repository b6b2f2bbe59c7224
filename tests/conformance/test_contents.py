"""Contents, as an independent peer reads them chunk by chunk, and what everybody else gets."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any
from urllib.parse import unquote

import pytest
from brokers import ALL_BROKERS, Ejabberd, Embedded, Mosquitto
from mqtt_agent import ToolClient, ToolContext, ToolResult, ToolServer
from mqtt_agent.errors import ContentLost, ToolUnavailable
from mqtt_agent.tools import ContentSettings
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, InboundMessage, PublishProperties
from support import becomes, soon, until

from ..tools.conftest import MakeClient, MakeServer
from .stranger import NOW, Stranger, StrangeServer

RUN_ON = ALL_BROKERS
LONG_ON = [Ejabberd, Embedded]
BYTES = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BYTES).hexdigest()


def sharing(server: ToolServer, of: bytes = BYTES) -> ToolServer:
    """Offer the tool ``export``, whose result is a content."""

    @server.tool
    async def export(ctx: ToolContext) -> ToolResult:
        return await ctx.share(of, name="all.bin", mime_type="application/x-all")

    return server


def chunks(stranger: Stranger, request_id: str) -> list[tuple[dict[str, Any], bytes, InboundMessage]]:
    """The chunks that have answered a request: header, bytes, message."""
    found: list[tuple[dict[str, Any], bytes, InboundMessage]] = []
    for message in stranger.seen:
        if message.payload[:1] == b"\0":
            header, _, data = message.payload[1:].partition(b"\n")
            if json.loads(header)["call_id"] == request_id:
                found.append((json.loads(header), data, message))
    return found


def error(stranger: Stranger, request_id: str) -> str | None:
    """The code of the error that has answered a request."""
    for message in stranger.seen:
        if message.payload[:1] == b"{":
            answer = json.loads(message.payload)
            if answer.get("call_id") == request_id and answer.get("status") == "error":
                return answer["error"].get("code", answer["error"]["type"])
    return None


async def read(stranger: Stranger, topic: str, request_id: str, method: str = "contents/read", **params: Any) -> None:
    request = {"request_id": request_id, "method": method, "params": params, "client": "stranger"}
    await stranger.tell(topic, request)


async def shared(stranger: Stranger) -> str:
    """Call ``export`` on a plain topic; returns the id of the content."""
    await stranger.call("export", "call-1")
    answer = await stranger.answer("call-1")
    return answer["result"]["uri"].rpartition("/")[2]


@pytest.mark.rule("CONTENT-1", "CONTENT-2", "CONTENT-3", "CONTENT-4", "CONTENT-5", "CONTENT-7", "CONTENT-8")
async def test_a_content_is_read_in_chunks_at_any_offset_and_released(
    stranger: Stranger, make_server: MakeServer
) -> None:
    await soon(sharing(make_server("files", replica="a")).start())
    await stranger.call("export", "call-1")
    answer = await stranger.answer("call-1")
    about = {"size": len(BYTES), "name": "all.bin", "mimeType": "application/x-all"}
    uri = answer["result"]["uri"]
    assert answer["result"] == {"uri": uri, "sha256": SHA256, **about}
    assert answer["content"] == [{"type": "resource_link", "uri": uri, **about}]
    scheme, _, rest = uri.partition("/")
    server, _, content_id = rest.partition("/")
    assert (scheme, unquote(server)) == ("mqtt-agent:content", "files:a")
    topic = "servers/files:a/request"
    for number, (offset, length) in enumerate([(9000, 9000), (0, 4096), (0, 0), (20_000, 1)]):
        await read(stranger, topic, str(number), id=content_id, offset=offset, length=length)
        await until(lambda number=number: chunks(stranger, str(number)))
        header, data, message = chunks(stranger, str(number))[0]
        assert header == {
            "call_id": str(number),
            "server": "files:a",
            "offset": offset,
            "size": len(BYTES),
            "sha256": SHA256,
            "name": "all.bin",
            "mime_type": "application/x-all",
        }
        assert data == BYTES[offset : offset + length]
        assert message.content_type in ("application/octet-stream", None)
        assert message.message_expiry is None or message.message_expiry <= 60
    await read(stranger, topic, "other", id="0" * 32, offset=0, length=1)
    await until(lambda: error(stranger, "other") == "CONTENT_GONE")
    await read(stranger, topic, "odd", id=content_id, offset=-1, length=True)
    await until(lambda: error(stranger, "odd") == "invalid_arguments")
    await read(stranger, topic, "done", "contents/release", id=content_id)
    await until(lambda: [m for m in stranger.seen if m.payload[:1] == b"{" and b'"done"' in m.payload])
    await read(stranger, topic, "late", id=content_id, offset=0, length=1)
    await until(lambda: error(stranger, "late") == "CONTENT_GONE")


@pytest.mark.rule("CONTENT-6")
async def test_nobody_but_the_caller_reads_or_releases_a_content(
    stranger: Stranger, make_server: MakeServer, make_client: MakeClient
) -> None:
    await soon(sharing(make_server("files", replica="a")).start())
    client, other = await make_client("agent-a"), await make_client("agent-b")
    reference = await soon(client.call("export", wait_online=True))
    content_id = reference["uri"].rpartition("/")[2]
    with pytest.raises(ContentLost, match="keeps no such content for agent-b"):
        await soon(other.open_content(reference))
    everything = {"id": content_id, "offset": 0, "length": 9}
    await stranger.listen("clients/+/responses")
    await stranger.listen("clients/+/responses/+")
    # On the plain topic, a stranger says that it is the caller. On its own bound topic, it cannot say so.
    await stranger.tell(
        "servers/files:a/request",
        {"request_id": "plain", "method": "contents/read", "params": everything, "client": "agent-a"},
    )
    await until(lambda: error(stranger, "plain") == "CONTENT_GONE")
    await stranger.tell(
        "servers/files:a/request/stranger",
        {"request_id": "bound", "method": "contents/read", "params": everything, "client": "agent-a"},
    )
    await stranger.tell(
        "servers/files:a/request/stranger",
        {"request_id": "own", "method": "contents/release", "params": everything, "client": "stranger"},
    )
    await until(lambda: error(stranger, "own") == "CONTENT_GONE")
    assert not chunks(stranger, "bound")
    assert error(stranger, "bound") is None, "a request in the name of another client is not answered at all"
    content = await soon(client.open_content(reference))
    assert await soon(content.read()) == BYTES


@pytest.mark.rule("CONTENT-6")
async def test_a_plain_content_is_also_read_on_the_bound_topic_of_its_caller(
    stranger: Stranger, make_server: MakeServer
) -> None:
    await soon(sharing(make_server("files", replica="a")).start())
    content_id = await shared(stranger)
    await stranger.listen("clients/stranger/responses/+")
    await read(stranger, "servers/files:a/request/stranger", "1", id=content_id, offset=0, length=5)
    await until(lambda: chunks(stranger, "1"))
    assert chunks(stranger, "1")[0][2].topic.endswith("/clients/stranger/responses/files:a")


@pytest.mark.rule("CONTENT-9", "CONTENT-10")
async def test_a_server_takes_requests_from_its_first_content_on_and_a_restart_loses_the_content(
    mosquitto: Mosquitto, namespace: str
) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    topic = f"{namespace}/mcp/servers/files:a/request"
    async with ToolClient("agent-a", **where) as client:
        async with sharing(ToolServer("files", replica="a", **where)):
            assert await soon(client.connection.publish(topic, b"{}")) == NO_MATCHING_SUBSCRIBERS
            reference = await soon(client.call("export", wait_online=True))
            assert await soon(client.connection.publish(topic, b"{}")) == 0
            content = await soon(client.open_content(reference))
        async with ToolServer("files", replica="a", **where):
            with pytest.raises(ContentLost, match="was lost with its process"):
                await soon(content.read())


@pytest.mark.rule("CONTENT-3", "CONTENT-5")
async def test_a_client_asks_for_few_chunks_ahead_and_for_the_rest_of_a_short_one(
    strange_server: StrangeServer, make_client: MakeClient
) -> None:
    """A server of another kind, which answers when the test says so."""
    asked: list[dict[str, Any]] = []
    mebi = 1024 * 1024
    content = bytes(3 * mebi)

    async def answer(request: dict[str, Any], **header: Any) -> None:
        offset, length = request["params"]["offset"], request["params"]["length"]
        about = {"call_id": request["request_id"], "server": "odd", "offset": offset, "size": len(content)}
        about |= {"sha256": hashlib.sha256(content).hexdigest(), **header}
        payload = b"\0" + json.dumps(about).encode() + b"\n" + content[offset : offset + min(length, mebi // 8)]
        inbox = f"{strange_server.mcp}/clients/agent-a/responses"
        await strange_server.connection.publish(inbox, payload, properties=PublishProperties(content_type=None))

    topic = f"{strange_server.mcp}/servers/odd/request"
    await strange_server.connection.subscribe(topic, lambda message: asked.append(json.loads(message.payload)))
    await strange_server.show(started=NOW)
    client = await make_client("agent-a")

    async def is_seen() -> bool:
        return bool(await client.list_servers())

    await becomes(is_seen)
    opening = asyncio.ensure_future(client.open_content("mqtt-agent:content/odd/abc"))
    await until(lambda: len(asked) == 1)
    assert asked[0]["params"] == {"id": "abc", "offset": 0, "length": 0}
    await answer(asked[0], call_id="another")
    await answer(asked[0])
    found = await soon(opening)
    reading = asyncio.ensure_future(anext(aiter(found)))
    await until(lambda: len(asked) == 5)
    offsets = [request["params"]["offset"] for request in asked[1:]]
    assert offsets == [number * asked[1]["params"]["length"] for number in range(4)]
    await answer(asked[1])
    await until(lambda: len(asked) == 6)
    assert asked[5]["params"]["offset"] == mebi // 8, "the first chunk was shorter than asked for, so its rest follows"
    await answer(asked[5])
    assert len(await soon(reading)) == asked[1]["params"]["length"]


@pytest.mark.rule("CONTENT-10")
async def test_contents_of_a_named_replica_are_there_again_after_its_restart(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Any
) -> None:
    kept = ContentSettings(directory=tmp_path)
    first = sharing(make_server("files", replica="a", contents=kept))
    await soon(first.start())
    client = await make_client("agent-a")
    reference = await soon(client.call("export", wait_online=True))
    await soon(first.stop())
    with pytest.raises(ToolUnavailable, match="this server is offline"):
        await soon(client.open_content(reference, timeout=0.1))
    opening = asyncio.ensure_future(client.open_content(reference))
    await soon(sharing(make_server("files", replica="a", contents=kept)).start())
    content = await soon(opening)
    assert await soon(content.read()) == BYTES
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "a content that was read is deleted"
    with pytest.raises(ValueError, match="needs replica="):
        make_server("files", contents=kept)
