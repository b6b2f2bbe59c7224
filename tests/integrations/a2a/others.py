"""Remote A2A agents that behave as servers of other SDKs do."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from brokers import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support import until

__all__ = ["Answers", "Other", "artifact", "asks", "task", "update"]

Answers = Callable[[str, dict[str, Any], int], Any]
"""What a request is answered: called with its method, its parameters, and how often this method was called.

The answer is a result, a list of results for a stream, a pair of a code and a message for an error, a response of
Starlette, or something to await that gives one of these.
"""


class Other:
    """A remote agent that listens.

    Attributes:
        url: The address of the agent.
        asked: How often each method was called.
        messages: The messages that the agent got.
    """

    def __init__(self, answers: Answers, streaming: bool) -> None:
        self.asked: Counter[str] = Counter()
        self.messages: list[dict[str, Any]] = []
        self._answers = answers
        self._streaming = streaming
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Other]:
        """Listen until the end of the block."""
        routes = [
            Route("/.well-known/agent-card.json", self._card),
            Route("/", self._answer, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), port=self._port, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        yield self
        server.should_exit = server.force_exit = True
        await serving

    async def _card(self, _: Request) -> Response:
        at = {"url": f"{self.url}/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        card = {"name": "other", "description": "Another agent.", "version": "1", "supportedInterfaces": [at]}
        card |= {"defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"], "skills": []}
        return JSONResponse(card | {"capabilities": {"streaming": self._streaming}})

    async def _answer(self, request: Request) -> Response:
        asked = await request.json()
        method, params = asked["method"], asked["params"]
        self.asked[method] += 1
        if "message" in params:
            self.messages.append(params["message"])
        answer = self._answers(method, params, self.asked[method])
        if asyncio.iscoroutine(answer):
            answer = await answer
        about = {"jsonrpc": "2.0", "id": asked["id"]}
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, tuple):
            return JSONResponse(about | {"error": {"code": answer[0], "message": answer[1]}})
        if isinstance(answer, dict):
            return JSONResponse(about | {"result": answer})
        lines = "".join(f"data: {json.dumps(about | {'result': each})}\n\n" for each in answer)
        return StreamingResponse(iter([lines]), media_type="text/event-stream")


def task(state: str = "WORKING", text: str | None = None, message_id: str = "m-1", **fields: Any) -> dict[str, Any]:
    """The remote task, in a state and perhaps with a message of the agent."""
    status: dict[str, Any] = {"state": f"TASK_STATE_{state}"}
    if text is not None:
        status["message"] = {"messageId": message_id, "role": "ROLE_AGENT", "parts": [{"text": text}]}
    if state == "COMPLETED":
        fields = {"artifacts": [{"artifactId": "a-1", "parts": [{"text": "the end"}]}], **fields}
    return {"id": "t-1", "contextId": "c-1", "status": status, **fields}


def update(state: str, text: str | None = None) -> dict[str, Any]:
    """An event: the task has another state."""
    return {"statusUpdate": {"taskId": "t-1", "contextId": "c-1", "status": task(state, text)["status"]}}


def artifact(text: str, **fields: Any) -> dict[str, Any]:
    """An event: a chunk of the artifact of the task."""
    made = {"artifactId": "a-1", "parts": [{"text": text}]}
    return {"artifactUpdate": {"taskId": "t-1", "contextId": "c-1", "artifact": made, **fields}}


def asks(state: str = "INPUT_REQUIRED", text: str = "Which year?") -> dict[str, Any]:
    """The task while it asks."""
    return task(state, text)
