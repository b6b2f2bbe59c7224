"""Keeps a connection to an MCP server: connects, notices the end, and connects again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mqtt_agent.adapting.background import BackgroundTasks, Backoff, within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ToolContext

from mcp_mqtt_agent.bounds import ask_plainly, bound
from mcp_mqtt_agent.child import Streams, child_process
from mcp_mqtt_agent.results import error_of, unavailable
from mcp_mqtt_agent.rounds import finish
from mcp_mqtt_agent.session import Session
from mcp_mqtt_agent.watching import Asker, OnChange, Watching, changes_of

__all__ = ["Tools", "Upstream", "over_http", "over_stdio"]

logger: logging.Logger = logger_of(__name__)

Tools = list[dict[str, Any]]
Connect = Callable[[], AbstractAsyncContextManager[Streams]]

_NEGOTIATED_WITHIN = 120.0
"""Seconds. ``npx`` may have to download the server first."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_LOOK_EVERY = 30.0
"""Seconds between two looks at the tools of a server over HTTP, which may be gone without a word."""
_CLOSED = ("Connection closed", "SSE stream ")
"""How the SDK says itself that a connection has ended. Many servers use the same error code for other faults."""
_FORGOTTEN_CODES = (types.INVALID_REQUEST, types.CONNECTION_CLOSED, -32001)
_FORGOTTEN = ("session", "not initialized")
"""How servers say over HTTP that they do not know a session, each in words of its own."""
_BACK_WITHIN = 5.0
"""Seconds that a call waits for a server that is about to come back."""


def over_stdio(command: Sequence[str], env: Mapping[str, str] | None = None) -> Connect:
    """How to connect to an MCP server that is started by a command; see :func:`child_process`."""
    return lambda: child_process(command, env)


def over_http(url: str, headers: Mapping[str, str] | None = None) -> Connect:
    """How to connect to an MCP server over streamable HTTP.

    Args:
        url: The server's URL, such as ``https://tools.example/mcp``.
        headers: Headers for each request, such as ``Authorization``.
    """

    @contextlib.asynccontextmanager
    async def connect() -> AsyncGenerator[Streams]:
        # Nothing limits the time until an answer: the calls have their own deadlines.
        timeout = httpx2.Timeout(30.0, read=None)
        hooks: dict[str, list[Any]] = {"request": [ask_plainly], "response": [bound]}
        async with (
            httpx2.AsyncClient(headers=dict(headers or {}), timeout=timeout, event_hooks=hooks) as client,
            streamable_http_client(url, http_client=client, max_sse_event_size=None) as streams,
        ):
            yield streams

    return connect


