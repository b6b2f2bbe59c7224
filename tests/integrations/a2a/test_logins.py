"""Each way in which A2A lets a client prove who it is, and what a stranger and another caller cannot do."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from a2a.types import a2a_pb2 as a2a
from a2a.types import a2a_pb2_grpc
from a2a_mqtt_agent import Gateway, Identity, ServerTLS, TokenIssuer
from a2a_mqtt_agent.authentication import Authentication
from a2a_mqtt_agent.tokens import Tokens
from certificates import Authority
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict
from mqtt_agent import Agent, MemoryStore
from mqtt_agent.adapting.bearers import by_bearer, read_identities
from support import soon

from .conftest import AUDIENCE, ISSUER, Issuer, MakeGateway, Served, said

VERSION = {"A2A-Version": "1.0"}


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def answer(served: Served, **headers: str) -> tuple[int, str]:
    """The status of a request with these headers, and what the agent says."""
    async with httpx.AsyncClient(base_url=f"{served.url}/agents/worker", headers={**VERSION, **headers}) as http:
        got = await http.post("/message:send", json=MessageToDict(said("hello")))
    return got.status_code, got.json()["task"]["artifacts"][0]["parts"][0]["text"] if got.is_success else got.text


async def test_each_proof_is_an_identity_and_tasks_of_others_are_not_found(
    worker: Agent, make_gateway: MakeGateway, issuer: Issuer
) -> None:
    served = await make_gateway(
        Identity("alice", api_key="alice-key"),
        Identity("bob", basic="bob:pass:word"),
        Identity("carol", "carol-token"),
        Identity("dave", subject="dave@example"),
        issuer=TokenIssuer(ISSUER, AUDIENCE, issuer.url, scope="a", token_url="https://login.example/token"),
    )
    proofs = {
        "alice": {"X-API-Key": "alice-key"},
        "bob": basic("bob:pass:word"),
        "carol": {"Authorization": "Bearer carol-token"},
        "dave": {"Authorization": f"Bearer {issuer.token('dave@example')}"},
    }
    tasks: dict[str, str] = {}
    async with httpx.AsyncClient(base_url=f"{served.url}/agents/worker", headers=VERSION, timeout=30) as http:
        for name, proof in proofs.items():
            got = (await http.post("/message:send", json=MessageToDict(said("hello")), headers=proof)).json()["task"]
            assert got["artifacts"][0]["parts"][0]["text"] == f"hello by {name}"
            tasks[name] = got["id"]
        for name, proof in proofs.items():
            for owner, task in tasks.items():
                found = await http.get(f"/tasks/{task}", headers=proof)
                assert found.status_code == (200 if owner == name else 404), (name, owner)
            assert (await http.get("/tasks", headers=proof)).json()["totalSize"] == 1
            other = next(task for owner, task in tasks.items() if owner != name)
            assert (await http.post(f"/tasks/{other}:cancel", headers=proof, json={})).status_code == 404
            hook = {"url": "https://evil.example", "taskId": other}
            added = await http.post(f"/tasks/{other}/pushNotificationConfigs", headers=proof, json=hook)
            assert added.status_code == 404
        card = (await http.get("/.well-known/agent-card.json")).json()
    assert set(card["securitySchemes"]) == {"apiKey", "basic", "bearer", "oauth2"}
    assert card["securitySchemes"]["apiKey"]["apiKeySecurityScheme"] == {"location": "header", "name": "X-API-Key"}
    assert [list(each["schemes"]) for each in card["securityRequirements"]] == [
        ["bearer"],
        ["apiKey"],
        ["basic"],
        ["oauth2"],
    ]


async def test_a_stranger_is_refused_whatever_it_shows(
    worker: Agent, make_gateway: MakeGateway, issuer: Issuer
) -> None:
    served = await make_gateway(
        Identity("alice", api_key="alice-key"),
        Identity("bob", basic="bob:secret"),
        Identity("dave", subject="dave"),
        issuer=TokenIssuer(ISSUER, AUDIENCE, issuer.url, scope="a"),
    )
    right = issuer.token("dave")
    assert await answer(served, Authorization=f"Bearer {right}") == (200, "hello by dave")
    public = issuer.keys["first"].public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    head, body, signature = right.split(".")
    forged = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "first"}).encode()).decode().rstrip("=")
    tokens = [
        issuer.token("dave", key=Ed25519PrivateKey.generate()),
        issuer.token("dave", kid="second", key=Ed25519PrivateKey.generate()),
        issuer.token("dave", key=public, algorithm="HS256"),  # the public key as a shared secret
        f"{forged}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        issuer.token("dave", exp=time.time() - 600),
        issuer.token("dave", exp=None),
        issuer.token("dave", aud="another-service"),
        issuer.token("dave", iss="https://evil.example"),
        issuer.token("dave", scope="b"),
        issuer.token("mallory"),
        "dave",
        f"{base64.urlsafe_b64encode(b'[' * 6000).decode()}.{body}.{signature}",
    ]
    wrong: list[dict[str, str]] = [{"Authorization": f"Bearer {token}"} for token in tokens]
    wrong += [
        basic("bob:wrong"),
        basic("alice:alice-key"),
        {"Authorization": "Basic !"},
    ]
    wrong += [{"X-API-Key": "bob:secret"}, {"X-API-Key": ""}, {"Authorization": "Bearer alice-key"}]
    wrong += [{"Authorization": "Bearer"}, {}]
    # Two proofs: one is wrong, or they are of two callers.
    wrong += [{"X-API-Key": "alice-key", **basic("bob:secret")}, {"X-API-Key": "x", "Authorization": f"Bearer {right}"}]
    for headers in wrong:
        status, text = await answer(served, **headers)
        assert status == 401, headers
        assert "secret" not in text
    assert issuer.asked <= 2  # strangers do not make the gateway ask for keys


async def test_a_new_key_of_the_issuer_is_fetched(worker: Agent, make_gateway: MakeGateway, issuer: Issuer) -> None:
    known = TokenIssuer(ISSUER, AUDIENCE, issuer.url)
    served = await make_gateway(Identity("dave", subject="dave"), issuer=known)
    new = Ed25519PrivateKey.generate()
    issuer.keys["second"] = new
    token = issuer.token("dave", kid="second", key=new)
    assert await answer(served, Authorization=f"Bearer {token}") == (200, "hello by dave")
    assert issuer.asked == 1


@pytest.mark.parametrize("broken", [[], "a text", {"keys": [5]}])
async def test_an_issuer_without_readable_keys_is_no_error_of_the_gateway(
    worker: Agent, make_gateway: MakeGateway, issuer: Issuer, broken: Any
) -> None:
    served = await make_gateway(Identity("dave", subject="dave"), issuer=TokenIssuer(ISSUER, AUDIENCE, issuer.url))
    issuer.broken = broken
    status, _ = await answer(served, Authorization=f"Bearer {issuer.token('dave')}")
    assert status == 401


@pytest.mark.skipif(Authority.missing() is not None, reason="openssl is not installed")
async def test_a_client_certificate_is_an_identity(worker: Agent, make_gateway: MakeGateway, tmp_path: Path) -> None:
    own, evil = Authority(tmp_path / "own", "own"), Authority(tmp_path / "evil", "evil")
    gateway = own.issue("gateway", "IP:127.0.0.1")
    tls = ServerTLS(gateway.certificate, gateway.key, own.certificate)
    identities = (Identity("alice", certificate="alice"), Identity("bob", "b-token", certificate="bob"))
    served = await make_gateway(*identities, grpc=True, tls_server=tls, tls=own.certificate)

    def client(certificate: Any = None) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=str(own.certificate))
        if certificate is not None:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return httpx.AsyncClient(verify=context, base_url=f"{served.url}/agents/worker", headers=VERSION, timeout=30)

    async def says(certificate: Any = None, **headers: str) -> Any:
        async with client(certificate) as http:
            got = await http.post("/message:send", json=MessageToDict(said("hello")), headers=headers)
        return got.json()["task"]["artifacts"][0]["parts"][0]["text"] if got.is_success else got.status_code

    alice, stranger = own.issue("alice"), own.issue("mallory")
    assert await says(alice) == "hello by alice"
    assert await says(own.issue("bob")) == "hello by bob"
    assert await says(None, Authorization="Bearer b-token") == "hello by bob"
    assert await says(None) == 401
    assert await says(stranger) == 401
    assert await says(None, **{"X-Client-CN": "alice"}) == 401
    with pytest.raises((httpx.TransportError, ssl.SSLError)):
        await says(evil.issue("alice"))

    def channel(certificate: Any) -> Any:
        assert served.grpc is not None
        files = (own.certificate, certificate.key, certificate.certificate)
        return grpc.aio.secure_channel(
            served.grpc, grpc.ssl_channel_credentials(*(each.read_bytes() for each in files))
        )

    for certificate, allowed in ((alice, True), (stranger, False)):
        async with channel(certificate) as wire:
            listed = a2a_pb2_grpc.A2AServiceStub(wire).ListTasks(a2a.ListTasksRequest(tenant="worker"))
            if allowed:
                assert (await soon(listed, 20)).total_size == 1
            else:
                with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                    await soon(listed, 20)


async def test_an_api_key_may_be_in_the_query_or_a_cookie_where_the_gateway_says_so(
    worker: Agent, make_gateway: MakeGateway
) -> None:
    keys = (Identity("alice", api_key="alice-key"), Identity("bob", api_key="bob&key"))
    closed, served = await make_gateway(*keys), await make_gateway(*keys, api_key_in=["query", "cookie"])
    right = ("?api_key=alice-key", "?a=1&api%5Fkey=alice-key")

    async def asked(served: Served, query: str = "", **headers: str) -> int:
        async with httpx.AsyncClient(headers={**VERSION, **headers}) as http:
            return (await http.get(f"{served.url}/agents/worker/tasks{query}")).status_code

    for query in right:
        assert await asked(served, query) == 200
        assert await asked(closed, query) == 401
    assert await asked(served, "?api_key=bob%26key&pageSize=1") == 200
    assert await asked(served, Cookie="theme=dark; api_key=alice-key") == 200
    assert await asked(closed, Cookie="api_key=alice-key") == 401
    for query, headers in (
        ("", {"X-API-Key": "alice-key"}),
        ("?api_key=", {}),
        ("?api_key=bob-key", {}),
        ("?api_key=alice-key&api_key=bob%26key", {}),
        ("?api_key=alice-key", {"Cookie": "api_key=bob&key"}),
        ("", {"Cookie": "api_key=wrong"}),
    ):
        assert await asked(served, query, **headers) == 401, (query, headers)
    assert await asked(served, "?api_key=alice-key", Origin="https://evil.example") == 403
    async with httpx.AsyncClient() as http:
        card = (await http.get(f"{served.url}/agents/worker/.well-known/agent-card.json")).json()
    assert {each["apiKeySecurityScheme"]["location"] for each in card["securitySchemes"].values()} == {
        "query",
        "cookie",
    }
    with pytest.raises(ValueError, match="an API key can be in header, query, cookie, and not in body"):
        Gateway(keys, store=MemoryStore(), api_key_in=["body"])  # type: ignore[list-item]


async def test_keys_that_cannot_be_fetched_again_count_for_a_day_and_each_failure_is_told(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    tokens = Tokens(TokenIssuer(ISSUER, AUDIENCE, issuer.url), lambda: now[0])
    token = issuer.token("dave")

    async def subject(hours: float) -> str | None:
        now[0] = hours * 3600
        await tokens.prepare(token)
        return tokens.subject_of(token)

    assert await subject(0) == "dave"
    issuer.broken = []
    assert await subject(2) == "dave"
    assert await subject(23.9) == "dave"
    assert await subject(24.1) is None
    assert [record.getMessage().partition(" hours")[0].rpartition(" ")[2] for record in caplog.records] == [
        "22.0",
        "0.1",
        "24",
    ]
    assert "tokens are refused until they are" in caplog.records[-1].getMessage()
    issuer.broken = None
    assert await subject(24.2) == "dave"


@pytest.mark.parametrize(
    ("urls", "flow"),
    [
        ({"token_url": "https://l.example/token"}, "clientCredentials"),
        ({"token_url": "https://l.example/token", "device_url": "https://l.example/device"}, "deviceCode"),
        ({"token_url": "https://l.example/token", "authorization_url": "https://l.example/login"}, "authorizationCode"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_card_names_the_flow_with_which_a_client_gets_a_token(
    urls: dict[str, str], flow: str, issuer: Issuer
) -> None:
    card = a2a.AgentCard()
    Authentication([Identity("dave", subject="dave")], TokenIssuer(ISSUER, AUDIENCE, issuer.url, **urls)).show(card)
    [scheme] = MessageToDict(card)["securitySchemes"].values()
    assert list(scheme["oauth2SecurityScheme"]["flows"]) == [flow]


def test_identities_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    def make(*identities: Identity, **options: Any) -> Callable[[], Gateway]:
        return lambda: Gateway(identities, store=MemoryStore(), **options)

    refused: Any = [
        (make(Identity("a", api_key="x"), Identity("b", api_key="x")), "b and a have the same API key"),
        (make(Identity("a", subject="x")), "need an issuer"),
        (make(Identity("a", "x"), Identity("b")), "or another proof"),
        (lambda: Identity("a", basic="name"), "name:password"),
        (lambda: Identity("a", subject=""), "empty"),
        (lambda: by_bearer([Identity("a", api_key="x")]), "only bearer tokens"),
        (lambda: TokenIssuer("i", "a", "http://login.example/keys"), "https"),
    ]
    for made, words in refused:
        with pytest.raises(ValueError, match=words):
            made()
    (tmp_path / "callers.json").write_text('{"alice": {"api_key": "k", "subject": "s"}, "bob": {}}')
    with pytest.raises(ValueError, match="bob has no bearer token"):
        read_identities(tmp_path / "callers.json")
    (tmp_path / "tokens.json").write_text('{"issuer": "i", "audience": "a", "jwks": "keys.json"}')
    assert TokenIssuer.load(tmp_path / "tokens.json").jwks == str(tmp_path / "keys.json")
