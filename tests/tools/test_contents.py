"""Large contents between our endpoints, over a Mosquitto that takes only small packets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import mqtt_agent.sync
import pytest
from brokers import Mosquitto
from mqtt_agent import ToolClient, ToolContext, ToolResult, ToolServer
from mqtt_agent.errors import CallTimeout, ContentLost, ToolFailed, ToolUnavailable, WireError
from mqtt_agent.identity import Audit, Identity, PrivateKey, TrustedKeys
from mqtt_agent.tools import ContentSettings, ServerRequest
from support import kill, soon, until

PROGRAMS = Path(__file__).parents[1] / "programs"
PACKET = 256 * 1024
MEBI = 1024 * 1024
PIECES = [os.urandom(300_000) for _ in range(4)]
WHOLE = b"".join(PIECES)


@pytest.fixture
def small_packets(make_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    return make_mosquitto([f"max_packet_size {PACKET}"])


@contextlib.asynccontextmanager
async def both(broker: Mosquitto, **options: Any) -> AsyncIterator[tuple[ToolServer, ToolClient]]:
    """A server whose tools share the same bytes in all ways, and a client."""
    server = ToolServer("files", broker=broker.url, **options)

    @server.tool
    async def share(how: str, ctx: ToolContext) -> ToolResult:
        async def generated() -> AsyncIterator[bytes]:
            for piece in PIECES:
                yield piece

        return await ctx.share({"bytes": WHOLE, "generator": generated(), "file": io.BytesIO(WHOLE)}[how])

    @server.tool
    async def share_path(path: str, ctx: ToolContext) -> dict[str, Any]:
        shared = await ctx.share(Path(path), mime_type="text/x-all")
        return {"rows": 12, "table": shared.result}

    async with server, ToolClient("agent-a", broker=broker.url, namespace=server.namespace) as client:
        yield server, client


async def test_bytes_a_generator_and_a_file_arrive_whole_over_small_packets(
    small_packets: Mosquitto, tmp_path: Path
) -> None:
    async with both(small_packets) as (_, client):
        for how in ("bytes", "generator", "file"):
            content = await soon(client.open_content(await client.call("share", {"how": how}, wait_online=True)))
            assert (content.size, content.sha256) == (len(WHOLE), hashlib.sha256(WHOLE).hexdigest())
            assert await soon(content.read()) == WHOLE
            with pytest.raises(ContentLost, match="it was released"):
                await soon(client.open_content(content.uri))
        path = tmp_path / "all.bin"
        path.write_bytes(WHOLE)
        result = await client.call("share_path", {"path": str(path)})
        content = await soon(client.open_content(result["table"], keep=True))
        assert (content.name, content.mime_type) == ("all.bin", "text/x-all")
        assert [len(piece) <= PACKET async for piece in content] == [True] * 5
        assert b"".join([piece async for piece in content.chunks(1_000_000)]) == WHOLE[1_000_000:]
        with pytest.raises(ValueError, match="larger than max_bytes=1,000: iterate over it"):
            await content.read(max_bytes=1000)
        path.write_bytes(WHOLE[::-1])
        with pytest.raises(ContentLost, match="has changed since it was shared"):
            await soon(content.read())
        with pytest.raises(WireError, match="is not the URI of a content"):
            await client.open_content("https://trips.example/all.bin")
        with pytest.raises(ValueError, match="refers to no content"):
            await client.open_content({"rows": 12})


async def test_a_server_keeps_a_bounded_number_of_contents_and_bytes_for_a_while(small_packets: Mosquitto) -> None:
    async with both(small_packets, contents=ContentSettings(max_count=2)) as (server, client):
        first, second, third = [await client.call("share", {"how": "bytes"}, wait_online=True) for _ in range(3)]
        with pytest.raises(ContentLost, match="had to make room"):
            await soon(client.open_content(first))
        await soon(client.open_content(second))  # now the third was not read for the longest time
        await client.call("share", {"how": "bytes"})
        with pytest.raises(ContentLost, match="had to make room"):
            await soon(client.open_content(third))
        assert await soon((await client.open_content(second)).read()) == WHOLE
    async with both(small_packets, contents=ContentSettings(max_bytes=3_000_000)) as (server, client):
        for _ in range(3):
            await client.call("share", {"how": "bytes"}, wait_online=True)
        assert len(server._contents) == 2
    async with both(small_packets, contents=ContentSettings(max_age=0.1)) as (server, client):
        reference = await client.call("share", {"how": "bytes"}, wait_online=True)
        await until(lambda: not len(server._contents))
        with pytest.raises(ContentLost, match="was not read for too long"):
            await soon(client.open_content(reference))
    async with both(small_packets, contents=ContentSettings(max_bytes=1_000_000)) as (server, client):
        with pytest.raises(ToolFailed, match="larger than the 1,000,000 bytes") as caught:
            await client.call("share", {"how": "generator"}, wait_online=True)
        assert (caught.value.code, len(server._contents)) == ("CONTENT_TOO_LARGE", 0)
    with pytest.raises(ValueError, match="must be 1 or more"):
        ContentSettings(max_count=0)


async def test_a_save_that_was_interrupted_goes_on_after_its_last_byte(
    small_packets: Mosquitto, tmp_path: Path
) -> None:
    async with both(small_packets) as (server, client):
        reference = await client.call("share", {"how": "bytes"}, wait_online=True)
        content = await soon(client.open_content(reference))
        part = tmp_path / f"all.bin.{content.sha256[:16]}.part"
        part.write_bytes(WHOLE[:700_000])
        read = server._contents.read
        offsets: list[int] = []

        async def noting(asker: Any, request_id: str, params: dict[str, Any]) -> Any:
            offsets.append(params["offset"])
            return await read(asker, request_id, params)

        server._contents.read = noting
        assert await soon(content.save(tmp_path / "all.bin")) == tmp_path / "all.bin"
        assert (min(offsets), (tmp_path / "all.bin").read_bytes()) == (700_000, WHOLE)
        assert not part.exists()
        reference = await client.call("share", {"how": "bytes"})
        part.write_bytes(b"x" * 700_000)
        with pytest.raises(ContentLost, match="have the SHA-256"):
            await soon((await client.open_content(reference)).save(tmp_path / "all.bin"))
        assert not part.exists(), "bytes that are wrong are not kept"


async def test_signed_contents_are_read_on_plain_topics_and_only_by_their_signer(
    small_packets: Mosquitto, namespace: str
) -> None:
    keys = {name: PrivateKey.new(name) for name in ("files", "agent-a", "evil")}
    trusted = TrustedKeys(key.public for key in keys.values())
    lines: list[dict[str, Any]] = []

    def options(key: str) -> dict[str, Any]:
        identity = Identity(keys[key], trusted, verify="require")
        return {"broker": small_packets.url, "namespace": namespace, "bound": "off", "identity": identity}

    server = ToolServer("files", **options("files"))

    @server.tool
    async def share(ctx: ToolContext) -> ToolResult:
        return await ctx.share(WHOLE)

    audit = Audit(lines.append, payloads=True)
    async with server, ToolClient("agent-a", **options("agent-a"), audit=audit) as client:
        content = await soon(client.open_content(await client.call("share", wait_online=True)))
        async with ToolClient("agent-a", **options("evil")) as evil:
            await evil.list_tools()
            with pytest.raises(CallTimeout):
                await soon(evil.open_content(content.uri, timeout=0.2))
        assert await soon(content.read()) == WHOLE
    chunks = [line for line in lines if '"sha256"' in line["payload"] and line["payload"].startswith('{"call_id"')]
    assert {(line["claimed"], line["proven"], line["outcome"]) for line in chunks} == {
        (server.server_id, "files", "accepted")
    }
    assert max(len(line["payload"]) for line in lines) < 4096, "the audit has the headers of chunks, not their bytes"


async def test_a_resource_may_be_a_content_for_the_client_that_reads_it(small_packets: Mosquitto) -> None:
    server = ToolServer("books", broker=small_packets.url)

    async def answer(request: ServerRequest) -> Any:
        shared = await server.share(WHOLE, request.client, proven=request.bound)
        return {"contents": [{"uri": request.params["uri"], "text": shared.uri}]}

    server.answer_requests(answer, {"resources": {}})
    with pytest.raises(RuntimeError, match="is not started"):
        await server.share(b"", "agent-a")
    async with server, ToolClient("agent-a", broker=small_packets.url) as client:
        (found,) = await soon(client.read_resource("books", "x:a"))
        assert await soon((await client.open_content(found["text"])).read()) == WHOLE


def test_a_blocking_client_reads_and_saves_a_content(small_packets: Mosquitto, tmp_path: Path) -> None:
    with mqtt_agent.sync.ToolServer("files", broker=small_packets.url) as server:

        @server.tool
        def share(ctx: mqtt_agent.sync.ToolContext) -> ToolResult:
            return ctx.share(iter(PIECES), name="all.bin")

        with mqtt_agent.sync.ToolClient("agent-a", broker=small_packets.url) as client:
            content = client.open_content(client.call("share"), keep=True)
            assert b"".join(content) == content.read() == b"".join(content.chunks()) == WHOLE
            assert content.save(tmp_path / "all.bin").read_bytes() == WHOLE
            assert (content.name, content.size, content.keep) == ("all.bin", len(WHOLE), True)
            content.release()
            with pytest.raises(ContentLost):
                client.open_content(content.uri)


@pytest.fixture
def start(small_packets: Mosquitto, namespace: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(directory: object = "-") -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PROGRAMS / "content_server.py"), small_packets.url, namespace, "a"]
        started.append(subprocess.Popen([*command, str(directory)], stdin=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        kill(process)


@pytest.mark.long
async def test_a_content_goes_on_after_the_broker_was_killed(
    small_packets: Mosquitto, namespace: str, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    start()
    async with ToolClient("agent-a", broker=small_packets.url, namespace=namespace) as client:
        content = await client.open_content(await client.call("export", {"mebibytes": 40}, wait_online=True))
        pieces: list[bytes] = []
        async for piece in content:
            pieces.append(piece)
            if len(pieces) == 30:
                small_packets.kill()
                small_packets.start()
        assert hashlib.sha256(b"".join(pieces)).hexdigest() == content.sha256


@pytest.mark.long
async def test_a_content_of_a_killed_replica_with_a_directory_is_read_to_its_end_after_the_restart(
    small_packets: Mosquitto, namespace: str, start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start(tmp_path / "kept")
    async with ToolClient("agent-a", broker=small_packets.url, namespace=namespace) as client:
        content = await client.open_content(await client.call("export", {"mebibytes": 40}, wait_online=True))
        pieces: list[bytes] = []
        async for piece in content:
            pieces.append(piece)
            if len(pieces) == 30:
                process.kill()
                await asyncio.to_thread(process.wait)
                start(tmp_path / "kept")
        assert hashlib.sha256(b"".join(pieces)).hexdigest() == content.sha256
        assert sum(map(len, pieces)) == 40 * MEBI


@pytest.mark.long
async def test_a_content_of_a_killed_replica_is_lost_with_a_clear_error_in_the_middle(
    small_packets: Mosquitto, namespace: str, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start()
    async with ToolClient("agent-a", broker=small_packets.url, namespace=namespace) as client:
        reference = await client.call("export", {"mebibytes": 40}, wait_online=True)
        content = await client.open_content(reference, timeout=3)

        async def killing() -> None:
            async for _ in content:
                process.kill()

        with pytest.raises(ToolUnavailable, match="cannot be read, because this server is offline: read on"):
            await killing()
        await asyncio.to_thread(process.wait)
        start()
        await client.call("peak_memory", wait_online=True)
        with pytest.raises(ContentLost, match="was lost with its process: call the tool again"):
            await content.read()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak memory like this")
async def test_100_mebibytes_need_little_memory_on_both_sides(
    small_packets: Mosquitto, namespace: str, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    start()
    command = [sys.executable, str(PROGRAMS / "content_reader.py"), small_packets.url, namespace, "100"]
    said = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=True, timeout=120)
    told = json.loads(said.stdout)
    assert (told["size"], told["right"]) == (100 * MEBI, True)
    before, after = told["kib"]
    grown = [(now - then) / 1024 for then, now in zip(before, after, strict=True)]
    print(f"memory of the client and the server has grown by {grown} MiB")
    assert max(grown) < 20, grown


@pytest.mark.long
async def test_the_content_of_a_killed_caller_is_dropped_after_a_while(
    small_packets: Mosquitto, namespace: str
) -> None:
    async with both(small_packets, namespace=namespace, contents=ContentSettings(max_age=2)) as (server, client):
        await client.list_tools()
        program = (
            "import asyncio, os, sys\n"
            "from mqtt_agent import ToolClient\n"
            "async def main():\n"
            "    async with ToolClient('agent-b', broker=sys.argv[1], namespace=sys.argv[2]) as client:\n"
            "        shared = await client.call('share', {'how': 'bytes'}, wait_online=True)\n"
            "        async for _ in await client.open_content(shared):\n"
            "            os.kill(os.getpid(), 9)\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", program, small_packets.url, namespace]
        ended = await asyncio.to_thread(subprocess.run, command, timeout=60)
        assert ended.returncode == -9
        assert len(server._contents) == 1
        await until(lambda: not len(server._contents))
