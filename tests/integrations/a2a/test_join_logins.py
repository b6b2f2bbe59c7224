"""A process that joins a remote agent proves in each way of A2A who it is, and tells nobody else its secrets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import a2a_pb2 as a2a
from a2a_mqtt_agent import Identity, Login, RemoteAgent, ServerTLS, TokenIssuer
from a2a_mqtt_agent.proving import LoginAuth
from a2a_mqtt_agent.reaching import is_transient
from brokers import Broker
from certificates import Authority
from mqtt_agent import Agent, MemoryStore
from support import soon, until

from .conftest import AUDIENCE, ISSUER, Issuer, MakeGateway, Served


class TokenServer:
    """An OAuth 2 server that gives tokens for the grant ``client_credentials``."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.asked: list[str] = []
        self.url = ""
        self.seconds = 600
        self.status = "200 OK"
        self.rubbish: bytes | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length")).split()[1]
        form = (await reader.readexactly(int(length))).decode()
        proof = next(line for line in head.splitlines() if line.lower().startswith("authorization")).split()[2]
        self.asked.append(f"{base64.b64decode(proof).decode()} {form}")
        answer = {"access_token": self.issuer.token("dave"), "token_type": "Bearer", "expires_in": self.seconds}
        body = json.dumps(answer).encode() if self.rubbish is None else self.rubbish
        writer.write(
            f"HTTP/1.1 {self.status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def tokens(issuer: Issuer) -> AsyncIterator[TokenServer]:
    made = TokenServer(issuer)
    async with await asyncio.start_server(made.answer, "127.0.0.1", 0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"
        yield made


async def says(served: Served, login: Login, broker: Broker, namespace: str) -> Any:
    """What the remote agent answers to a task, as whom it sees its requester."""
    options: dict[str, Any] = {"broker": broker.url, "namespace": f"{namespace}-near", "will_delay": 1}
    remote = await RemoteAgent.at(f"{served.url}/agents/worker", "helper", login=login, store=MemoryStore(), **options)
    async with remote, Agent("planner", **options, store=MemoryStore()) as planner:
        return await soon(planner.request("helper", "hello", wait_online=True), 30)


@pytest.mark.long
@pytest.mark.parametrize("place", ["header", "query", "cookie"])
async def test_an_api_key_goes_where_the_card_wants_it(
    worker: Agent, make_gateway: MakeGateway, embedded: Broker, namespace: str, place: Any
) -> None:
    served = await make_gateway(Identity("alice", api_key="alice-key"), api_key_in=[place])
    assert await says(served, Login(api_key="alice-key"), embedded, namespace) == "hello by alice"


@pytest.mark.long
async def test_a_name_and_a_password_are_sent(
    worker: Agent, make_gateway: MakeGateway, embedded: Broker, namespace: str
) -> None:
    served = await make_gateway(Identity("bob", basic="bob:pass:word"))
    assert await says(served, Login(basic="bob:pass:word"), embedded, namespace) == "hello by bob"


async def test_a_token_is_fetched_and_fetched_again_when_it_is_refused(
    worker: Agent, make_gateway: MakeGateway, embedded: Broker, namespace: str, tokens: TokenServer
) -> None:
    known = TokenIssuer(ISSUER, AUDIENCE, tokens.issuer.url, token_url="https://evil.example/token")
    served = await make_gateway(Identity("dave", subject="dave"), issuer=known)
    login = Login(token_url=tokens.url, client_id="join er", client_secret="s:ecret", scope="a b")
    assert await says(served, login, embedded, namespace) == "hello by dave"
    # The address of the card got nothing, and one token is enough for all requests.
    assert tokens.asked == ["join%20er:s%3Aecret grant_type=client_credentials&scope=a+b"]
    auth = LoginAuth(login, a2a.AgentCard(), httpx.URL("http://127.0.0.1:1"))
    flow = auth.async_auth_flow(httpx.Request("GET", "http://127.0.0.1:1/x"))
    first = (await anext(flow)).headers["Authorization"]
    second = (await flow.asend(httpx.Response(401))).headers["Authorization"]
    assert first != second
    assert len(tokens.asked) == 3
    await flow.aclose()


async def test_a_token_server_that_answers_rubbish_is_named_once_and_the_task_goes_on_when_it_gives_a_token(
    worker: Agent,
    make_gateway: MakeGateway,
    embedded: Broker,
    namespace: str,
    tokens: TokenServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = TokenIssuer(ISSUER, AUDIENCE, tokens.issuer.url)
    served = await make_gateway(Identity("dave", subject="dave"), issuer=known)
    login = Login(token_url=tokens.url, client_id="joiner", client_secret="a-secret")
    tokens.rubbish = b"<html>a-token</html>"
    answered = asyncio.create_task(says(served, login, embedded, namespace))
    await until(lambda: len(tokens.asked) >= 2, 30)
    tokens.rubbish = None
    assert await soon(answered, 60) == "hello by dave"
    told = [each.getMessage() for each in caplog.records if each.name == "a2a_mqtt_agent.trouble" and each.levelno > 10]
    assert [("has given no token to joiner" in each, "answers again" in each) for each in told] == [
        (True, False),
        (False, True),
    ]
    assert "so its tasks wait" in told[0]
    assert not any("secret" in each or "a-token" in each for each in told)


@pytest.mark.parametrize(("status", "waits"), [("503 Busy", True), ("401 No", False)])
async def test_a_task_waits_for_a_token_only_when_it_may_come_later(
    tokens: TokenServer, status: str, waits: bool
) -> None:
    tokens.status = status
    login = Login(token_url=tokens.url, client_id="joiner", client_secret="a-secret")
    flow = LoginAuth(login, a2a.AgentCard(), httpx.URL("http://127.0.0.1:1")).async_auth_flow(
        httpx.Request("GET", "http://127.0.0.1:1/x")
    )
    with pytest.raises(A2AClientError, match="has given no token to joiner") as failed:
        await anext(flow)
    assert is_transient(failed.value) is waits
    assert "a-secret" not in str(failed.value) + repr(login)


async def test_another_host_gets_no_proof() -> None:
    login = Login(api_key="k", bearer="t")
    auth = LoginAuth(login, a2a.AgentCard(), httpx.URL("https://agent.example"))

    async def sent(url: str) -> httpx.Headers:
        async with contextlib.aclosing(auth.async_auth_flow(httpx.Request("GET", url))) as flow:
            return (await anext(flow)).headers

    for url in ("https://evil.example/x", "http://agent.example/x", "https://agent.example:444/x"):
        assert not {"authorization", "x-api-key"} & set(await sent(url))
    own = await sent("https://agent.example/x")
    assert (own["authorization"], own["x-api-key"]) == ("Bearer t", "k")


async def test_an_api_key_in_the_query_stands_in_no_error_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    got: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append((await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0])
        writer.write(b"HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    card = a2a.AgentCard()
    scheme = card.security_schemes["key"].api_key_security_scheme
    scheme.location, scheme.name = "query", "key"
    caplog.set_level(logging.INFO)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        auth = LoginAuth(Login(api_key="a-secret"), card, httpx.URL(url))
        async with httpx.AsyncClient(auth=auth, trust_env=False) as http:
            with pytest.raises(httpx.HTTPStatusError) as refused:  # the requester of a task is told of this error
                (await http.get(f"{url}/x?y=1")).raise_for_status()
    assert got == ["GET /x?y=1&key=a-secret HTTP/1.1"]
    assert "/x?y=1" in caplog.text
    assert "a-secret" not in str(refused.value) + caplog.text


@pytest.mark.long
@pytest.mark.skipif(Authority.missing() is not None, reason="openssl is not installed")
async def test_an_own_certificate_is_shown(
    worker: Agent, make_gateway: MakeGateway, embedded: Broker, namespace: str, tmp_path: Path
) -> None:
    own = Authority(tmp_path / "own", "own")
    gateway, alice = own.issue("gateway", "IP:127.0.0.1"), own.issue("alice")
    tls = ServerTLS(gateway.certificate, gateway.key, own.certificate)
    served = await make_gateway(Identity("alice", certificate="alice"), tls_server=tls, tls=own.certificate)
    (tmp_path / "login.json").write_text(
        json.dumps({"certificate": str(alice.certificate), "key": str(alice.key), "ca": str(own.certificate)})
    )
    assert await says(served, Login.load(tmp_path / "login.json"), embedded, namespace) == "hello by alice"
    assert isinstance(Login.load(tmp_path / "login.json").verify(), ssl.SSLContext)


def test_a_login_that_cannot_work_is_refused(tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"bearer": "a", "basic": "a:b"}, "three ways to fill one header"),
        ({"token_url": "https://l.example"}, "belong together"),
        ({"certificate": "a"}, "certificate and key"),
        ({"basic": "name"}, "name:password"),
        ({"token_url": "http://l.example", "client_id": "a", "client_secret": "b"}, "https"),
        ({"password": "a"}, "has password; known: api_key"),
        ({"bearer": 5}, "JSON object of strings"),
    ]
    for value, why in refused:
        (tmp_path / "login.json").write_text(json.dumps(value))
        with pytest.raises(ValueError, match=why):
            Login.load(tmp_path / "login.json")
    (tmp_path / "login.json").write_text("{")
    with pytest.raises(ValueError, match=r"login.json is not JSON"):
        Login.load(tmp_path / "login.json")
    bad, missing = tmp_path / "login.json", tmp_path / "none"
    for login in (Login(ca=bad), Login(certificate=bad, key=bad), Login(certificate=bad, key=missing)):
        with pytest.raises(OSError, match=r"login.json|none"):
            login.verify()
