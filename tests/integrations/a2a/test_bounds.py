"""What a remote A2A agent answers takes bounded memory, and its card sends no task into a private network."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from a2a.client.errors import A2AClientError
from a2a.client.transports.http_helpers import send_http_request
from a2a.types import a2a_pb2 as a2a
from a2a_mqtt_agent import bounds, joining, pinning, proving, tokens
from a2a_mqtt_agent.bounds import AnswerTooLarge, ask_plainly, bound
from a2a_mqtt_agent.pinning import Pinning
from a2a_mqtt_agent.proving import Login, NoToken
from a2a_mqtt_agent.reaching import is_transient


class Endless(httpx.AsyncByteStream):
    """An answer of 10,000 pieces, which stands for one without end."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(10_000):
            self.sent += 1
            yield self.piece


def client(stream: httpx.AsyncByteStream | bytes, **headers: str) -> httpx.AsyncClient:
    async def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        body = {"content": stream} if isinstance(stream, bytes) else {"stream": stream}
        return httpx.Response(200, headers={k.replace("_", "-"): v for k, v in headers.items()}, **body)  # pyright: ignore[reportArgumentType]

    hooks = {"request": [ask_plainly], "response": [bound]}
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks=hooks)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_MOST", 1000)


async def test_an_answer_without_end_is_given_up_and_not_asked_for_again() -> None:
    endless = Endless(b" " * 100)
    async with client(endless) as http:
        with pytest.raises(A2AClientError) as failed:
            await send_http_request(http, http.build_request("POST", "http://remote.example"))
    assert endless.sent == 11
    assert isinstance(failed.value.__cause__, AnswerTooLarge)
    assert not is_transient(failed.value)


@pytest.mark.parametrize("gap", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_a_stream_may_have_any_number_of_events_and_no_event_without_end(gap: bytes) -> None:
    for piece, whole in ((b"data: 1" + gap, True), (gap[:1] + b"data: 1", False), (b"data: 1", False)):
        endless = Endless(piece)
        async with client(endless, content_type="text/event-stream") as http:
            async with http.stream("GET", "http://remote.example") as response:
                if whole:
                    assert len([each async for each in response.aiter_raw()]) == 10_000
                else:
                    with pytest.raises(AnswerTooLarge):
                        await response.aread()
                    assert endless.sent < 200


async def test_events_whose_end_is_in_two_pieces_end() -> None:
    class Split(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b"data: 1\r\n"
                yield b"\r"
                yield b"\n"

    async with client(Split(), content_type="text/event-stream") as http:
        async with http.stream("GET", "http://remote.example") as response:
            assert len(await response.aread()) == 11_000


async def test_an_answer_that_is_compressed_without_having_been_asked_for_is_not_unpacked() -> None:
    async with client(gzip.compress(b" " * 100_000), content_encoding="gzip") as http:
        with pytest.raises(AnswerTooLarge):
            await http.get("http://remote.example")


async def test_an_answer_of_the_usual_size_is_read() -> None:
    async with client(b'{"a": 1}') as http:
        assert await send_http_request(http, http.build_request("POST", "http://remote.example")) == {"a": 1}


@pytest.mark.parametrize(
    ("base", "place", "allowed"),
    [
        ("https://agent.example", "https://agent.example/a2a", True),
        ("https://agent.example", "https://work.example/a2a", True),
        ("https://agent.example", "http://169.254.169.254/latest", False),
        ("https://agent.example", "http://inner.example/a2a", False),
        ("https://agent.example", "http://nowhere.example/a2a", True),
        ("http://inner.example", "http://10.0.0.2/a2a", True),
    ],
)
async def test_the_card_of_a_public_host_names_no_host_of_a_private_network(
    base: str, place: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def address(host: str, port: int) -> str | None:
        if host == "nowhere.example":
            raise OSError("no address")
        return "203.0.113.7" if host in ("agent.example", "work.example") else None

    monkeypatch.setattr(joining, "public_address", address)
    card = a2a.AgentCard(supported_interfaces=[a2a.AgentInterface(url=place)])
    if allowed:
        await joining.check_places(card, httpx.URL(base))
    else:
        with pytest.raises(ConnectionError, match="no public host"):
            await joining.check_places(card, httpx.URL(base))


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    """Every HTTPS server answers without end."""
    stream, connect = Endless(b" " * 100_000), httpx.AsyncClient

    def make(**options: Any) -> httpx.AsyncClient:
        options.pop("verify", None)
        return connect(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=stream)), **options)

    monkeypatch.setattr(httpx, "AsyncClient", make)
    return stream


async def test_keys_without_end_are_not_read(endless: Endless, caplog: pytest.LogCaptureFixture) -> None:
    issuer = tokens.TokenIssuer(issuer="i", audience="a", jwks="https://issuer.example/jwks")
    await tokens.Tokens(issuer)._fetch("https://issuer.example/jwks")  # pyright: ignore[reportPrivateUsage]
    assert endless.sent <= 12
    assert "more than 1,048,576 bytes" in caplog.text


async def test_a_token_without_end_is_not_read(endless: Endless) -> None:
    login = Login(token_url="https://issuer.example/token", client_id="me", client_secret="secret")
    with pytest.raises(NoToken, match="more than 65,536 bytes"):
        await proving._fetch(login)  # pyright: ignore[reportPrivateUsage]
    assert endless.sent == 1


async def test_a_public_agent_whose_name_stands_for_a_private_address_later_gets_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses: dict[str, str | None] = {"agent.example": "203.0.113.7", "inner.example": None}

    async def address(host: str, port: int) -> str | None:
        return addresses[host]

    monkeypatch.setattr(pinning, "public_address", address)
    monkeypatch.setattr(pinning, "getproxies", dict)
    asked: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    guard = Pinning()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), event_hooks={"request": [guard.pin]}) as http:
        await guard.begin(httpx.URL("http://inner.example"))
        await http.get("http://inner.example/a2a")
        await guard.begin(httpx.URL("https://agent.example"))
        await http.get("https://agent.example/a2a")
        assert [each.url.host for each in asked] == ["inner.example", "203.0.113.7"]
        assert (asked[1].headers["Host"], asked[1].extensions["sni_hostname"]) == ("agent.example", "agent.example")
        addresses["agent.example"] = None
        with pytest.raises(httpx.ConnectError, match="no public host any more"):
            await http.get("https://agent.example/a2a")
    assert len(asked) == 2


