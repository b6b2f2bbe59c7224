"""One remote tool as a LangChain tool."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Literal

from langchain_core.tools import StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from mqtt_agent import ToolCard
from mqtt_agent.sync import ToolClient as SyncToolClient

__all__ = ["HandleToolError", "MQTTTool", "legal_name", "make_tool"]

logger = logging.getLogger(__name__)

HandleToolError = bool | str | Callable[[ToolException], str]

_RUNTIME = "mqtt_runtime"
"""The name under which LangGraph injects its runtime, into ``RemoteTool``: one that no remote argument has."""

_MAX_NAME = 64


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

    # No annotations here: LangChain evaluates those of both methods, and of what they call, in every call.

    def _run(self, **prepared):
        assert self.func is not None
        return self.func(**prepared)

    async def _arun(self, **prepared):
        assert self.coroutine is not None
        return await self.coroutine(**prepared)


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
    from langchain_mqtt_agent.remote import RemoteTool  # LangGraph takes a while to import

    remote = RemoteTool(client, card, timeout)
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
