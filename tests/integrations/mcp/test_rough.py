"""What real servers and clients write that the official SDK does not expect: no call waits for ever because of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from brokers import Broker, free_port
from mcp_mqtt_agent.http_face import HTTPFaces
from mcp_mqtt_agent.lines import read_line
from mqtt_agent import ToolClient, ToolContext, ToolServer
from mqtt_agent.adapting.bearers import Identity
from mqtt_agent.errors import ToolFailed, ToolUnavailable
from support import becomes, kill, soon

from .conftest import SERVERS, MakeBridge, shows_some

ROUGH = [sys.executable, str(SERVERS / "rough_server.py")]
HEAD = '{"jsonrpc":"2.0","id":1,"method":"x","params":'


def test_a_line_with_half_a_character_or_with_other_bytes_is_read() -> None:
    for line, wanted in (
        (HEAD.encode() + b'{"a":"\\ud83d b"}}', {"a": "\ufffd b"}),
        (HEAD.encode() + b'{"\xe9":1}}', {"\ufffd": 1}),
        (HEAD.encode() + '{"a":"\u2028\\ud83d\\ude00"}}'.encode(), {"a": "\u2028\U0001f600"}),
    ):
        message, _ = read_line(line)
        assert message is not None
        assert message.params == wanted  # type: ignore[union-attr]
    assert read_line(b"no JSON") == (None, None)
    assert read_line(b"[" * 100_000) == (None, None)
    assert read_line(b'{"jsonrpc":"2.0","id":1,"error":"x"}') == (None, {"jsonrpc": "2.0", "id": 1, "error": "x"})


async def test_a_client_without_a_session_is_told_that_there_is_no_stream() -> None:
    def make_client(identity: Identity) -> ToolClient:
        raise AssertionError("no connection is made for it")

    faces = HTTPFaces([Identity("caller", "s3cret")], make_client)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=faces)) as client:
        token = {"Authorization": "Bearer s3cret", "Accept": "*/*"}
        answer = await soon(client.get("http://127.0.0.1/mcp", headers=token))
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, DELETE")
        assert (await soon(client.get("http://127.0.0.1/mcp"))).status_code == 401


@pytest.mark.long
async def test_every_answer_of_a_rough_server_ends_its_call(make_bridge: MakeBridge, client: ToolClient) -> None:
    await make_bridge("rough", ROUGH)  # its list of tools has no end
    await shows_some(client, "rough.arguments")

    async def call(name: str) -> Any:
        return await soon(client.call(f"rough.{name}"), 20)

    assert await call("separators") == "a\u2028b\u2029c\x85d\x0be"
    assert await call("latin") == "caf\ufffd"
    assert await call("surrogate") == "a\ufffdb"
    assert await call("numbers") == {"big": 2**60, "whole": 42.0, "tiny": 1e-300}
    assert await call("no_content") == ""
    assert await call("null_content") is None
    assert await call("pinged") == "pong"
    assert await call("null_id") == "still here"
    with pytest.raises(ToolFailed, match="result.x is NaN"):
        await call("nan")
    with pytest.raises(ToolFailed, match='answers with what is no message: .*"it broke"'):
        await call("odd_error")
    with pytest.raises(ToolFailed, match="quota exceeded") as caught:
        await call("closed_code")
    assert caught.value.code == "-32000"
    assert await call("arguments") == "{}"  # at once: the server is not taken for lost
    [content] = await soon(client.read_resource("rough", "data://1?format=csv"), 20)
    assert content["_meta"] == {"ui": {"csp": {"connectDomains": ["a.example"]}}}
    assert (content["uri"], content["mimeType"], content["text"]) == ("data://1?format=csv", "text/csv", "1")


@pytest.fixture
def rough_port() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([*ROUGH, str(port), "2"])
    yield port
    kill(process)


@pytest.mark.long
async def test_a_session_that_a_server_has_forgotten_in_its_own_words_is_opened_again(
    make_bridge: MakeBridge, client: ToolClient, rough_port: int
) -> None:
    async def starts() -> bool:
        try:
            await make_bridge("rough", f"http://127.0.0.1:{rough_port}/mcp")  # which leads to /mcp/
        except ConnectionError:
            return False
        return True

    await becomes(starts, 20)
    await shows_some(client, "rough.arguments")
    for n in range(2):
        assert json.loads(await soon(client.call("rough.arguments", {"n": n}), 20)) == {"n": n}
    with pytest.raises(ToolUnavailable, match="Server not initialized"):
        await soon(client.call("rough.arguments"), 20)
    assert await soon(client.call("rough.arguments", wait_online=True), 20) == "{}"


@pytest.mark.long
async def test_a_client_that_writes_odd_lines_gets_an_answer_to_each_request(mosquitto: Broker, namespace: str) -> None:
    server = ToolServer("odd", broker=mosquitto.url, namespace=namespace)
    going = asyncio.Event()

    @server.tool
    async def echo(ctx: ToolContext, text: str = "") -> str:
        return text

    @server.tool
    async def wait(ctx: ToolContext) -> str:
        await ctx.progress(1, 2)
        await going.wait()
        return "went"

    env = {**os.environ, "MQTT_AGENT_BROKER": mosquitto.url, "MQTT_AGENT_NAMESPACE": namespace}
    async with server:
        face = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mqtt_agent.cli", "mcp"), stdin=-1, stdout=-1, env=env
        )
        assert face.stdin is not None
        assert face.stdout is not None

        def send(method: str | None, id: Any = None, **params: Any) -> None:
            assert face.stdin is not None
            message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
            face.stdin.write(json.dumps({key: each for key, each in message.items() if each is not None}).encode())
            face.stdin.write(b"\n")

        async def answer(id: Any) -> Any:
            while True:
                assert face.stdout is not None
                message = json.loads(await soon(face.stdout.readline(), 90))
                if message.get("id", message.get("params", {}).get("progressToken")) == id:
                    return message

        face.stdin.write(b"this is no JSON\n")
        about = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        send("initialize", 0, **about)
        assert (await answer(0))["result"]["protocolVersion"] == "2024-11-05"
        send("notifications/initialized")
        send("notifications/something/new")
        send("tools/call", "half", name="echo", arguments={"text": "a\ud83d"})
        assert (await answer("half"))["result"]["content"][0]["text"] == "a\ufffd"
        send("tools/call", "none", name="echo")
        assert "result" in await answer("none")
        send("no/such", 2)
        assert (await answer(2))["error"]["code"] == -32601
        send(None, 3)
        assert (await answer(3))["error"]["code"] == -32600
        send("tools/call", 4, name="wait", _meta={"progressToken": 0})
        assert (await answer(0))["method"] == "notifications/progress"
        send("ping", 5)
        send("tools/list", 6)
        assert {(await answer(each))["id"] for each in (5, 6)} == {5, 6}  # while the tool works
        going.set()
        assert (await answer(4))["result"]["content"][0]["text"] == "went"
        face.stdin.close()
        assert await soon(face.wait(), 30) == 0
