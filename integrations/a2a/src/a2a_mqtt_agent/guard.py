"""Who may speak to the gateway over HTTP: the names of the host, who calls, and the kind and size of a body."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus, urlsplit

from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import A2AError, ContentTypeNotSupportedError
from starlette.authentication import SimpleUser
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from a2a_mqtt_agent.authentication import API_KEY_PARAMETER, Authentication
from a2a_mqtt_agent.tls import CERTIFICATE

__all__ = ["Guard"]

_JSON = ("application/json", "application/a2a+json")
_MAX_BODY = 16 * 1024 * 1024
"""Bytes. No MQTT packet of a task is larger."""
_NAME = re.compile(r"[^/?#@\\\s]*")
"""What a Host header may have. With other characters, a part of it could pass for the path of the request."""
_CARD = "/.well-known/agent-card.json"


class Guard:
    """Passes on only requests that are allowed, with the caller's agent id as the user.

    Everybody who can reach the gateway may read the cards, because a card says how callers prove who they are.

    Args:
        app: Gets the requests.
        authentication: Finds who calls.
        hosts: The names of this host that a request may have in its Host and Origin headers; none means any name.
    """

    def __init__(self, app: ASGIApp, authentication: Authentication, hosts: Iterable[str]) -> None:
        self._app = app
        self._authentication = authentication
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refused = self._refuse(request)
        if refused is None and not (request.method == "GET" and scope["path"].endswith(_CARD)):
            who = self._authentication
            await who.prepare(request.headers)
            query = scope.get("query_string", b"").decode("latin-1")
            identity = who.identity_of(request.headers, scope.get(CERTIFICATE), query)
            if identity is None:
                refused = PlainTextResponse(who.wanted, 401, {"WWW-Authenticate": who.challenges})
            else:
                # The key in the query is for the gateway alone: no method has such a parameter, and no log may show it.
                scope = {**scope, "user": SimpleUser(identity.agent_id), "query_string": _without_key(query)}
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)

    def _refuse(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not _NAME.fullmatch(host) or not self._knows(f"//{host}"):
            return PlainTextResponse("this name of the host is not allowed", 421)
        origin = request.headers.get("origin")
        if origin is not None and not self._knows(origin):
            return PlainTextResponse("this origin is not allowed", 403)
        if int(request.headers.get("content-length", "0") or 0) > _MAX_BODY:
            return PlainTextResponse("the body is too large", 413)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        if request.method == "POST" and has_body and kind not in _JSON:
            return _not_json(request)
        return None

    def _knows(self, url: str) -> bool:
        if not self._hosts:
            return True
        try:
            host = urlsplit(url).hostname
        except ValueError:
            return False
        return host is not None and host.lower() in self._hosts


def _without_key(query: str) -> bytes:
    kept = [each for each in query.split("&") if unquote_plus(each.partition("=")[0]) != API_KEY_PARAMETER]
    return "&".join(kept).encode("latin-1")


def _not_json(request: Request) -> Response:
    error: A2AError = ContentTypeNotSupportedError("The body must be application/json")
    rest = request.url.path.rstrip("/").count("/") > 2  # /agents/NAME is JSON-RPC, and what is below it is HTTP+JSON
    if rest:
        payload = build_rest_error_payload(error)
        return JSONResponse(payload, 415, media_type="application/a2a+json")
    return JSONResponse(build_error_response(None, error))


def _limited(receive: Receive) -> Receive:
    got = 0

    async def limited() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > _MAX_BODY:
            raise HTTPException(413)
        return message

    return limited