async def test_a_token_that_was_withdrawn_is_replaced_in_a_request_that_was_sent_to_a_checked_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def address(host: str, port: int) -> str | None:
        return "203.0.113.7"

    async def fetch(login: Login) -> tuple[str, float]:
        numbers.append(len(numbers))
        return f"token-{len(numbers)}", 600.0

    numbers: list[int] = []
    monkeypatch.setattr(pinning, "public_address", address)
    monkeypatch.setattr(pinning, "getproxies", dict)
    monkeypatch.setattr(proving, "_fetch", fetch)
    asked: list[tuple[str, str, str]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        proof = request.headers["Authorization"]
        asked.append((request.url.host, request.extensions["sni_hostname"], proof))
        return httpx.Response(401 if proof == "Bearer token-1" else 200)

    guard, base = Pinning(), httpx.URL("https://agent.example")
    login = Login(token_url="https://issuer.example/token", client_id="me", client_secret="secret")
    asking = [joining._headers_for(base, {"X-Team": "a"}), guard.pin]  # pyright: ignore[reportPrivateUsage]
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer),
        event_hooks={"request": asking},
        auth=proving.LoginAuth(login, a2a.AgentCard(), base),
    ) as http:
        await guard.begin(base)
        assert (await http.get("https://agent.example/a2a")).status_code == 200
    assert asked == [("203.0.113.7", "agent.example", f"Bearer token-{number}") for number in (1, 2)]
    assert caplog.messages == []


async def test_names_are_left_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def address(host: str, port: int) -> str | None:
        return "203.0.113.7"

    monkeypatch.setattr(pinning, "public_address", address)
    monkeypatch.setattr(pinning, "getproxies", lambda: {"https": "http://proxy.example"})
    guard = Pinning()
    await guard.begin(httpx.URL("https://agent.example"))
    request = httpx.Request("GET", "https://agent.example")
    await guard.pin(request)
    assert request.url.host == "agent.example"
