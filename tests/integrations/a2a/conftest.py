"""A gateway before an agent over MQTT, and clients of the A2A SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import jwt
import pytest
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.types import a2a_pb2 as a2a
from a2a_mqtt_agent import Gateway, Identity
from brokers import Broker, free_port
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import ParseDict
from jwt.algorithms import OKPAlgorithm
from mqtt_agent import Agent, MemoryStore
from support import soon

from .programs.worker import work

ISSUER, AUDIENCE = "https://login.example", "a2a-gateway"
MakeGateway = Callable[..., Awaitable["Served"]]


class Served:
    """A gateway that listens."""

    def __init__(self, gateway: Gateway, port: int, grpc: int | None, tls: Path | None = None) -> None:
        self.gateway = gateway
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        self.grpc = None if grpc is None else f"127.0.0.1:{grpc}"
        self._verify: Any = True if tls is None else ssl.create_default_context(cafile=str(tls))
        self.serving = asyncio.create_task(gateway.serve("127.0.0.1", port, grpc_port=grpc))
        self._http: list[httpx.AsyncClient] = []

    async def up(self) -> None:
        async with httpx.AsyncClient(verify=self._verify) as http:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await http.get(self.url)
                    return
                assert not self.serving.done(), self.serving
                await asyncio.sleep(0.02)

    async def client(self, agent: str = "worker", *, bearer: str | None = None, binding: str = "JSONRPC") -> Client:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        http = httpx.AsyncClient(headers=headers, timeout=30)
        self._http.append(http)
        card = await A2ACardResolver(http, f"{self.url}/agents/{agent}").get_agent_card()
        config: dict[str, Any] = {"httpx_client": http, "supported_protocol_bindings": [binding]}
        if binding == "GRPC":
            import grpc.aio

            config["grpc_channel_factory"] = grpc.aio.insecure_channel
        return ClientFactory(ClientConfig(**config, use_client_preference=True)).create(card)

    async def down(self) -> None:
        for http in self._http:
            await http.aclose()
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)
        await soon(self.gateway.stop(), 20)


@pytest.fixture
async def make_gateway(embedded: Broker, namespace: str) -> AsyncIterator[MakeGateway]:
    """Starts gateways in the test's namespace, and stops them."""
    made: list[Served] = []

    async def make(
        *identities: Identity, peers: Any = (), grpc: bool = False, tls: Path | None = None, **options: Any
    ) -> Served:
        options = {"broker": embedded.url, "namespace": namespace, "will_delay": 1, "store": MemoryStore(), **options}
        gateway = Gateway(identities or [Identity("alice")], peers, **options)
        await soon(gateway.start(), 30)
        served = Served(gateway, free_port(), free_port() if grpc else None, tls)
        made.append(served)
        await soon(served.up(), 30)
        return served

    yield make
    for served in made:
        await served.down()


@pytest.fixture
async def worker(embedded: Broker, namespace: str) -> AsyncIterator[Agent]:
    """An agent that does what its tasks say."""
    agent = Agent(
        "worker",
        broker=embedded.url,
        namespace=namespace,
        store=MemoryStore(),
        will_delay=1,
        drain_timeout=0.2,
        description="Works.",
        skills=[{"id": "work", "name": "Work", "description": "Works.", "tags": ["work"]}],
    )
    agent.on_task(work)
    async with agent:
        yield agent


def said(text: str | None = None, *parts: dict[str, Any], task: a2a.Task | None = None, **more: Any) -> Any:
    """A request with a message of the user."""
    message: dict[str, Any] = {"messageId": uuid.uuid4().hex, "role": "ROLE_USER", **more}
    message["parts"] = [*([] if text is None else [{"text": text}]), *parts]
    if task is not None:
        message |= {"taskId": task.id, "contextId": task.context_id}
    return ParseDict({"message": message}, a2a.SendMessageRequest())


async def events(client: Client, request: Any) -> list[a2a.StreamResponse]:
    """All events of a stream."""
    return [event async for event in client.send_message(request)]


async def last_task(client: Client, request: Any) -> a2a.Task:
    """The task at the end of a stream."""
    seen = await soon(events(client, request), 30)
    task_id = next(each.task.id or each.status_update.task_id for each in seen)
    return await client.get_task(a2a.GetTaskRequest(id=task_id))


class Issuer:
    """An issuer of tokens, whose public keys are at an address."""

    def __init__(self) -> None:
        self.keys: dict[str, Ed25519PrivateKey] = {"first": Ed25519PrivateKey.generate()}
        self.asked = 0
        self.broken: Any = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(issuer.jwks).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/keys"
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def jwks(self) -> dict[str, Any]:
        if self.broken is not None:
            return self.broken
        return {
            "keys": [
                {**json.loads(OKPAlgorithm.to_jwk(key.public_key())), "kid": kid} for kid, key in self.keys.items()
            ]
        }

    def token(
        self, subject: str, *, kid: str = "first", key: Any = None, algorithm: str = "EdDSA", **claims: Any
    ) -> str:
        given = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": time.time() + 600, "scope": "a b", **claims}
        given = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(given, key or self.keys["first"], algorithm, headers={"kid": kid})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()
