"""A session with an MCP server, of either era, that gives results as they arrived."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import CallOptions, DispatchContext, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, encode_header_value
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.transport_context import TransportContext
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from mqtt_agent.adapting.background import within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.tools import ELICITATION
from mqtt_agent.wire import LOG_LEVELS
from pydantic import ValidationError

from mcp_mqtt_agent.callers import Callers
from mcp_mqtt_agent.child import Streams
from mcp_mqtt_agent.version import __version__

__all__ = ["Session"]

logger: logging.Logger = logger_of(__name__)

_MOST_PAGES = 1000
_LISTED_WITHIN = 120.0
"""Seconds for all pages of the list of tools."""
_TASKS = {"io.modelcontextprotocol/tasks": {}}
_RELATED = "io.modelcontextprotocol/related-task"


class _Dispatcher(JSONRPCDispatcher[TransportContext]):
    """A dispatcher that tells when its connection has ended."""

    def __init__(self, streams: Streams) -> None:
        super().__init__(*streams)
        self.ended = asyncio.Event()

    async def run(self, *args: Any, **options: Any) -> None:
        try:
            await super().run(*args, **options)
        finally:
            self.ended.set()

    @property
    def closed(self) -> bool:
        return self._closed


class Session(ClientSession):
    """A client session that offers the server nothing that the bridge cannot do: only questions in the form of a form.

    Results are not parsed: the SDK would replace a result that does not fit its tool's schema by an error, and one
    invalid tool in a list would hide all others.

    Args:
        streams: The connection to the server.
        on_message: Called with each notification of the server.

    Attributes:
        ended: Set when the connection has ended.
        callers: The calls that run at the server.
    """

    def __init__(self, streams: Streams, on_message: Callable[[types.ServerNotification], None]) -> None:
        self._own = _Dispatcher(streams)

        async def tell(message: types.ServerNotification | Exception) -> None:
            if not isinstance(message, Exception):
                on_message(message)

        super().__init__(
            dispatcher=self._own,
            message_handler=tell,
            client_info=types.Implementation(name="mcp-mqtt-agent", version=__version__),
        )
        self.ended: asyncio.Event = self._own.ended
        self.callers: Callers = Callers()
        self._logs_from = len(LOG_LEVELS)

    @property
    def closed(self) -> bool:
        """Whether the connection is about to end, or has ended. All requests fail then."""
        return self._own.closed

    @property
    def modern(self) -> bool:
        """Whether the server speaks the stateless protocol of 2026."""
        return self.protocol_version in MODERN_PROTOCOL_VERSIONS

    def _build_capabilities(self, version: str) -> types.ClientCapabilities:
        form = types.ElicitationCapability(form=types.FormElicitationCapability())
        tasks = _TASKS if version in MODERN_PROTOCOL_VERSIONS else None
        return types.ClientCapabilities(elicitation=form, extensions=tasks)

    async def _on_request(
        self, dctx: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Answer a request of the server. A question goes to the caller as it arrived, and so does the answer."""
        if method == ELICITATION and (params or {}).get("mode", "form") == "form":
            asked = dict(params or {})
            related = (asked.pop("_meta", None) or {}).get(_RELATED)
            task_id = related.get("taskId") if isinstance(related, dict) else None
            return await self.callers.ask(asked, task_id if isinstance(task_id, str) else None)
        return await super()._on_request(dctx, method, params)

    async def negotiate(self) -> None:
        """Find out which protocol the server speaks, and open the session.

        Raises:
            MCPError: The server refuses the session, or the connection has ended.
        """
        try:
            await self.discover()
        except MCPError as error:
            supported = error.data.get("supported") if isinstance(error.data, dict) else None
            if supported and not set(supported) & set(HANDSHAKE_PROTOCOL_VERSIONS):
                raise
            await self._initialize_or_discover(error.code == types.REQUEST_TIMEOUT)
        except (ValidationError, RuntimeError):  # the server answers the question, but not with a version of 2026
            await self.initialize()

    async def _initialize_or_discover(self, late: bool) -> None:
        """Open the session with a server of 2025.

        Args:
            late: Whether the server did not answer the question in time. It may be one of 2026 that starts slowly.
        """
        try:
            await self.initialize()
        except MCPError:
            if not late:
                raise
            await self.discover()

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        on_progress: ProgressFnT | None = None,
        *,
        answers: bool = False,
    ) -> dict[str, Any]:
        """Send a request, and return its result as it arrived. When the caller is canceled, the server is told.

        Args:
            method: The method.
            params: Its parameters.
            on_progress: Awaited with each progress report.
            answers: Whether somebody answers questions. A server of 2026 is told so with each request.

        Raises:
            MCPError: The server answers with an error, or the connection has ended.
        """
        data: dict[str, Any] = {"method": method, "params": dict(params or {})}
        options: CallOptions = {}
        self._stamp(data, options)
        task_id = data["params"].get("taskId")
        if self.modern and isinstance(task_id, str):  # the SDK does not know which requests name a task
            options.setdefault("headers", {})[MCP_NAME_HEADER] = encode_header_value(task_id)
        if self.modern and not answers:
            data["params"]["_meta"][types.CLIENT_CAPABILITIES_META_KEY] = {"extensions": _TASKS}
        if on_progress is not None:
            options["on_progress"] = on_progress
        return await self._own.send_raw_request(method, data["params"], options)

    async def log_from(self, level: str | None) -> None:
        """Let a server of 2025 send log messages of a level, unless it does so already. One of 2026 is told by call."""
        capabilities = self.server_capabilities
        if level not in LOG_LEVELS or self.modern or capabilities is None or capabilities.logging is None:
            return
        if LOG_LEVELS.index(level) < self._logs_from:
            self._logs_from = LOG_LEVELS.index(level)
            with contextlib.suppress(MCPError):
                await self.request("logging/setLevel", {"level": level})

    async def list_raw_tools(self) -> list[dict[str, Any]]:
        """All tools of the server, page by page, as they arrived. A list without an end is cut off.

        Raises:
            MCPError: The server answers with an error, or not in time; or the connection has ended.
        """
        found, cursor, seen = list[dict[str, Any]](), None, set[str]()
        loop = asyncio.get_running_loop()
        end = loop.time() + _LISTED_WITHIN
        while True:
            try:
                asked = self.request("tools/list", {"cursor": cursor} if cursor else {})
                page = await within(asked, max(0.0, end - loop.time()))
            except asyncio.TimeoutError:
                if not seen:
                    raise MCPError(types.REQUEST_TIMEOUT, "the server does not list its tools in time") from None
                page = {}
            tools = page.get("tools")
            found += [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break
            seen.add(cursor)
            if len(seen) >= _MOST_PAGES:
                logger.warning("the list of tools is cut off after %d pages: it has no end", _MOST_PAGES)
                break
        self._note_headers(found)
        return found

    def _note_headers(self, tools: list[dict[str, Any]]) -> None:
        """Let the SDK know which arguments a server of 2026 wants in HTTP headers too."""
        valid = list[types.Tool]()
        for tool in tools:
            try:
                valid.append(types.Tool.model_validate(tool, by_name=False))
            except ValidationError:
                continue
        self._absorb_tool_listing(types.ListToolsResult(tools=valid), complete=True)
