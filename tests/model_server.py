"""A server with OpenAI's chat completions protocol, for the providers' own clients; its answers are scripted."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

A_WORD = 0.05  # seconds between two parts of a streamed answer

Request = dict[str, Any]
Calls = list[tuple[str, dict[str, Any]]]
Says = Callable[[Request], str | Calls]


class ModelServer:
    """Answers ``POST {url}/chat/completions``, complete or as a stream, and keeps each request.

    Args:
        says: Returns the model's answer to a request: a text, or tool calls.
    """

    def __init__(self, says: Says) -> None:
        self.requests: list[Request] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not self.path.endswith("/chat/completions"):
                    self.send_error(404, f"this server has no {self.path}")
                    return
                request: Request = json.loads(body)
                kept.append(request)
                with suppress(BrokenPipeError, ConnectionResetError):  # the connection of a client that was killed
                    self._answer(request, says(request))

            def _answer(self, request: Request, said: str | Calls) -> None:
                streams = request.get("stream", False)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
                self.end_headers()
                if not streams:
                    self.wfile.write(json.dumps(_whole(request, said)).encode())
                    return
                for chunk in _chunks(request, said):
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    self.wfile.flush()
                    time.sleep(A_WORD)
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, format: str, *args: Any) -> None:
                """Print nothing: the output of a test is only the output of the product."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The base URL, for ``OPENAI_BASE_URL``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
        """Serve until the block is left, and set an API key, so that this server is used as the provider."""
        monkeypatch.setenv("OPENAI_API_KEY", "a key that this server takes")
        monkeypatch.setenv("OPENAI_BASE_URL", self.url)
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10.0)


def last_text(request: Request) -> str:
    """The text of the last message in a request."""
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def last_question(request: Request) -> int:
    """The index of the last user message in a request."""
    return max(number for number, message in enumerate(request["messages"]) if message["role"] == "user")


def results(request: Request, since: int = 0) -> list[str]:
    """The results of the tool calls in a request, in order, beginning at a message."""
    return [message["content"] for message in request["messages"][since:] if message["role"] == "tool"]


def _tool_calls(calls: Calls) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(calls)
    ]


def _head(request: Request, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex[:24]}",
        "object": kind,
        "created": int(time.time()),
        "model": request["model"],
    }


def _usage(request: Request) -> dict[str, int]:
    words = len(str(request["messages"]).split())
    return {"prompt_tokens": words, "completion_tokens": 10, "total_tokens": words + 10}


def _whole(request: Request, said: str | Calls) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said if isinstance(said, str) else None}
    if not isinstance(said, str):
        message["tool_calls"] = _tool_calls(said)
    choice = {"index": 0, "message": message, "finish_reason": "stop" if isinstance(said, str) else "tool_calls"}
    return {**_head(request, "chat.completion"), "choices": [choice], "usage": _usage(request)}


def _chunks(request: Request, said: str | Calls) -> Iterator[dict[str, Any]]:
    head = _head(request, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(said, str):
        for number, word in enumerate(said.split(" ")):
            yield chunk({"content": f" {word}" if number else word})
        yield chunk({}, "stop")
    else:
        yield chunk({"tool_calls": _tool_calls(said)})
        yield chunk({}, "tool_calls")
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _usage(request)}
