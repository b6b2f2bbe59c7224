"""What may go wrong around large contents: at the client, at the server, and on its disk."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Broker, Mosquitto
from mqtt_agent import Connection, ToolClient, ToolContext, ToolResult, ToolServer
from mqtt_agent.endpoints import listing
from mqtt_agent.errors import CallTimeout, ContentLost, ToolFailed, ToolUnavailable
from mqtt_agent.tools import ContentSettings, ServerRequest, SyncToolContext
from mqtt_agent.tools.calling import contents as calling_contents
from proxy import Proxy
from support import soon, until

from .conftest import MakeClient, MakeServer

RUN_ON = [Mosquitto]
WHOLE = os.urandom(1_200_000)


async def opened(client: ToolClient, server: ToolServer, **options: Any) -> Any:
    shared = await soon(server.share(WHOLE, client.agent_id))
    return await soon(client.open_content(shared.uri, **options))


async def test_a_content_of_a_server_whose_tools_the_client_has_not_called_is_read_after_the_listing(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_LISTED_FOR", 0.05)
    server, client = make_server("files"), await make_client("agent-a")
    await soon(server.start())
    content = await opened(client, server)
    await until(lambda: not client._catalog._listing.active)
    assert client._catalog._listing._ending is not None
    await client._catalog._listing._ending
    assert await soon(content.read()) == WHOLE


async def test_a_chunk_takes_no_longer_than_its_timeout_while_the_network_is_away(
    broker: Broker, make_server: MakeServer, make_client: MakeClient
) -> None:
    server = make_server("files")
    await soon(server.start())
    async with Proxy(broker.url) as proxy:
        client = await make_client("agent-a", broker=proxy.url)
        content = await opened(client, server, timeout=0.5)
        await proxy.cut()
        with pytest.raises(CallTimeout):
            await soon(content.read(), 5)
        await proxy.mend()


async def test_two_saves_of_one_content_to_one_path_leave_its_bytes(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server, client = make_server("files"), await make_client("agent-a")
    await soon(server.start())
    content = await opened(client, server, keep=True)
    path = tmp_path / "all.bin"
    assert await soon(asyncio.gather(content.save(path), content.save(path))) == [path, path]
    assert path.read_bytes() == WHOLE
    assert list(tmp_path.iterdir()) == [path]


async def test_a_content_that_is_lost_is_told_once(make_server: MakeServer, make_client: MakeClient) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    server, client = make_server("files"), await make_client("agent-a")
    await soon(server.start())
    content = await opened(client, server)
    await soon(content.release())
    with pytest.raises(ContentLost):
        await soon(content.read())
    gc.collect()
    assert told == []


async def test_sources_that_wait_keep_no_client_from_reading(make_server: MakeServer, make_client: MakeClient) -> None:
    server, client, go_on = make_server("files"), await make_client("agent-a"), threading.Event()
    await soon(server.start())
    content = await opened(client, server)

    def slow() -> Iterator[bytes]:
        yield b"a"
        go_on.wait()

    sharing = [asyncio.create_task(server.share(slow(), "agent-b")) for _ in range(8)]
    try:
        assert await soon(content.read()) == WHOLE
    finally:
        go_on.set()
        await soon(asyncio.gather(*sharing))


async def test_a_client_with_many_contents_pushes_out_its_own(make_server: MakeServer, make_client: MakeClient) -> None:
    server, client = make_server("files", contents=ContentSettings(max_count=4)), await make_client("agent-a")
    await soon(server.start())
    content = await opened(client, server)
    for _ in range(10):
        await soon(server.share(b"a", "agent-b"))
    assert len(server._contents) == 4
    assert await soon(content.read()) == WHOLE


async def test_a_content_that_was_read_lately_outlives_a_restart(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    client, settings = await make_client("agent-a"), ContentSettings(tmp_path)
    server = make_server("files", replica="a", contents=settings)
    await soon(server.start())
    content = await opened(client, server, keep=True)
    (listed,) = tmp_path.glob("*/*.json")
    listed.write_text(json.dumps({**json.loads(listed.read_text()), "shared": 1.0}))
    os.utime(listed, (1.0, 1.0))  # it was shared long ago
    await soon(content.read())
    await soon(server.stop())
    await soon(make_server("files", replica="a", contents=settings).start())
    assert await soon(content.read()) == WHOLE


async def test_a_server_starts_although_it_may_keep_less_than_before(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    client = await make_client("agent-a")
    server = make_server("files", replica="a", contents=ContentSettings(tmp_path))
    await soon(server.start())
    await opened(client, server)
    await soon(server.stop())
    server = make_server("files", replica="a", contents=ContentSettings(tmp_path, max_bytes=1_000_000))
    await soon(server.start())
    assert len(server._contents) == 0


async def test_a_content_that_cannot_be_listed_leaves_no_file(
    make_server: MakeServer, make_client: MakeClient, tmp_path: Path
) -> None:
    server = make_server("files", replica="a", contents=ContentSettings(tmp_path))

    @server.tool
    async def export(ctx: ToolContext) -> ToolResult:
        return await ctx.share(b"a", name=Path("a.bin"))  # type: ignore[arg-type]

    await soon(server.start())
    with pytest.raises(ToolFailed, match="JSON"):
        await soon((await make_client("agent-a")).call("export", wait_online=True))
    assert not [*tmp_path.glob("*/*.content"), *tmp_path.glob("*/*.new")]


async def test_requests_that_wait_take_little_memory(
    make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client, go_on = make_server("books"), await make_client("agent-a"), asyncio.Event()

    async def answer(request: ServerRequest) -> str:
        await go_on.wait()
        return "done"

    server.answer_requests(answer, {"resources": {}})
    await soon(server.start())
    asked = [asyncio.create_task(client.request("books", "resources/read", {"a": "b" * 900_000})) for _ in range(120)]
    try:
        await until(lambda: len(server._requests._tasks) + sum(task.done() for task in asked) == 120)
        refused = [task for task in asked if task.done()]
        assert len(refused) > 30
        with pytest.raises(ToolUnavailable, match="too many requests of .* wait"):
            await refused[0]
    finally:
        go_on.set()
    ended = await soon(asyncio.gather(*asked, return_exceptions=True))
    assert ended.count("done") == 120 - len(refused)
    assert await soon(client.request("books", "resources/read")) == "done"


class SlowNetwork(Proxy):
    """Lets so many bytes pass down from the broker each second."""

    rate = 400_000

    async def _forward(self, piece: bytes, way: Any) -> None:
        if not way.up:
            await asyncio.sleep(len(piece) / self.rate)
        await super()._forward(piece, way)


async def test_a_content_arrives_over_a_network_that_takes_longer_for_a_chunk_than_the_client_waits(
    broker: Broker, make_server: MakeServer, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling_contents, "_ASK_AGAIN", 0.4)
    server = make_server("files")
    await soon(server.start())
    async with SlowNetwork(broker.url) as network:
        client = await make_client("agent-a", broker=network.url)
        content = await opened(client, server, timeout=15)
        assert await soon(content.read(), 40) == WHOLE
        await soon(client.stop(), 20)


async def test_a_handler_that_outlives_its_server_shares_nothing(broker: Broker, namespace: str) -> None:
    connection = Connection(broker.url)
    server = ToolServer("files", namespace=namespace, connection=connection, drain_timeout=0.1)
    client = ToolClient("agent-a", namespace=namespace, connection=connection)
    go_on, ended = threading.Event(), list[object]()

    @server.tool
    def export(ctx: SyncToolContext) -> None:
        go_on.wait()
        try:
            ended.append(ctx.share(b"a"))
        except BaseException as error:
            ended.append(error)

    async with client:
        async with server:
            await soon(client.submit("export", wait_online=True))
            await until(lambda: server.active_calls)
        try:
            assert not server._requests._subscribed
        finally:
            go_on.set()
        await until(lambda: ended)
        assert "has stopped" in str(ended[0])
        assert not len(server._contents)
        assert not server._requests._subscribed


@pytest.mark.parametrize(
    ("share", "told"),
    [
        ({"source": "/etc/hostname"}, "takes no text"),  # a model may have written it
        ({"source": b"a", "name": "é" * 200}, "the name of a content has more than 255 bytes"),
        ({"source": b"a", "mime_type": "x" * 300}, "the MIME type of a content has more than 255 bytes"),
    ],
)
async def test_a_text_and_a_long_name_are_refused_before_anything_is_kept(
    make_server: MakeServer, make_client: MakeClient, share: dict[str, Any], told: str
) -> None:
    server, client = make_server("files"), await make_client("agent-a")

    @server.tool
    async def shares(ctx: ToolContext) -> ToolResult:
        return await ctx.share(**share)

    await soon(server.start())
    with pytest.raises(ToolFailed, match=told):
        await soon(client.call("shares", wait_online=True))
    assert len(server._contents) == 0
