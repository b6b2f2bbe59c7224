"""LangChain tools as the tools of an MQTT tool server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, Tool, ToolException, tool
from mqtt_agent import ToolContext, ToolError, ToolResult, ToolServer
from mqtt_agent.adapting.serving import serve
from mqtt_agent.sync import ToolContext as SyncToolContext
from pydantic import BaseModel

from langchain_mqtt_agent.content import text_of, to_mcp

__all__ = ["aserve_tools", "serve_tools", "tool_server"]


def tool_server(tools: Sequence[BaseTool | Callable[..., Any]], server: str, **options: Any) -> ToolServer:
    """Make a tool server with LangChain tools. The caller starts the server.

    The values that a tool gives to ``dispatch_custom_event`` are streamed to the caller. Content blocks are sent as MCP
    content. The ``structured_content`` of an artifact is sent as the result. A ``ToolException`` is a tool error.

    Args:
        tools: LangChain tools, or functions, which become tools as with ``@tool``.
        server: The server's name, the same for all its replicas.
        options: Further arguments of :class:`mqtt_agent.ToolServer`: ``broker``, ``namespace``, ``prefix``,
            ``on_conflict``, ``replica``, ``credentials``, ...

    Raises:
        InvalidIdentifier: A name cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """
    made = ToolServer(server, **options)
    for each in tools:
        offered = each if isinstance(each, BaseTool) else tool(each)
        made.add_tool(
            offered.name,
            _BlockingHandler(offered) if _blocks(offered) else _Handler(offered),
            description=offered.description,
            input_schema=_schema_of(offered),
            **_hints_of(offered),
        )
    return made


def serve_tools(
    tools: Sequence[BaseTool | Callable[..., Any]],
    server: str,
    *,
    on_started: Callable[[], None] | None = None,
    **options: Any,
) -> None:
    """Serve LangChain tools until SIGINT or SIGTERM, and block. In async code, use :func:`aserve_tools`.

    Start any number of replicas, on any hosts.

    Example:
        >>> serve_tools([search, summarize], server="toolbox")  # doctest: +SKIP

    Args:
        tools: LangChain tools, or functions, which become tools as with ``@tool``.
        server: The server's name, the same for all its replicas.
        on_started: Called when the server runs. By default, a line on the standard error says what is served.
        options: Further arguments of :class:`mqtt_agent.ToolServer`.

    Raises:
        ConnectionError: The broker cannot be reached, or it refuses the connection.
        ToolNameTaken: A server of another name offers a tool of the same name; see ``on_conflict`` and ``prefix``.
    """
    return serve(tool_server(tools, server, **options), "serve_tools", on_started)


async def aserve_tools(
    tools: Sequence[BaseTool | Callable[..., Any]],
    server: str,
    *,
    on_started: Callable[[], None] | None = None,
    **options: Any,
) -> None:
    """Serve LangChain tools until the task is canceled. The arguments are those of :func:`serve_tools`.

    Example:
        >>> await aserve_tools([search, summarize], server="toolbox")  # doctest: +SKIP
    """
    await tool_server(tools, server, **options).serve_forever(on_started)


def _schema_of(offered: BaseTool) -> dict[str, Any]:
    schema = offered.tool_call_schema  # without the arguments that LangChain injects
    if isinstance(schema, dict):
        return {"type": "object", "properties": {}, **schema}
    assert issubclass(schema, BaseModel)
    return schema.model_json_schema()


def _hints_of(offered: BaseTool) -> dict[str, Any]:
    """The hints on the card of a remote tool, when this server offers a remote tool again."""
    hints = ((offered.metadata or {}).get("mqtt") or {}).get("annotations") or {}
    names = {"read_only": "readOnlyHint", "idempotent": "idempotentHint", "destructive": "destructiveHint"}
    return {name: hints[hint] for name, hint in names.items() if hint in hints}


def _blocks(offered: BaseTool) -> bool:
    """Whether a tool has no async form. LangChain would run such a tool in the default executor of the event loop."""
    kind = type(offered)
    if isinstance(offered, (StructuredTool, Tool)):
        return offered.coroutine is None and kind.ainvoke in (StructuredTool.ainvoke, Tool.ainvoke)
    return kind.ainvoke is BaseTool.ainvoke and kind._arun is BaseTool._arun  # pyright: ignore[reportPrivateUsage]


class _Runner:
    """The base of the handlers: the parts that tools with and without an async form have in common."""

    def __init__(self, offered: BaseTool) -> None:
        # The caller of the tool decides what a language model is told of an error.
        self._tool = offered.model_copy(update={"handle_tool_error": False, "handle_validation_error": False})
        injected = set(offered.get_input_jsonschema().get("properties", ())) - set(
            _schema_of(offered).get("properties", ())
        )
        self._as_message = offered.response_format == "content_and_artifact" or bool(injected)

    def _input(self, arguments: dict[str, Any], call_id: str) -> Any:
        if self._as_message:
            return {"type": "tool_call", "id": call_id, "name": self._tool.name, "args": arguments}
        return arguments


class _Handler(_Runner):
    """Awaits a LangChain tool for each call."""

    async def __call__(self, arguments: dict[str, Any], context: ToolContext) -> Any:
        try:
            result = await self._tool.ainvoke(
                self._input(arguments, context.call_id), {"callbacks": [_Streaming(context)]}
            )
        except ToolException as error:
            raise ToolError(str(error), code=type(error).__name__) from error
        return _result_of(result)


class _BlockingHandler(_Runner):
    """Runs a LangChain tool that blocks for each call. The server calls this handler in a thread."""

    def __call__(self, arguments: dict[str, Any], context: SyncToolContext) -> Any:
        try:
            result = self._tool.invoke(
                self._input(arguments, context.call_id), {"callbacks": [_BlockingStreaming(context)]}
            )
        except ToolException as error:
            raise ToolError(str(error), code=type(error).__name__) from error
        return _result_of(result)


class _Streaming(AsyncCallbackHandler):
    """Streams the custom events of a tool to the caller."""

    def __init__(self, context: ToolContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()

    async def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        if asyncio.get_running_loop() is self._loop:
            await self._context.stream(data)
        else:  # the tool runs in a thread
            streaming = asyncio.run_coroutine_threadsafe(self._context.stream(data), self._loop)
            await asyncio.wrap_future(streaming)


class _BlockingStreaming(BaseCallbackHandler):
    """Streams the custom events of a tool that runs in a thread to the caller."""

    def __init__(self, context: SyncToolContext) -> None:
        self._context = context

    def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        self._context.stream(data)


def _result_of(result: Any) -> Any:
    if not isinstance(result, ToolMessage):
        if isinstance(result, list) and result and all(isinstance(each, dict) and "type" in each for each in result):
            return _with_blocks(result, None)
        return result
    if result.status == "error":
        raise ToolError(result.text)
    artifact = result.artifact
    structured = artifact.get("structured_content") if isinstance(artifact, dict) else None
    if isinstance(result.content, str):
        return result.content if structured is None else structured
    return _with_blocks(result.content, structured)


def _with_blocks(blocks: Sequence[Any], structured: Any) -> ToolResult:
    return ToolResult(text_of(blocks) if structured is None else structured, to_mcp(blocks))