class Upstream:
    """The connection of a bridge to its MCP server.

    Args:
        what: What the server is, for the log: its command or its URL.
        connect: Connects once; see :func:`over_stdio` and :func:`over_http`.
        on_tools: Awaited with the tools of the server: after each connect, and when they have changed.
        on_gone: Awaited when the connection has ended.
        on_change: Awaited with each change of the server's resources and prompts.
        stateless: Whether the connection can break without a sign, as over HTTP. Then the tools are looked at again
            and again.

    Attributes:
        connects: How many connections there were.
    """

    def __init__(
        self,
        what: str,
        connect: Connect,
        on_tools: Callable[[Tools], Awaitable[None]],
        on_gone: Callable[[], Awaitable[None]],
        on_change: OnChange,
        *,
        stateless: bool = False,
    ) -> None:
        self.connects: int = 0
        self._what = what
        self._connect = connect
        self._on_tools = on_tools
        self._on_gone = on_gone
        self._stateless = stateless
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._changed = asyncio.Event()
        self._watching = Watching(what, self._changed.set, on_change)
        self._stale = asyncio.Event()
        self._logs = BackgroundTasks(lambda task, error: logger.debug("a log message is lost: %r", error))
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Connect for the first time, and keep the connection from now on.

        Raises:
            ConnectionError: The first connection fails: the command cannot be started, or the server does not answer.
        """
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(), name=f"mcp-mqtt-agent {self._what}")
        try:
            await self._first
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Disconnect, and end the child process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._watching.stop()

    async def _keep(self) -> None:
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            connects, reason = self.connects, "the connection ended"
            try:
                await self._once()
            except Exception as error:  # whatever ends the connection, the next one is made
                reason = _innermost(error)
            await self._gone()
            if self._first is not None and not self._first.done():
                self._first.set_exception(ConnectionError(f"MCP server {self._what} does not answer: {reason}"))
                return
            if self.connects > connects:
                pauses.reset()
            pause = pauses.next_wait()
            logger.warning("MCP server %s is gone: %s; it is started again in %.1f s", self._what, reason, pause)
            await asyncio.sleep(pause)

    async def _once(self) -> None:
        """Connect, and serve until the connection ends."""
        async with self._connect() as streams, Session(streams, self._on_message) as session:
            await within(session.negotiate(), _NEGOTIATED_WITHIN)
            self._changed.clear()
            self._stale.clear()
            tools = await session.list_raw_tools()
            self._session = session
            await self._on_tools(tools)
            self.connects += 1
            self._up.set()
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
            self._watching.begin(session)
            try:
                await self._follow(session)
            finally:
                await self._watching.end()
            await self._gone()  # before the child is ended, which may take some seconds

    async def _follow(self, session: Session) -> None:
        """Read the tools again when they have changed, until the connection ends."""
        signs = [session.ended, self._stale, self._changed]
        while not (session.ended.is_set() or self._stale.is_set()):
            waiting = [asyncio.ensure_future(sign.wait()) for sign in signs]
            try:
                timeout = _LOOK_EVERY if self._stateless else None
                await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waiting:
                    each.cancel()
            if not (session.ended.is_set() or self._stale.is_set()):
                self._changed.clear()
                await self._on_tools(await session.list_raw_tools())

    def _on_message(self, message: types.ServerNotification) -> None:
        if isinstance(message, types.LoggingMessageNotification):
            self._pass_on(message.params)
        elif isinstance(message, types.ProgressNotification):
            if self._session is not None:
                self._session.callers.report(message.params)
        else:
            self._watching.on_message(message)

    def _pass_on(self, said: types.LoggingMessageNotificationParams) -> None:
        """Pass on a log message to the caller, if it is clear which call logs."""
        context = None if self._session is None else self._session.callers.only
        if context is None or context.log_level is None:
            logger.debug("MCP server %s logs: %s", self._what, said.data)
        else:
            self._logs.start(context.log(said.level, said.data, said.logger))

    async def _gone(self) -> None:
        if self._session is not None:
            self._session = None
            self._up.clear()
            await self._on_gone()

    async def call(
        self, params: Mapping[str, Any], context: ToolContext, *, repeatable: bool, as_task: bool = False
    ) -> dict[str, Any]:
        """Call a tool.

        Args:
            params: The parameters of ``tools/call``.
            context: The call over MQTT. Its caller gets the progress, the log messages and the questions.
            repeatable: Whether the call may run twice. Such a call is made again when the server has lost the session.
            as_task: Whether a server of 2025 can make a task of the call.

        Raises:
            ToolError: The server answers with an error, or it is gone.
        """
        for again in (False, True):
            session = await self._present()
            try:
                with session.callers.running(context):
                    await session.log_from(context.log_level)
                    return await finish(session, params, context, as_task=as_task)
            except MCPError as error:
                if not self._is_lost(session, error):
                    raise error_of(error) from error
                if again or not (repeatable and self._stateless):
                    raise unavailable(
                        f"the MCP server is gone, and the call may have run ({error.message})", maybe_executed=True
                    ) from error
        raise AssertionError("unreachable")

    @property
    def offers(self) -> dict[str, Any]:
        """What the server has besides tools, as its capabilities."""
        return changes_of(None if self._session is None else self._session.server_capabilities)

    @property
    def instructions(self) -> str | None:
        """How to use the server."""
        return None if self._session is None else self._session.instructions

    async def listen(self, params: dict[str, Any], asker: Asker) -> dict[str, Any]:
        """Tell the changes that a client asks for; see :meth:`Watching.ask`.

        Raises:
            ToolError: The server is gone.
        """
        return await self._watching.ask(await self._present(), params, asker)

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for the result of a method that only reads. It is asked again when the server has lost the session.

        Raises:
            ToolError: The server answers with an error or a question, or it is gone.
        """
        for again in (False, True):
            session = await self._present()
            try:
                with session.callers.running(None):
                    raw = await session.request(method, params)
            except MCPError as error:
                if again or not self._is_lost(session, error):
                    raise error_of(error) from error
                continue
            if raw.get("resultType", "complete") != "complete":
                raise ToolError("the MCP server asks for input, which this bridge cannot pass on", code="NOT_SUPPORTED")
            return raw
        raise AssertionError("unreachable")

    def _is_lost(self, session: Session, error: MCPError) -> bool:
        """Whether an error says that the session is over. A session that was only forgotten is given up."""
        closed = error.code == types.CONNECTION_CLOSED and error.message.startswith(_CLOSED)
        if session.ended.is_set() or closed:
            # Over HTTP, one request alone can lose its connection. Over pipes, the next try waits for the next session.
            if session is self._session and not self._stateless:
                self._up.clear()
            return True
        said = error.message.lower()
        unknown = error.code in _FORGOTTEN_CODES and any(each in said for each in _FORGOTTEN)
        forgotten = unknown and self._stateless and not session.modern
        if forgotten:
            self._stale.set()
            self._up.clear()
        return forgotten

    async def _present(self) -> Session:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._up.wait(), _BACK_WITHIN)
        if self._session is None:
            raise unavailable(f"MCP server {self._what} does not run now", maybe_executed=False)
        return self._session


def _innermost(error: BaseException) -> str:
    """The reason in an exception, which may be wrapped in groups."""
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]  # type: ignore[attr-defined]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
