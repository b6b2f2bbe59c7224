"""One remote tool as a LangChain tool."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import ToolCard
from mqtt_agent.adapting.schemas import NO_ARGUMENTS, speakable
from mqtt_agent.sync import ToolClient as SyncToolClient

__all__ = ["HandleToolError", "MQTTTool", "RemoteTool", "config_of", "make_tool"]

logger: logging.Logger = logging.getLogger(__name__)

HandleToolError = bool | str | Callable[[ToolException], str]

_RUNTIME = "mqtt_runtime"
"""The name under which LangGraph injects its runtime, into what a tool calls: one that no remote argument has."""


class RemoteTool(StructuredTool):
    """A tool whose arguments are kept together, so that each may be called `config`, `run_manager` or `self`.

    Its functions take ``arguments``, ``tool_call_id`` and LangGraph's runtime as ``mqtt_runtime``.
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

    # No annotations here: LangChain evaluates those of both methods, and of what they call, in every call.

    def _run(self, **prepared):
        assert self.func is not None
        return self.func(**prepared)

    async def _arun(self, **prepared):
        assert self.coroutine is not None
        return await self.coroutine(**prepared)

    # LangChain asks for the signature in every call too: said beforehand, it takes half the time.
    _run.__signature__ = inspect.signature(_run)  # pyright: ignore[reportFunctionMemberAccess]
    _arun.__signature__ = inspect.signature(_arun)  # pyright: ignore[reportFunctionMemberAccess]


class MQTTTool(RemoteTool):
    """A tool that runs in another process, found and called over MQTT. :meth:`MQTTToolkit.get_tools` makes it.

    ``metadata["mqtt"]`` holds the tool's own name, namespace, server, title and annotations. In a tool message, the
    artifact is ``{"structured_content": ..., "call_id": ..., "server": ..., "attempt": ..., "elapsed_ms": ...}``.
    """


def config_of(runtime: Any) -> RunnableConfig:
    """The configuration of the tool's run, as LangChain or LangGraph hands it on."""
    config = ensure_config()
    if not config.get("callbacks") and getattr(runtime, "config", None):
        return ensure_config(runtime.config)  # Python 3.10 loses the context of awaited tools
    return config


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
    from langchain_mqtt_agent.calling import Calls  # LangGraph takes a while to import

    calls = Calls(client, card, timeout)
    mqtt: dict[str, Any] = {"tool": card.tool, "namespace": card.namespace, "server": card.server}
    if card.title is not None:
        mqtt["title"] = card.title
    if card.annotations is not None:
        mqtt["annotations"] = card.annotations.model_dump(exclude_none=True)
    tool = MQTTTool(
        name=name,
        description=card.description or card.title or card.tool,
        args_schema=speakable(card.input_schema),
        func=calls.invoke,
        coroutine=calls.ainvoke,
        handle_tool_error=handle_tool_error,
        metadata={"mqtt": mqtt},
    )
    if not _can_be_told(tool):
        logger.warning("tool %r: its input schema cannot be told to a language model, and is left out", card.tool)
        tool.args_schema = dict(NO_ARGUMENTS)
    return tool


def _can_be_told(tool: BaseTool) -> bool:
    try:
        return isinstance(tool.args, dict) and bool(convert_to_openai_tool(tool))
    except Exception as error:  # whatever it is that a peer wrote, the other tools must not suffer
        logger.debug("tool %r: %r", tool.name, error)
        return False
