"""One remote tool as a LangChain tool."""

from __future__ import annotations

import contextvars
import json
import logging
from collections.abc import Callable
from typing import Any, Literal

from langchain_core.tools import StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import CallHandle, ToolCard, ToolClient
from mqtt_agent.errors import CallCancelled, ToolCallError
from mqtt_agent.sync import ToolClient as SyncToolClient

try:
    from langgraph.prebuilt import ToolRuntime
except ImportError:  # LangGraph is optional; without it nobody injects a runtime
    ToolRuntime = Any  # type: ignore[assignment,misc]

__all__ = ["HandleToolError", "MQTTTool", "make_tool"]

logger = logging.getLogger(__name__)

HandleToolError = bool | str | Callable[[ToolException], str]

_RUNTIME = "mqtt_runtime"
"""The name under which LangGraph injects its runtime: one that no remote argument has."""


class MQTTTool(StructuredTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    ``metadata["mqtt"]`` holds the tool's own name, namespace, server, title and annotations. In a tool message, the
    artifact is ``{"structured_content": ..., "call_id": ..., "server": ..., "elapsed_ms": ...}``.
    """

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        # Kept together, so that a remote argument may be called `config`, `run_manager` or `self`.
        arguments = self._parse_input(tool_input, tool_call_id)
        assert isinstance(arguments, dict)
        arguments = dict(arguments)
        runtime = arguments.pop(_RUNTIME, None)
        return (), {"arguments": arguments, "tool_call_id": tool_call_id, _RUNTIME: runtime}


def make_tool(
    client: SyncToolClient, card: ToolCard, name: str, timeout: float | None, handle_tool_error: HandleToolError
) -> MQTTTool:
    """A LangChain tool for a tool card.

    Args:
        client: Where to call it.
        card: What it is.
        name: What the language model calls it.
        timeout: Seconds for each call; None for no limit.
        handle_tool_error: See :class:`MQTTToolkit`.
    """
    remote = _Remote(client, card, timeout)
    mqtt: dict[str, Any] = {"tool": card.tool, "namespace": card.namespace, "server": card.server}
    if card.title is not None:
        mqtt["title"] = card.title
    if card.annotations is not None:
        mqtt["annotations"] = card.annotations.model_dump(exclude_none=True)
    # Without `properties`, LangChain's `.args` fails, and so do some model providers.
    no_arguments: dict[str, Any] = {"type": "object", "properties": {}}
    tool = MQTTTool(
        name=name,
        description=card.description or card.title or card.tool,
        args_schema={**no_arguments, **card.input_schema},
        func=remote.invoke,
        coroutine=remote.ainvoke,
        handle_tool_error=handle_tool_error,
        metadata={"mqtt": mqtt},
    )
    try:
        usable = isinstance(tool.args, dict) and bool(convert_to_openai_tool(tool))
    except Exception as error:  # whatever it is that a peer wrote, the other tools must not suffer
        usable = False
        logger.debug("tool %r: %r", card.tool, error)
    if not usable:
        logger.warning("tool %r: its input schema cannot be told to a language model, and is left out", card.tool)
        tool.args_schema = no_arguments
    return tool


class _Remote:
    def __init__(self, client: SyncToolClient, card: ToolCard, timeout: float | None) -> None:
        self._client = client
        self._tool = card.tool
        self._timeout = timeout

    def invoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[str, dict[str, Any]]:
        on_partial = self._writer(tool_call_id, mqtt_runtime)
        try:
            handle = self._client.run_on_loop(_call, self._tool, arguments, self._timeout, on_partial)
        except ToolCallError as error:
            raise _as_tool_exception(error) from error
        return _content_and_artifact(handle)

    async def ainvoke(
        self,
        arguments: dict[str, Any],
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[str, dict[str, Any]]:
        on_partial = self._writer(tool_call_id, mqtt_runtime)
        try:
            handle = await self._client.await_on_loop(_call, self._tool, arguments, self._timeout, on_partial)
        except ToolCallError as error:
            raise _as_tool_exception(error) from error
        return _content_and_artifact(handle)

    def _writer(self, tool_call_id: str | None, runtime: Any) -> Callable[[str, Any], None]:
        if runtime is None:
            return lambda call_id, partial: None
        context = contextvars.copy_context()  # partials arrive in another thread

        def write(call_id: str, partial: Any) -> None:
            update = {"tool": self._tool, "tool_call_id": tool_call_id, "call_id": call_id, "partial": partial}
            context.run(runtime.stream_writer, update)

        return write


async def _call(
    client: ToolClient,
    tool: str,
    arguments: dict[str, Any],
    timeout: float | None,
    on_partial: Callable[[str, Any], None],
) -> CallHandle:
    handle = await client.submit(tool, arguments, timeout=timeout)
    try:
        async for partial in handle.partials():
            on_partial(handle.call_id, partial)
        await handle.result()
    finally:
        await handle.cancel("the caller gave up")  # also past its timeout: no model attaches to a call again
    return handle


def _as_tool_exception(error: ToolCallError) -> BaseException:
    # The language model can do something about a failed call: mend its arguments, or try another way. It cannot do
    # anything about a connection that was closed.
    return error if isinstance(error, CallCancelled) else ToolException(str(error))


def _content_and_artifact(handle: CallHandle) -> tuple[str, dict[str, Any]]:
    result = handle.response.result if handle.response is not None else None
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    artifact = {
        "structured_content": result,
        "call_id": handle.call_id,
        "server": handle.server,
        "elapsed_ms": handle.elapsed_ms,
    }
    return content, artifact
