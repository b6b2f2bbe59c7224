"""MCP clients over HTTP with tokens of their own: each token is an MQTT client that no other token can reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from brokers import Mosquitto, free_port
from brokers.mosquitto import password_line
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_mqtt_agent.http_face import HTTPFaces, serve_http
from mcp_types import ElicitRequestParams, ElicitResult, InputRequiredResult
from mqtt_agent import Password, ToolClient, ToolContext, ToolServer
from mqtt_agent.adapting.bearers import Identity, by_bearer
from mqtt_agent.errors import ConnectionLost, MQTTAgentError
from mqtt_agent.tools import ServerRequest
from support import kill, soon, until

MODES = pytest.mark.parametrize("mode", [pytest.param("legacy", marks=pytest.mark.long), "auto"])
NAMES = ("alice", "bob")
IDENTITIES = [Identity(name, f"token-of-{name}", Password(name, name)) for name in NAMES]


@pytest.fixture
def passworded(make_mosquitto: Callable[..., Mosquitto], namespace: str) -> Mosquitto:
    """A broker with a login for each name. Bob cannot read the card of one tool."""
    users = ("server", *NAMES)
    acl = "".join(f"user {name}\ntopic readwrite #\n" for name in users)
    return make_mosquitto(
        ["password_file {folder}/passwords", "acl_file {folder}/acl", "log_dest file {folder}/log", "log_type all"],
        anonymous=False,
        files={
            "passwords": "".join(password_line(name, name) for name in users),
            "acl": f"{acl}topic deny {namespace}/mcp/tools/secret/card\n",
        },
        credentials={"username": "server", "password": "server"},
    )


async def listening(port: int) -> None:
    """Wait until something listens at a port."""

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    await until(listens, 60)


@contextlib.asynccontextmanager
async def client_at(
    url: str, name: str, mode: str = "auto", sessions: list[str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client of the official SDK with the token of a name. It notes the ids of its sessions."""

    async def note(response: httpx2.Response) -> None:
        if sessions is not None and "mcp-session-id" in response.headers:
            sessions.append(response.headers["mcp-session-id"])

    headers = {"Authorization": f"Bearer token-of-{name}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30, event_hooks={"response": [note]}) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode, **options) as client:
            yield client


class Served:
    """Faces that listen."""

    def __init__(
        self, passworded: Mosquitto, namespace: str, identities: Sequence[Identity] = IDENTITIES, **options: Any
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"

        self.clients = list[ToolClient]()

        def make_client(identity: Identity) -> ToolClient:
            login = identity.credentials
            client = ToolClient(identity.agent_id, broker=passworded.url, namespace=namespace, credentials=login)
            self.clients.append(client)
            return client

        self.faces = HTTPFaces(identities, make_client, **options)
        self.serving = asyncio.create_task(serve_http(self.faces, "127.0.0.1", self.port))

    async def up(self) -> None:
        await listening(self.port)
        assert not self.serving.done()

    async def down(self) -> None:
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    def client(self, name: str, *args: Any, **options: Any) -> contextlib.AbstractAsyncContextManager[Client]:
        return client_at(self.url, name, *args, **options)


@pytest.fixture
async def serve(passworded: Mosquitto, namespace: str) -> AsyncIterator[Callable[..., Any]]:
    made = list[Served]()

    async def make(**options: Any) -> Served:
        made.append(Served(passworded, namespace, **options))
        await soon(made[-1].up())
        return made[-1]

    yield make
    for each in made:
        await soon(each.down())


@pytest.fixture
async def release(passworded: Mosquitto, namespace: str) -> AsyncIterator[asyncio.Event]:
    """A tool server; the event lets its tool ``wait`` end."""
    server = ToolServer("desk", broker=passworded.url, namespace=namespace, credentials=Password("server", "server"))
    released = asyncio.Event()

    @server.tool
    async def who(ctx: ToolContext) -> str:
        return f"{ctx.client} {ctx.bound}"

    @server.tool
    async def secret() -> str:
        return "seen"

    @server.tool
    async def book(ctx: ToolContext) -> str:
        return f"{ctx.client}: {await ctx.ask('Which seat?')}"

    @server.tool
    async def wait(ctx: ToolContext) -> str:
        await ctx.progress(1)
        await released.wait()
        return ctx.client

    async def answer(request: ServerRequest) -> dict[str, Any]:
        own = {"uri": f"note://{request.client}", "name": "own"}
        if request.method == "resources/list":
            return {"resources": [own]}
        if request.method == "resources/read":
            return {"contents": [{"uri": own["uri"], "text": request.client}]}
        return {"resourceTemplates": []}

    server.answer_requests(answer, {"resources": {}})
    async with server:
        yield released


def text_of(result: Any) -> str:
    return result.content[0].text


@MODES
async def test_each_token_is_an_mqtt_client_with_its_own_login_tools_and_resources(
    serve: Callable[..., Any], release: asyncio.Event, passworded: Mosquitto, mode: str
) -> None:
    served = await serve()
    assert served.faces.connected == []
    async with served.client("alice", mode) as alice:
        assert text_of(await soon(alice.call_tool("who", {}))) == "alice True"
        assert served.faces.connected == ["alice"]
        async with served.client("bob", mode) as bob:
            assert text_of(await soon(bob.call_tool("who", {}))) == "bob True"
            shown = [{tool.name for tool in (await soon(each.list_tools())).tools} for each in (alice, bob)]
            assert shown[0] - shown[1] == {"secret"}
            assert text_of(await soon(alice.call_tool("secret", {}))) == "seen"
            with pytest.raises(MCPError, match="Unknown tool"):
                await soon(bob.call_tool("secret", {}))
            for name, each in zip(NAMES, (alice, bob), strict=True):
                resources = (await soon(each.list_resources())).resources
                assert [str(resource.uri) for resource in resources] == [f"note://{name}"]
            assert (await soon(alice.read_resource("note://alice"))).contents[0].text == "alice"  # type: ignore[union-attr]
            with pytest.raises(MCPError, match="Unknown resource"):
                await soon(bob.read_resource("note://alice"))
    log = (passworded.folder / "log").read_text()
    logins = [line for line in log.splitlines() if " as alice~" in line or " as bob~" in line]
    assert [("u'alice'" in line, "u'bob'" in line) for line in logins] == [(True, False), (False, True)]


async def test_one_identity_cannot_answer_the_question_of_another(
    serve: Callable[..., Any], release: asyncio.Event
) -> None:
    served = await serve()

    async def never(context: Any, params: ElicitRequestParams) -> ElicitResult:
        raise AssertionError("the test answers itself")

    answers = {"action": "accept", "content": {"answer": "7a"}}
    async with (
        served.client("alice", elicitation_callback=never) as alice,
        served.client("bob", elicitation_callback=never) as bob,
    ):
        asked = await soon(alice.session.call_tool("book", {}, allow_input_required=True))
        assert isinstance(asked, InputRequiredResult)
        given: Any = {key: ElicitResult.model_validate(answers) for key in asked.input_requests or {}}
        again = {"input_responses": given, "request_state": asked.request_state}
        with pytest.raises(MCPError, match="the call with this requestState is over"):
            await soon(bob.session.call_tool("book", {}, **again))
        assert text_of(await soon(alice.session.call_tool("book", {}, **again))) == "alice: 7a"


async def test_one_identity_cannot_cancel_a_call_or_use_a_session_of_another(
    serve: Callable[..., Any], release: asyncio.Event
) -> None:
    served, begun = await serve(), asyncio.Event()
    sessions: dict[str, list[str]] = {name: [] for name in NAMES}

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async with (
        served.client("alice", "legacy", sessions["alice"]) as alice,
        served.client("bob", "legacy", sessions["bob"]) as bob,
    ):
        waiting = asyncio.ensure_future(alice.call_tool("wait", {}, progress_callback=hear))
        await soon(begun.wait())
        async with httpx2.AsyncClient(headers={"Authorization": "Bearer token-of-bob"}) as http:

            async def cancel_all(session: str) -> set[int]:
                headers = {"Mcp-Session-Id": session, "Accept": "application/json, text/event-stream"}
                canceled = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
                bodies = [{**canceled, "params": {"requestId": number}} for number in range(10)]
                return {(await http.post(served.url, json=body, headers=headers)).status_code for body in bodies}

            assert await soon(cancel_all(sessions["alice"][0])) == {404}
            assert await soon(cancel_all(sessions["bob"][0])) == {202}
            ended = await soon(http.delete(served.url, headers={"Mcp-Session-Id": sessions["alice"][0]}))
            assert ended.status_code == 404
        assert text_of(await soon(bob.call_tool("who", {}))) == "bob True"  # whatever bob sent has been done
        assert not waiting.done()
        release.set()
        assert text_of(await soon(waiting)) == "alice"


async def test_a_wrong_token_is_refused_and_no_connection_is_made(serve: Callable[..., Any]) -> None:
    served = await serve()
    async with httpx2.AsyncClient() as http:
        for wrong in ("Bearer token-of-carol", "Bearer", "Basic token-of-bob", "token-of-bob", ""):
            answer = await soon(http.post(served.url, json={}, headers={"Authorization": wrong}))
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (await soon(http.post(served.url, json={}))).status_code == 401
    assert served.faces.connected == []


async def test_the_connection_of_an_idle_identity_is_closed_and_made_again(
    serve: Callable[..., Any], release: asyncio.Event
) -> None:
    served = await serve(idle=0.2)
    for _ in range(2):
        async with served.client("alice") as alice:
            assert text_of(await soon(alice.call_tool("who", {}))) == "alice True"
        await until(lambda: served.faces.connected == [])


async def test_a_connection_that_is_lost_for_good_is_made_again(
    serve: Callable[..., Any], release: asyncio.Event
) -> None:
    served = await serve()
    async with served.client("alice") as alice:
        assert text_of(await soon(alice.call_tool("who", {}))) == "alice True"
        served.clients[0].connection.give_up(ConnectionLost("somebody has taken the session over"))
        assert text_of(await soon(alice.call_tool("who", {}))) == "alice True"
    assert len(served.clients) == 2


async def test_an_identity_that_the_broker_refuses_gets_an_error_and_the_others_are_served(
    serve: Callable[..., Any], release: asyncio.Event
) -> None:
    served = await serve(identities=[Identity("alice", "token-of-alice", Password("alice", "wrong")), IDENTITIES[1]])
    async with httpx2.AsyncClient(headers={"Authorization": "Bearer token-of-alice"}) as http:
        for _ in range(2):
            assert (await soon(http.post(served.url, json={}))).status_code == 503
    async with served.client("bob") as bob:
        assert text_of(await soon(bob.call_tool("who", {}))) == "bob True"
    assert served.faces.connected == ["bob"]


def test_identities_that_cannot_be_told_apart_are_refused() -> None:
    for other in (Identity("alice", "b"), Identity("bob", "a"), Identity("bob", "b", client_id="c"), Identity("bob")):
        with pytest.raises(ValueError, match="the same|with a bearer token each"):
            by_bearer([Identity("alice", "a", client_id="c"), other])


def test_only_loopback_is_served_without_a_token() -> None:
    with pytest.raises(ValueError, match="need a bearer token"):
        HTTPFaces([Identity("alice")], lambda identity: ToolClient(identity.agent_id), host="0.0.0.0")


async def test_the_only_identity_connects_at_the_start() -> None:
    faces = HTTPFaces([Identity("alice")], lambda identity: ToolClient("alice", broker="mqtt://127.0.0.1:1"))
    with pytest.raises(MQTTAgentError):
        await soon(serve_http(faces, "127.0.0.1", free_port()), 20)


@pytest.mark.long
async def test_the_command_serves_each_caller_of_its_file_under_the_callers_name(
    passworded: Mosquitto, namespace: str, release: asyncio.Event, tmp_path: Path
) -> None:
    callers, port = tmp_path / "callers.json", free_port()
    about = {name: {"bearer": f"token-of-{name}", "user": name, "password": name} for name in NAMES}
    callers.write_text(json.dumps(about | {"alice": {**about["alice"], "client_id": "seat-1"}}))
    options = ["--broker", passworded.url, "--namespace", namespace, "--http", str(port), "--callers", str(callers)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mqtt_agent.cli", "mcp", *options],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job of a shell ignores it
    )
    try:
        await listening(port)
        for name in NAMES:
            async with client_at(f"http://127.0.0.1:{port}/mcp", name) as client:
                assert text_of(await soon(client.call_tool("who", {}), 30)) == f"{name} True"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        kill(process)
    logins = (passworded.folder / "log").read_text()
    assert [each in logins for each in (" as seat-1 ", " as bob~", " as alice~")] == [True, True, False]
