"""Serves MCP clients over streamable HTTP: who may speak to the server, and how."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

import uvicorn
from mcp.server.streamable_http_manager import DEFAULT_SESSION_IDLE_TIMEOUT
from mcp.server.transport_security import TransportSecuritySettings
from mqtt_agent import Agent
from mqtt_agent.adapting.bearers import Identity, by_bearer, identity_of, is_loopback
from mqtt_agent.adapting.http_serving import listening_at, serve_until_canceled
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools import ToolClient
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_mqtt_agent.face import Face

__all__ = ["HTTPFaces", "serve_http"]

logger: logging.Logger = logger_of(__name__)


class HTTPFaces:
    """The ASGI application that shows the tools of a namespace at the path ``/mcp``, to each caller as its own server.

    Each identity has a connection to the broker, and sessions, calls and lists that no other identity can reach. They
    are made when the identity is first used, and closed when the identity is not used any more.

    Args:
        identities: The callers. One identity without a bearer token stands for every caller, which is allowed at the
            loopback address only.
        make_client: Makes the client that speaks for an identity, or an agent, which also shows the other agents as
            tools. The client is not started.
        host: The address to listen on.
        allowed: Further names of this host that a request may have in its Host and Origin headers.
        timeout: Seconds that a call may take; None means no limit.
        servers: The names of the only tool servers that are shown; None means all servers.
        idle: Seconds after the last request of an identity until its connection is closed.

    Raises:
        ValueError: The identities cannot be told apart; or the host is not the loopback address, and there is no token.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        make_client: Callable[[Identity], ToolClient | Agent],
        *,
        host: str = "127.0.0.1",
        allowed: Sequence[str] = (),
        timeout: float | None = None,
        servers: Sequence[str] | None = None,
        idle: float = DEFAULT_SESSION_IDLE_TIMEOUT,
    ) -> None:
        self._identities = by_bearer(identities)
        if any(each.bearer is None for each in identities) and not is_loopback(host):
            raise ValueError(f"{host} can be reached by other machines, so MCP clients need a bearer token")
        security = _security(host, allowed)

        def make_face(client: ToolClient | Agent) -> Face:
            return Face(client, timeout=timeout, servers=servers)

        def make_own(identity: Identity) -> _Own:
            return _Own(identity.agent_id, lambda: make_client(identity), make_face, security, idle)

        self._own = {each.agent_id: make_own(each) for each in identities}

    @property
    def connected(self) -> list[str]:
        """The agent ids of the identities that have a connection now."""
        return [agent_id for agent_id, own in self._own.items() if own.is_open]

    async def start(self) -> None:
        """Connect now if there is only one identity, so that a wrong setting is an error at the start.

        Raises:
            MQTTAgentError: See :meth:`mqtt_agent.ToolClient.start`.
        """
        if len(self._own) == 1:
            async with next(iter(self._own.values())).in_use():
                pass

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(own.close() for own in self._own.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on to the server of its identity."""
        identity = identity_of(self._identities, Headers(scope=scope).get("authorization", ""))
        if identity is None:
            refused = PlainTextResponse("a bearer token is needed", 401, {"WWW-Authenticate": "Bearer"})
            await refused(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] == "GET" and "mcp-session-id" not in Headers(scope=scope):
            # A client that asks before it has a session takes only this answer for "there is no stream", and goes on.
            await Response(None, 405, {"Allow": "GET, POST, DELETE"})(scope, receive, send)
            return
        async with contextlib.AsyncExitStack() as stack:
            try:
                app = await stack.enter_async_context(self._own[identity.agent_id].in_use())
            except MQTTAgentError as error:
                logger.warning("%s cannot be served, because its connection failed: %s", identity.agent_id, error)
                unavailable = PlainTextResponse("the broker cannot be reached: try again later", 503)
                await unavailable(scope, receive, send)
                return
            await app(scope, receive, send)


class _Own:
    """The server of one identity, which lives from its first use until it is idle.

    The sessions of the SDK end after the same time without a request, and a call that waits for answers ends earlier.
    So nothing that a client still needs is closed.
    """

    def __init__(
        self,
        agent_id: str,
        make_client: Callable[[], ToolClient | Agent],
        make_face: Callable[[ToolClient | Agent], Face],
        security: TransportSecuritySettings,
        idle: float,
    ) -> None:
        self._agent_id = agent_id
        self._make_client = make_client
        self._make_face = make_face
        self._security = security
        self._idle = idle
        self._users = 0
        self._life: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ASGIApp] | None = None
        self._end = asyncio.Event()
        self._closing: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self._life is not None and not self._life.done()

    @contextlib.asynccontextmanager
    async def in_use(self) -> AsyncGenerator[ASGIApp]:
        """The server, which is not closed before the end of the block.

        Raises:
            MQTTAgentError: See :meth:`mqtt_agent.ToolClient.start`.
        """
        self._users += 1
        if self._closing is not None:
            self._closing.cancel()
        try:
            if self._ready is None:
                self._begin()
            assert self._ready is not None
            yield await asyncio.shield(self._ready)
        finally:
            self._users -= 1
            if not self._users:
                self._closing = asyncio.get_running_loop().call_later(self._idle, self._finish)

    async def close(self) -> None:
        """Close the server."""
        if self._closing is not None:
            self._closing.cancel()
        ready = self._ready
        self._finish()
        if self._life is None:
            return
        if ready is not None and not ready.done():
            self._life.cancel()  # the broker may never answer
        await asyncio.wait([self._life])

    def _begin(self) -> None:
        self._ready, self._end = asyncio.get_running_loop().create_future(), asyncio.Event()
        name = f"mcp-mqtt-agent {self._agent_id}"
        self._life = asyncio.create_task(self._live(self._life, self._ready, self._end), name=name)

    def _finish(self) -> None:
        self._end.set()
        self._ready = None

    async def _live(
        self, earlier: asyncio.Task[None] | None, ready: asyncio.Future[ASGIApp], end: asyncio.Event
    ) -> None:
        """Serve until the end, all in one task: the SDK's sessions must end in the task that began them."""
        try:
            if earlier is not None:
                await asyncio.wait([earlier])  # both may have the same MQTT client id
            async with self._make_client() as client:
                client.connection.on_failed.append(lambda error: self._on_failed(ready, end, error))
                face = self._make_face(client)
                app = face.server.streamable_http_app(
                    transport_security=self._security, session_idle_timeout=self._idle
                )
                async with face.live(), app.router.lifespan_context(app):
                    ready.set_result(app)
                    await end.wait()
        except Exception as error:
            self._forget(ready)
            if ready.done():
                logger.warning("the connection of %s was not closed in order: %s", self._agent_id, error)
            else:
                ready.set_exception(error)
                ready.exception()  # so that nothing complains when no request waits any more
        finally:
            ready.cancel()

    def _on_failed(self, ready: asyncio.Future[ASGIApp], end: asyncio.Event, error: MQTTAgentError) -> None:
        logger.warning("%s has lost its connection, and its next request makes another: %s", self._agent_id, error)
        self._forget(ready)
        end.set()

    def _forget(self, ready: asyncio.Future[ASGIApp]) -> None:
        """Let the next request begin another life."""
        if self._ready is ready:
            self._ready = None


def _security(host: str, allowed: Sequence[str]) -> TransportSecuritySettings:
    """Which Host and Origin headers a request may have."""
    names = [f"[{host}]" if ":" in host else host, *allowed]
    if is_loopback(host):
        names += ["127.0.0.1", "localhost", "[::1]"]
    return TransportSecuritySettings(
        allowed_hosts=[each for name in names for each in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{each}" for name in names for each in (name, f"{name}:*") for scheme in ("http", "https")
        ],
    )


async def serve_http(
    faces: HTTPFaces, host: str, port: int, on_listening: Callable[[int], object] | None = None
) -> None:
    """Serve MCP clients until a signal.

    Args:
        faces: What is shown.
        host: The address to listen on.
        port: The port; 0 lets the system choose one.
        on_listening: Called with the port when clients can connect.

    Raises:
        OSError: The address cannot be used.
        MQTTAgentError: See :meth:`HTTPFaces.start`.
    """
    config = uvicorn.Config(faces, lifespan="off", log_level="warning", timeout_graceful_shutdown=2)
    with listening_at(host, port) as listening:
        try:
            await faces.start()
            if on_listening is not None:
                on_listening(listening.getsockname()[1])
            await serve_until_canceled(uvicorn.Server(config), listening)
        finally:
            await faces.stop()
