"""Turns what an MCP server answers into results and errors of a tool call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from mqtt_agent.adapting.content import as_text
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ToolResult

__all__ = ["answer_of", "error_of", "text_of", "unavailable"]


def text_of(content: list[dict[str, Any]]) -> str:
    """The texts of content blocks, one block a line."""
    return "\n".join(str(block["text"]) for block in content if block.get("type") == "text" and "text" in block)


def answer_of(raw: Mapping[str, Any]) -> ToolResult:
    """The result of a call.

    Args:
        raw: The result of ``tools/call`` as it arrived.

    Raises:
        ToolError: The tool has failed, or the server asks for something that the bridge cannot give.
    """
    kind = raw.get("resultType", "complete")
    if kind != "complete":
        raise ToolError(f"the MCP server answers with {kind!r}, which this bridge cannot pass on", code="NOT_SUPPORTED")
    blocks = raw.get("content")
    content = [cast("dict[str, Any]", block) for block in blocks or () if isinstance(block, dict)]
    structured, text = raw.get("structuredContent"), text_of(content)
    if raw.get("isError"):
        if not text and structured is not None:
            text = as_text(structured)  # the only reason that there is, and a model must be able to read it
        raise ToolError(text or "the tool failed without a reason", data=structured, content=content)
    meta = raw.get("_meta") or None
    if "structuredContent" in raw:
        return ToolResult(structured, content, meta=meta)
    return ToolResult(text, content, structured=False, meta=meta)


def error_of(error: MCPError) -> ToolError:
    """The error of a call that the MCP server has answered with a JSON-RPC error."""
    kind = "invalid_arguments" if error.code == INVALID_PARAMS else "tool_error"
    return ToolError(error.message, code=str(error.code), data=error.data, type=kind)


def unavailable(message: str, *, maybe_executed: bool) -> ToolError:
    """The error of a call that got no answer from the MCP server."""
    return ToolError(message, type="unavailable", data={"maybe_executed": maybe_executed}, retryable=True)
