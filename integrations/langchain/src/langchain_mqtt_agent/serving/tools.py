"""LangChain tools as the tools of an MQTT tool server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.tools import BaseTool, tool
from mqtt_agent import ToolServer
from mqtt_agent.adapting.serving import serve

from langchain_mqtt_agent.serving.handlers import handler_of
from langchain_mqtt_agent.serving.offer import offer_of

__all__ = ["aserve_tools", "serve_tools", "tool_server"]


def tool_server(
    tools: Sequence[BaseTool | Callable[..., Any]],
    server: str,
    *,
    store: Any = None,
    accept: Sequence[str] = (),
    **options: Any,
) -> ToolServer:
    """Make a tool server with LangChain tools. The caller starts the server.

    A served tool behaves like the local tool: its pydantic model checks and converts the arguments, its
    ``handle_tool_error`` and ``handle_validation_error`` word the errors, and its card tells whether it is
    ``return_direct``. An argument that the tool's schema does not show is refused, also one that LangChain injects.

    The values that a tool gives to ``dispatch_custom_event``, or to the stream writer of its ``ToolRuntime``, are
    streamed to the caller. Content blocks are sent as MCP content. An artifact is sent as the result. If the artifact
    has the one key ``structured_content``, the value of this key is the result.

    Args:
        tools: LangChain tools, or functions, which become tools as with ``@tool``.
        server: The server's name, the same for all its replicas.
        store: A LangGraph store for ``InjectedStore`` and ``ToolRuntime.store``.
        accept: The keys that a caller may tell; see ``context`` of :class:`MQTTToolkit`. A tool finds their values in
            ``config["configurable"]["mqtt_caller"]``. They are the caller's words, and no proof of identity.
        options: Further arguments of :class:`mqtt_agent.ToolServer`: ``broker``, ``namespace``, ``prefix``,
            ``on_conflict``, ``replica``, ``credentials``, ...

    Raises:
        InvalidIdentifier: A name cannot be used in topics.
        TypeError: A tool cannot be served: it takes the state of a graph, a store that the server does not have, or an
            injected argument without a default; or it returns a ``Command``, or calls ``interrupt()``.
        ValueError: ``broker`` is no broker URL.
    """
    made = ToolServer(server, **options)
    for each in tools:
        offered = each if isinstance(each, BaseTool) else tool(each)
        offer = offer_of(offered, has_store=store is not None)
        made.add_tool(
            offered.name,
            handler_of(offered, offer, store, accept),
            description=offered.description,
            input_schema=offer.schema,
            validate=not offer.is_model,
            meta={"langchain": {"return_direct": True}} if offered.return_direct else None,
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
        options: The other arguments of :func:`tool_server`.

    Raises:
        ConnectionError: The broker cannot be reached, or it refuses the connection.
        TypeError: A tool cannot be served; see :func:`tool_server`.
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


def _hints_of(offered: BaseTool) -> dict[str, Any]:
    """The hints on the card of a remote tool, when this server offers a remote tool again."""
    hints = ((offered.metadata or {}).get("mqtt") or {}).get("annotations") or {}
    names = {"read_only": "readOnlyHint", "idempotent": "idempotentHint", "destructive": "destructiveHint"}
    return {name: hints[hint] for name, hint in names.items() if hint in hints}
