"""Answers requests that are no calls of tools: for resources, prompts and completions, as MCP servers have them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.handlers import describe, raised_by
from mqtt_agent.endpoints.room import Room
from mqtt_agent.errors import ConnectionLost, ToolError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.answers import Answers, fail
from mqtt_agent.tools.serving.content_files import Owner
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.listeners import Listeners
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import CallFault, Request, Response, checked_json, decode, encode, encode_chunk, is_identifier
from mqtt_agent.wire.calls import read_error_type
from mqtt_agent.wire.contents import CHUNK_CONTENT_TYPE, READ_CONTENT, RELEASE_CONTENT
from mqtt_agent.wire.events import LISTEN
from mqtt_agent.wire.messages import footprint
from mqtt_agent.wire.values import mended_text

__all__ = ["Answerer", "RequestHandler", "Requests", "ServerRequest"]

logger: logging.Logger = logger_of(__name__)

_AT_ONCE = 16
_MOST_WAITING = 64 * 1024 * 1024
"""Bytes of memory for the requests of proven clients that wait or are being answered, and as many for all others. A
request is acknowledged on its arrival, so the broker sends requests as fast as their clients publish them."""
_BESIDES = 4096
"""Bytes that a request takes besides its payload, about."""
_CHUNK = PublishProperties(content_type=CHUNK_CONTENT_TYPE, message_expiry=60)
"""A chunk that has waited for a minute is not wanted any more: its client has asked again, or is gone."""


@dataclass(frozen=True)
class ServerRequest:
    """A request to a tool server.

    Attributes:
        method: What is asked for, as a method of MCP such as ``resources/read``.
        params: The parameters of this method.
        client: The id of the client that asks, which it chooses itself; see ``bound`` and ``verified``.
        bound: Whether the request arrived on a sender-bound topic, whose name says that ``client`` sent it.
        verified: The id of the client if a signature proves it; None if nothing proves it.
    """

    method: str
    params: dict[str, Any]
    client: str
    bound: bool = False
    verified: str | None = None


RequestHandler = Callable[[ServerRequest], Awaitable[Any]]
"""Answers a request with the result of its method, or raises :class:`ToolError`."""


@dataclass(frozen=True)
class Answerer:
    """How a server answers requests.

    Attributes:
        handler: Answers a request.
        capabilities: The capabilities that the server card shows, with MCP's names, such as ``{"resources": {}}``.
        instructions: How to use the server, for a language model.
        allowed_callers: The only clients whose requests on sender-bound topics are answered; None means all.
    """

    handler: RequestHandler
    capabilities: Mapping[str, Any]
    instructions: str | None = None
    allowed_callers: Collection[str] | None = None


class Requests:
    """The requests to one replica of a tool server.

    Args:
        scope: What all parts of the server share.
        answerer: How requests are answered; None answers only those for contents.
        contents: What the server keeps for its clients. Without any content, and without an answerer, the server takes
            no requests, so that a server without them needs no right for their topics.

    Attributes:
        listeners: The clients that have asked for changes.
    """

    def __init__(self, scope: Scope, answerer: Answerer | None, contents: Contents) -> None:
        self._scope = scope
        self._answerer = answerer
        self._contents = contents
        self.listeners: Listeners = Listeners(scope)
        contents.on_share = self._open
        self._answers = Answers(scope)
        self._subscribed: list[tuple[str, Handler]] = []
        self._opening = asyncio.Lock()
        self._tasks = BackgroundTasks()
        self._room = Room(_MOST_WAITING)
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._chunk_turn = asyncio.Semaphore(_AT_ONCE)
        self._faults = FaultLog(logger)

    @property
    def about(self) -> dict[str, Any]:
        """The fields that the server card shows while the server is online."""
        if self._answerer is None:
            return {}
        return {"capabilities": dict(self._answerer.capabilities), "instructions": self._answerer.instructions}

    async def start(self) -> None:
        """Take requests from now on."""
        if self._answerer is not None or len(self._contents):
            await self._open()

    async def _open(self) -> None:
        """Subscribe to the requests, unless that is done."""
        scope, topics = self._scope, self._scope.topics
        async with self._opening:
            if scope.dialect.plain:
                await self._subscribe(topics.server_request(scope.server_id), self._on_request)
            if scope.dialect.bound:
                topic = topics.bound.request(scope.server_id)
                await self._subscribe(topic, self._on_bound_request, on_refused=scope.dialect.on_refused)

    async def stop(self) -> None:
        """Take no further requests, and give up those that are being answered."""
        self._tasks.cancel()
        while self._subscribed:
            await self._scope.connection.unsubscribe(*self._subscribed.pop())

    async def _subscribe(self, topic: str, handler: Handler, **options: Any) -> None:
        if any(topic == each for each, _ in self._subscribed):
            return
        with contextlib.suppress(ConnectionLost):  # the subscription is made when the connection is back
            await self._scope.connection.subscribe(topic, handler, **options)
        self._subscribed.append((topic, handler))

    def _on_bound_request(self, message: InboundMessage) -> None:
        self._on_request(message, message.topic.rpartition("/")[2])

    def _on_request(self, message: InboundMessage, sender: str | None = None) -> None:
        try:
            request = decode(Request, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable request", error)
            return
        if not is_identifier(request.client):
            self._faults.refuse(message, "a request from an impossible client name", repr(request.client))
        elif sender not in (None, request.client):
            self._faults.refuse(message, "a request in the name of another client", repr(request.client))
        elif not message.retain:
            verified = request.client if message.proves(request.client) else None
            asked = ServerRequest(request.method, request.params or {}, request.client, sender is not None, verified)
            if self._answerer is not None or asked.method in (READ_CONTENT, RELEASE_CONTENT):
                self._take(asked, request.request_id, message)

    def _take(self, asked: ServerRequest, request_id: str, message: InboundMessage) -> None:
        """Answer a request in the background, unless too many requests wait already."""
        size, proven = footprint(message.payload) + _BESIDES, asked.bound or asked.verified is not None
        if self._room.take(asked.client, size, proven=proven):
            leave = partial(self._room.leave, asked.client, size, proven=proven)
            self._tasks.start(self._answer(asked, request_id, message), on_end=leave)
            return
        why = f"too many requests of {asked.client} wait at server {self._scope.server_id}"
        self._faults.refuse(message, "a request is not answered", why)
        if asked.method != READ_CONTENT:  # the client asks again by itself for a chunk that does not arrive
            error = CallFault(type="unavailable", message=f"{why}: ask again later", retryable=True)
            response = Response(call_id=request_id, status="error", error=error, server=self._scope.server_id)
            reply_to = self._answers.topic_for(asked.client, bound=asked.bound)
            self._answers.publish_soon(request_id, reply_to, [], encode(response))

    async def _answer(self, asked: ServerRequest, request_id: str, message: InboundMessage) -> None:
        reads = asked.method == READ_CONTENT
        response = Response(call_id=request_id, server=self._scope.server_id)
        reply_to = self._answers.topic_for(asked.client, bound=asked.bound)
        try:
            # The turn lasts until the broker has the chunk, so that few chunks are in memory.
            async with self._chunk_turn if reads else self._turn:
                if reads:
                    chunk = await self._contents.read(_owner(asked), request_id, asked.params)
                    await self._scope.connection.publish(reply_to, encode_chunk(chunk), properties=_CHUNK)
                    return
                response.result = await self._result(asked)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # every exception of the handler goes to the client
            fail(response, _fault(raised_by(error)))
            if isinstance(error, ToolError) and error.type == "unauthorized":
                message.refuse(str(error), error.code or "")
            if not isinstance(error, ToolError):
                logger.exception("the request %.80s of %.80s failed", asked.method, asked.client)
        await self._answers.publish(request_id, reply_to, [], encode(response))

    async def _result(self, asked: ServerRequest) -> Any:
        if asked.method == RELEASE_CONTENT:
            self._contents.release(_owner(asked), asked.params)
            return None
        answerer, proven = self._answerer, asked.client if asked.bound else asked.verified
        assert answerer is not None
        if answerer.allowed_callers is not None and proven is not None and proven not in answerer.allowed_callers:
            what = f"{proven} is not one of the allowed callers of server {self._scope.name}"
            raise ToolError(what, type="unauthorized", code="NOT_ALLOWED")
        result = await answerer.handler(asked)
        if asked.method == LISTEN:
            result = self.listeners.listen(_owner(asked), asked.params.get("listener"), result)
        return checked_json(result, "result", asked.method)


def _owner(asked: ServerRequest) -> Owner:
    return Owner(asked.client, asked.bound or asked.verified is not None)


def _fault(error: BaseException) -> CallFault:
    kind, message = describe(error)
    if not isinstance(error, ToolError):
        return CallFault(type="tool_error", message=mended_text(message) or kind, code=kind)
    fault = CallFault(type=read_error_type(error.type), message=mended_text(message) or kind, code=error.code)
    fault.data = error.data
    return fault
