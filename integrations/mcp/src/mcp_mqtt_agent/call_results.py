"""Turns cards and results of tools into what MCP clients get."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.schemas import fits
from mqtt_agent.errors import CallError, InvalidArguments, MQTTAgentError, ToolFailed, ToolUnavailable
from mqtt_agent.tools import CallHandle
from mqtt_agent.wire import Response, ToolCard
from pydantic import TypeAdapter, ValidationError

from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.hiding import hidden

__all__ = ["answer_of_call", "complete", "failed_call", "showable", "tool_of"]

_TASK_SUPPORT = ("forbidden", "optional", "required")
_DATA = "mqtt-agent/data"
"""The key in ``_meta`` of a failed call for data that does not fit the output schema."""
_BLOCK: TypeAdapter[types.ContentBlock] = TypeAdapter(types.ContentBlock)


def showable(answer: dict[str, Any]) -> dict[str, Any]:
    """A result whose blocks MCP knows. Every other block becomes text."""
    blocks: list[Any] = answer["content"]
    return answer | {"content": [block if _is_block(block) else _text(as_text(block)) for block in blocks]}


def complete(ctx: Context, answer: dict[str, Any]) -> dict[str, Any]:
    """Finish a result as the client's protocol has it."""
    answer = showable(answer)
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        answer["resultType"] = "complete"
    return answer


def _is_block(block: Any) -> bool:
    try:
        _BLOCK.validate_python(block, by_name=False)
    except ValidationError:
        return False
    return True


def tool_of(name: str, card: ToolCard) -> types.Tool:
    """A tool for MCP clients.

    Raises:
        ValidationError: MCP cannot show the card.
    """
    fields: dict[str, Any] = {
        "name": name,
        "title": card.title,
        "description": card.description or None,
        "inputSchema": {"type": "object", **card.input_schema},
        "outputSchema": _output_of(card),
        "annotations": None if card.annotations is None else card.annotations.model_dump(exclude_none=True),
        "icons": card.icons,
        "execution": {"taskSupport": card.task_support} if card.task_support in _TASK_SUPPORT else None,
        "_meta": {**(card.meta or {}), "mqtt-agent/tool": card.tool, "mqtt-agent/server": card.server},
    }
    return types.Tool.model_validate({key: each for key, each in fields.items() if each is not None}, by_name=False)


async def answer_of_call(handle: CallHandle, card: ToolCard) -> dict[str, Any]:
    """The result of ``tools/call``.

    Args:
        handle: The call.
        card: The card of the tool, as the client was shown it.
    """
    try:
        result = await handle.result()
    except CallError as error:
        return failed_call(error, handle.response, card)
    except MQTTAgentError as error:
        raise hidden(error, "the result of the call cannot be got") from error
    response = handle.response
    assert response is not None
    answer: dict[str, Any] = {"content": response.content or [_text(as_text(result))]}
    if response.structured is not False and isinstance(result, dict):
        answer["structuredContent"] = result
    if response.meta:
        answer["_meta"] = response.meta
    return answer


def failed_call(error: CallError, response: Response | None = None, card: ToolCard | None = None) -> dict[str, Any]:
    """The result of a call that has failed.

    Some clients check the structured content of an error too, and show an error of their own when it does not fit the
    tool's output schema. So data that does not fit goes into ``_meta``.

    Args:
        error: The error.
        response: The response of the call, if there is one.
        card: The card of the tool, if the call was made.

    Raises:
        MCPError: The tool is at an MCP server, which answered with a JSON-RPC error.
    """
    fault = None if response is None else response.error
    code = fault.code if fault is not None else None
    if isinstance(error, (ToolFailed, InvalidArguments)) and code is not None and code.lstrip("-").isdecimal():
        assert fault is not None
        raise MCPError(int(code), fault.message, fault.data) from error
    content = error.content if isinstance(error, ToolFailed) else None
    answer: dict[str, Any] = {"content": content or [_text(str(error))], "isError": True}
    if isinstance(error, ToolFailed) and isinstance(error.data, dict):
        schema = None if card is None else _output_of(card)
        if schema is None or fits(error.data, schema):
            answer["structuredContent"] = error.data
        else:
            answer["_meta"] = {_DATA: error.data}
    if isinstance(error, ToolUnavailable):
        answer["_meta"] = {"mqtt-agent/maybe_executed": error.maybe_executed}
    return answer


def _output_of(card: ToolCard) -> dict[str, Any] | None:
    """The output schema that clients are shown. They refuse a result that is no object when a tool has one."""
    output = card.output_schema
    return output if output is not None and output.get("type") == "object" else None


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
