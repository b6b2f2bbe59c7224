"""The call behind a LangChain tool, on the connection's own event loop.

Imported when the first tool is made, for LangGraph takes a while to import: it wants to see a type of its own here.
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable
from typing import Any

from langchain_core.tools import ToolException
from mqtt_agent import CallHandle, ToolCard, ToolClient
from mqtt_agent.errors import CallCancelled, ToolCallError
from mqtt_agent.sync import ToolClient as SyncToolClient

try:
    from langgraph.prebuilt import ToolRuntime
except ImportError:  # LangGraph is optional; without it nobody injects a runtime
    ToolRuntime = Any  # type: ignore[assignment,misc]

__all__ = ["RemoteTool"]

_to_text = json.JSONEncoder(ensure_ascii=False).encode


class RemoteTool:
    """The functions of a LangChain tool.

    Args:
        client: Where to call it.
        card: What it is.
        timeout: Seconds for each call; None for no limit.
    """

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
        """Call it, and block for the content and the artifact of the tool message."""
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
        """The same as :meth:`invoke`, awaited on any event loop."""
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
    content = result if isinstance(result, str) else _to_text(result)
    artifact = {
        "structured_content": result,
        "call_id": handle.call_id,
        "server": handle.server,
        "elapsed_ms": handle.elapsed_ms,
    }
    return content, artifact
