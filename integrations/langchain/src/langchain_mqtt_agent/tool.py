"""One remote tool as a LangChain tool."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import CallHandle, ToolCard, ToolClient
from mqtt_agent.errors import CallCancelled, ToolCallError
from mqtt_agent.sync import ToolClient as SyncToolClient

from langchain_mqtt_agent._langgraph import ToolRuntime, current_runtime
from langchain_mqtt_agent.driver import OnLoop, Script, Tell, adrive, drive
from langchain_mqtt_agent.telling import Telling, heartbeat_of

__all__ = ["HandleToolError", "MQTTTool", "RemoteTool", "legal_name", "make_tool"]

logger = logging.getLogger(__name__)

HandleToolError = bool | str | Callable[[ToolException], str]

_RUNTIME = "mqtt_runtime"
"""The name under which LangGraph injects its runtime: one that no remote argument has."""

_MAX_NAME = 64
_BEAT = 0.25


class RemoteTool(StructuredTool):
    """A tool whose arguments are kept together, so that each may be called `config`, `run_manager` or `self`.

    Its functions take ``arguments``, ``tool_call_id``, LangGraph's runtime as ``mqtt_runtime``, and ``config``.
    """

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        arguments = self._parse_input(tool_input, tool_call_id)
        assert isinstance(arguments, dict)
        arguments = dict(arguments)
        runtime = arguments.pop(_RUNTIME, None)
        return (), {"arguments": arguments, "tool_call_id": tool_call_id, _RUNTIME: runtime}


class MQTTTool(RemoteTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    ``metadata["mqtt"]`` holds the tool's own name, namespace, server, title and annotations. In a tool message, the
    artifact is ``{"structured_content": ..., "call_id": ..., "server": ..., "elapsed_ms": ...}``.
    """


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


def legal_name(name: str, taken: set[str]) -> str:
    """A name that language models accept, ``[a-zA-Z0-9_-]{1,64}``, and that is not taken; it is taken then."""
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME]
    unique, number = legal, 1
    while unique in taken:
        number += 1
        suffix = f"_{number}"
        unique = legal[: _MAX_NAME - len(suffix)] + suffix
    taken.add(unique)
    return unique


class _Remote:
    def __init__(self, client: SyncToolClient, card: ToolCard, timeout: float | None) -> None:
        self._client = client
        self._tool = card.tool
        self._timeout = timeout

    def invoke(
        self,
        arguments: dict[str, Any],
        config: RunnableConfig,
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        telling = Telling(config, mqtt_runtime)
        try:
            return drive(self._script(arguments, tool_call_id), self._client, config, telling)
        except ToolCallError as error:
            raise _as_tool_exception(error) from error

    async def ainvoke(
        self,
        arguments: dict[str, Any],
        config: RunnableConfig,
        tool_call_id: str | None = None,
        mqtt_runtime: ToolRuntime = None,  # pyright: ignore[reportInvalidTypeForm, reportArgumentType]
    ) -> tuple[Any, dict[str, Any]]:
        telling = Telling(config, mqtt_runtime)
        try:
            return await adrive(self._script(arguments, tool_call_id), self._client, config, telling)
        except ToolCallError as error:
            raise _as_tool_exception(error) from error

    def _script(self, arguments: dict[str, Any], tool_call_id: str | None) -> Script[tuple[Any, dict[str, Any]]]:
        heartbeat = heartbeat_of(current_runtime())
        call = yield OnLoop(_Call.begin, (self._tool, arguments, self._timeout))
        try:
            while True:
                partial = yield OnLoop(call.next, (None if heartbeat is None else _BEAT,))
                if heartbeat is not None:
                    heartbeat()
                if partial is _OVER:
                    break
                if partial is not _NOTHING:
                    ids = {"tool": self._tool, "tool_call_id": tool_call_id, "call_id": call.handle.call_id}
                    yield Tell({**ids, "partial": partial})
            yield OnLoop(call.result)
        except (asyncio.CancelledError, KeyboardInterrupt, ToolCallError):
            # Also past its timeout: no model attaches to a call again.
            yield OnLoop(call.cancel)
            raise
        return _content_and_artifact(call.handle)


_OVER: Any = object()
_NOTHING: Any = object()


class _Call:
    """A call on the connection's loop."""

    def __init__(self, handle: CallHandle) -> None:
        self.handle = handle
        self._partials = handle.partials()
        self._coming: asyncio.Future[Any] | None = None

    @classmethod
    async def begin(cls, client: ToolClient, tool: str, arguments: dict[str, Any], timeout: float | None) -> _Call:
        return cls(await client.submit(tool, arguments, timeout=timeout))

    async def next(self, client: ToolClient, pause: float | None) -> Any:
        """The next partial; ``_NOTHING`` when there was none for ``pause`` seconds."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._next())
        await asyncio.wait([self._coming], timeout=pause)
        if not self._coming.done():
            return _NOTHING
        coming, self._coming = self._coming, None
        return coming.result()

    async def _next(self) -> Any:
        async for partial in self._partials:
            return partial
        with contextlib.suppress(Exception):  # told by result()
            await self.handle.result()
        return _OVER

    async def result(self, client: ToolClient) -> Any:
        return await self.handle.result()

    async def cancel(self, client: ToolClient) -> None:
        await self.handle.cancel("the caller gave up")


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
