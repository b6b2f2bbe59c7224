"""What a served LangChain tool returns becomes the result of a call, and MCP content for a language model to read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from mqtt_agent import ToolError, ToolResult
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import WireError
from mqtt_agent.wire import to_json

from langchain_mqtt_agent.content import are_blocks, are_media, text_of, to_mcp
from langchain_mqtt_agent.tool import RemoteTool

__all__ = ["result_of"]

logger: logging.Logger = logger_of(__name__)


def result_of(tool: BaseTool, returned: Any) -> Any:
    """The result of a call.

    Only what says that it is content is sent as content: the content of a ``ToolMessage``, the first part of
    ``content_and_artifact``, and a list of LangChain's content blocks. All other values are sent as they are.

    Args:
        tool: The tool, for errors and warnings.
        returned: What the tool returned.

    Raises:
        ToolError: The tool returned an error, or a ``Command``.
    """
    if isinstance(returned, ToolMessage):
        return _of_message(tool, returned)
    if _is_command(returned) or (isinstance(returned, list) and any(map(_is_command, returned))):
        raise ToolError(
            f"tool {tool.name!r} returned a Command, and a caller of a tool has no graph that the Command could update:"
            " return the value itself, or serve the graph with serve_graph()",
            code="COMMAND",
        )
    if are_blocks(returned):
        # The bytes are sent once, as content.
        return ToolResult(text_of(returned) if are_media(returned) else returned, to_mcp(returned))
    return returned


def _of_message(tool: BaseTool, message: ToolMessage) -> Any:
    if message.status == "error":
        raise ToolError(message.text)
    artifact = _artifact_of(tool, message.artifact)
    content: str | Sequence[Any] = message.content
    if artifact is None:
        return content if isinstance(content, str) else ToolResult(text_of(content), to_mcp(content))
    structured = artifact["structured_content"] if _is_structured(tool, artifact) else artifact
    if content == as_text(structured):
        return structured
    return ToolResult(structured, to_mcp([content] if isinstance(content, str) else content))


def _is_structured(tool: BaseTool, artifact: Any) -> bool:
    """Whether an artifact is the frame of a structured result, as the artifacts of remote tools are."""
    if not isinstance(artifact, dict) or "structured_content" not in artifact:
        return False
    return len(artifact) == 1 or isinstance(tool, RemoteTool)


def _artifact_of(tool: BaseTool, artifact: Any) -> Any:
    """The artifact as JSON; None when there is none, or when JSON cannot carry it."""
    try:
        return to_json(artifact)
    except WireError as error:
        logger.warning("the caller of tool %s gets no artifact, because JSON cannot carry it: %s", tool.name, error)
        return None


def _is_command(value: Any) -> bool:
    return type(value).__name__ == "Command" and type(value).__module__ == "langgraph.types"
