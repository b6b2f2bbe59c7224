"""What an MCP server over HTTP answers takes bounded memory."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest
from mcp_mqtt_agent import bounds
from mcp_mqtt_agent.bounds import AnswerTooLarge, ask_plainly, bound


class Endless(httpx2.AsyncByteStream):
    """An answer of 10,000 pieces, which stands for one without end."""

    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(10_000):
            self.sent += 1
            yield self.piece


async def ask(stream: httpx2.AsyncByteStream | bytes, **headers: str) -> bytes:
    """Ask a server that answers with these bytes."""

    async def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(stream, bytes):
            return httpx2.Response(200, headers=told, content=stream)
        return httpx2.Response(200, headers=told, stream=stream)

    hooks = {"request": [ask_plainly], "response": [bound]}
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), event_hooks=hooks) as http:
        return (await http.post("http://remote.example")).content


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_MOST", 1000)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_or_an_event_without_end_is_given_up(kind: str) -> None:
    endless = Endless(b" " * 100)
    with pytest.raises(AnswerTooLarge):
        await ask(endless, content_type=kind)
    assert endless.sent == 11


async def test_a_stream_may_have_any_number_of_events() -> None:
    assert len(await ask(Endless(b"data: 1\n\n"), content_type="text/event-stream")) == 90_000


async def test_a_compressed_answer_is_refused() -> None:
    with pytest.raises(AnswerTooLarge):
        await ask(gzip.compress(b"0" * 10_000), content_encoding="gzip")
