"""Serves MCP clients over streamable HTTP: who may speak to the server, and how."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_mqtt_agent.face import Face

__all__ = ["is_loopback", "serve_http"]


class _BearerOnly:
    """Passes on only requests with the right bearer token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                refused = PlainTextResponse(
                    "a bearer token is needed", status_code=401, headers={"WWW-Authenticate": "Bearer"}
                )
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def application(face: Face, host: str, *, token: str | None, allowed: Sequence[str] = ()) -> ASGIApp:
    """The ASGI application that shows a face at the path ``/mcp``.

    Args:
        face: What is shown.
        host: The address to listen on.
        token: The bearer token that each request must have; None means no token, on the loopback address only.
        allowed: Further names of this host that a request may have in its Host and Origin headers.

    Raises:
        ValueError: The host is not the loopback address, and there is no token.
    """
    if token is None and not is_loopback(host):
        raise ValueError(f"{host} can be reached by other machines, so MCP clients need a bearer token")
    names = [f"[{host}]" if ":" in host else host, *allowed]
    if is_loopback(host):
        names += ["127.0.0.1", "localhost", "[::1]"]
    security = TransportSecuritySettings(
        allowed_hosts=[each for name in names for each in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{each}" for name in names for each in (name, f"{name}:*") for scheme in ("http", "https")
        ],
    )
    app = face.server.streamable_http_app(host=host, transport_security=security)
    return app if token is None else _BearerOnly(app, token)


async def serve_http(
    face: Face, host: str, port: int, *, token: str | None = None, allowed: Sequence[str] = ()
) -> None:
    """Serve MCP clients until a signal; see :func:`application`."""
    app = application(face, host, token=token, allowed=allowed)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)
    async with face.live():
        await uvicorn.Server(config).serve()
