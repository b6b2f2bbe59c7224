"""Offers every tool of one MCP server as a tool of MQTT.Agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, cast

from mcp_types import METHOD_NOT_FOUND
from mqtt_agent.adapting.changes import LISTEN
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import MQTTAgentError, ToolError, ToolNameTaken
from mqtt_agent.tools import ServerRequest, ToolContext, ToolResult, ToolServer
from mqtt_agent.wire import validate_identifier

from mcp_mqtt_agent.naming import mqtt_name
from mcp_mqtt_agent.results import answer_of
from mcp_mqtt_agent.upstream import Tools, Upstream, over_http, over_stdio

__all__ = ["Bridge"]

logger: logging.Logger = logger_of(__name__)

_RESERVED = "io.modelcontextprotocol/"
_REQUESTS = (
    *("resources/list", "resources/templates/list", "resources/read"),
    *("prompts/list", "prompts/get", "completion/complete"),
)
_GONE = "the MCP server behind the bridge does not run, or does not answer"
_LONGEST_INSTRUCTIONS = 10_000
"""Characters. The server card is published again and again."""
_HINTS = {
    "read_only": "readOnlyHint",
    "idempotent": "idempotentHint",
    "destructive": "destructiveHint",
    "open_world": "openWorldHint",
}


class Bridge:
    """A tool server whose tools are those of one MCP server.

    The tools come and go with the MCP server: while it does not run, its tools are not offered. It is started again, or
    connected again, after a pause.

    Example:
        >>> command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/data"]
        >>> async with Bridge("files", command, broker="mqtt://localhost"):  # doctest: +SKIP
        ...     await asyncio.Event().wait()

    Args:
        name: The name of the tool server.
        server: The MCP server: the words of a command, or the URL of a server that speaks streamable HTTP.
        headers: HTTP headers for each request to a URL, such as ``Authorization``.
        env: The environment of the command. None means the bridge's own environment, without ``MQTT_AGENT_PASSWORD``
            and ``MQTT_AGENT_TOKEN``.
        prefix: The text before the names of all tools; None means the name of the server and a dot.
        timeout: Seconds that each call may run at the MCP server; None means no limit.
        resources: Whether clients can ask for the resources, prompts and completions of the MCP server.
        allowed_callers: The only agent ids that may call the tools, and read the resources and prompts. The name of the
            caller must be proven, by a sender-bound topic or by a signature. None means everybody.
        options: The options of :class:`mqtt_agent.ToolServer`, such as ``broker`` and ``namespace``.

    Attributes:
        server: The tool server.
    """

    def __init__(
        self,
        name: str,
        server: Sequence[str] | str,
        *,
        headers: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        prefix: str | None = None,
        timeout: float | None = None,
        resources: bool = True,
        allowed_callers: Collection[str] | None = None,
        **options: Any,
    ) -> None:
        self.server: ToolServer = ToolServer(name, **options)
        self._prefix = f"{name}." if prefix is None else prefix
        self._timeout = timeout
        self._resources = resources
        self._allowed = None if allowed_callers is None else [validate_identifier(each) for each in allowed_callers]
        self._shown: dict[str, dict[str, Any]] = {}
        """The tools that are offered, as the MCP server described them, by their names in MQTT."""
        self._started = False
        connect = over_http(server, headers) if isinstance(server, str) else over_stdio(server, env)
        what = server if isinstance(server, str) else " ".join(server)
        self._upstream = Upstream(
            what, connect, self._on_tools, self._on_gone, self._on_change, stateless=isinstance(server, str)
        )

    async def start(self) -> None:
        """Connect to the MCP server and to the broker, and offer the tools.

        Raises:
            ConnectionError: The MCP server cannot be started, or does not answer.
            MQTTAgentError: See :meth:`ToolServer.start`.
        """
        await self._upstream.start()
        try:
            self._offer_requests()
            await self.server.start()
        except BaseException:
            await self._upstream.stop()
            raise
        self._started = True

    async def stop(self) -> None:
        """Finish the calls that run, withdraw the tools, and end the MCP server."""
        self._started = False
        try:
            await self.server.stop()
        finally:
            await self._upstream.stop()

    async def __aenter__(self) -> Bridge:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    async def run(self, on_started: Callable[[], None] | None = None) -> None:
        """Start, and serve until the asyncio task is canceled or the connection to the broker has failed for good.

        Args:
            on_started: Called when the tools are offered.

        Raises:
            ConnectionError, MQTTAgentError: See :meth:`start`.
        """
        await self._upstream.start()
        try:
            self._offer_requests()
            self._started = True
            await self.server.serve_forever(on_started)
        finally:
            self._started = False
            await self._upstream.stop()

    # Resources, prompts and completions

    def _offer_requests(self) -> None:
        offers = self._upstream.offers if self._resources else {}
        if offers:
            instructions = (self._upstream.instructions or "")[:_LONGEST_INSTRUCTIONS] or None
            self.server.answer_requests(self._answer, offers, instructions=instructions, allowed_callers=self._allowed)

    async def _answer(self, request: ServerRequest) -> dict[str, Any]:
        self._check_proven(request)
        if request.method == LISTEN:
            asker = request.client, request.bound or request.verified is not None
            return await self._upstream.listen(request.params, asker)
        if request.method not in _REQUESTS:
            raise ToolError(f"this bridge does not pass on {request.method}", code=str(METHOD_NOT_FOUND))
        return await self._upstream.request(request.method, request.params)

    async def _on_change(self, method: str, params: dict[str, Any]) -> None:
        """Tell the clients that listen of a change."""
        if self._started:
            with contextlib.suppress(RuntimeError):  # the tool server starts or stops just now, and nobody listens
                await self.server.tell_change(method, params)

    def _check_proven(self, asked: ServerRequest | ToolContext) -> None:
        """Refuse a caller whose name nothing proves. The tool server itself refuses the proven names of others."""
        if self._allowed is not None and not asked.bound and asked.verified is None:
            what = f"server {self.server.name} serves only some callers, and nothing proves that {asked.client} asks"
            raise ToolError(f"{what}: call on sender-bound topics", type="unauthorized", code="NOT_PROVEN")

    # The tools

    async def _on_tools(self, tools: Tools) -> None:
        """Offer exactly these tools. A tool that cannot be offered hides no other."""
        wanted = self._named(tools)
        changes: list[Awaitable[None]] = [self._withdraw(name) for name in self._shown if name not in wanted]
        for name, tool in wanted.items():
            if name not in self._shown:
                changes.append(self._offer(name, tool, self.server.add_tool))
            elif tool != self._shown[name]:
                changes.append(self._offer(name, tool, self.server.replace_tool))
        await asyncio.gather(*changes)
        await self._say_unavailable(None)  # last, so that no list of tools lacks these without saying so

    async def _on_gone(self) -> None:
        await self._say_unavailable(_GONE)
        await asyncio.gather(*(self._withdraw(name) for name in list(self._shown)))

    async def _say_unavailable(self, reason: str | None) -> None:
        try:
            await self.server.say_unavailable(reason)
        except MQTTAgentError as error:
            logger.warning("server %s could not publish its card: %s", self.server.name, error)

    def _named(self, tools: Tools) -> dict[str, dict[str, Any]]:
        """The tools by their names in MQTT. A second tool of a name is left out."""
        named: dict[str, dict[str, Any]] = {}
        for tool in tools:
            own = tool.get("name")
            if not isinstance(own, str) or not own or not isinstance(tool.get("inputSchema"), dict):
                logger.warning(
                    "a tool of server %s is left out, because it has no name or no schema: %.200r",
                    self.server.name,
                    tool,
                )
                continue
            name = mqtt_name(self._prefix, own)
            if name in named:
                logger.warning("server %s has several tools %r, and only the first is offered", self.server.name, own)
            named.setdefault(name, tool)
        return named

    async def _offer(self, name: str, tool: dict[str, Any], change: Callable[..., Any]) -> None:
        was, self._shown[name] = self._shown.get(name), tool
        try:
            offered = change(name, self._handler(tool), **self._described(tool))
            if self._started:
                await offered
        except ToolNameTaken:
            self._shown.pop(name, None)  # the log says it, and the next list of tools is another try
        except (MQTTAgentError, ValueError, TypeError) as error:
            logger.warning("tool %s is left out, because it cannot be offered: %s", name, error)
            if was is None:
                self._shown.pop(name, None)

    async def _withdraw(self, name: str) -> None:
        self._shown.pop(name, None)
        try:
            removed = self.server.remove_tool(name)
            if self._started:
                await removed
        except (MQTTAgentError, ValueError) as error:
            logger.warning("tool %s could not be withdrawn: %s", name, error)

    def _described(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        hints = _mapping(tool.get("annotations"))
        execution, icons = _mapping(tool.get("execution")), tool.get("icons")
        output = tool.get("outputSchema")
        about: dict[str, Any] = {
            "description": _text(tool.get("description")) or "",
            "input_schema": tool["inputSchema"],
            "output_schema": output if isinstance(output, dict) else None,
            "title": _text(tool.get("title")) or _text(hints.get("title")),
            "icons": [icon for icon in icons if isinstance(icon, dict)] if isinstance(icons, list) else None,
            "meta": _mapping(tool.get("_meta")) or None,
            "mcp_name": tool["name"],
            "task_support": _text(execution.get("taskSupport")),
            "timeout": self._timeout,
            "validate": False,
            "whole_arguments": True,
            "allowed_callers": self._allowed,
        }
        return about | {ours: hints[theirs] for ours, theirs in _HINTS.items() if isinstance(hints.get(theirs), bool)}

    def _handler(self, tool: Mapping[str, Any]) -> Callable[..., Awaitable[ToolResult]]:
        name, hints = tool["name"], _mapping(tool.get("annotations"))
        as_task = _mapping(tool.get("execution")).get("taskSupport") in ("optional", "required")
        repeatable = bool(hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True)

        async def call(arguments: dict[str, Any], context: ToolContext) -> ToolResult:
            self._check_proven(context)
            params: dict[str, Any] = {"name": name, "arguments": arguments}
            meta = {key: each for key, each in context.meta.items() if not key.startswith(_RESERVED)}
            meta.pop("progressToken", None)
            if meta:
                params["_meta"] = meta
            return answer_of(await self._upstream.call(params, context, repeatable=repeatable, as_task=as_task))

        return call


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
