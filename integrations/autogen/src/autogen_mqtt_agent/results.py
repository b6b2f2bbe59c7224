"""From what a remote tool gives, or how it fails, to AutoGen's tool results."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from autogen_agentchat.messages import ThoughtEvent
from autogen_core import Image
from autogen_core.tools import ImageResultContent, TextResultContent, ToolResult

__all__ = ["error_result", "partial_event", "tool_result"]

Content = TextResultContent | ImageResultContent


def tool_result(name: str, value: Any) -> ToolResult:
    """What a tool returned. MCP's content blocks become texts and images; any other JSON value becomes one text."""
    blocks = value.get("content") if isinstance(value, Mapping) else value
    contents = _contents(blocks) if isinstance(blocks, list) else None
    is_error = isinstance(value, Mapping) and contents is not None and value.get("isError") is True
    return ToolResult(name=name, result=contents or [_text(value)], is_error=is_error)


def error_result(name: str, message: str) -> ToolResult:
    """A call that failed, as something that the language model can read."""
    return ToolResult(name=name, result=[TextResultContent(content=message)], is_error=True)


def partial_event(tool: str, call_id: str, partial: Any) -> ThoughtEvent:
    """Something that a tool streamed before its result: an event of a type that every team knows."""
    text = partial if isinstance(partial, str) else _json(partial)
    return ThoughtEvent(content=text, source=tool, metadata={"mqtt_tool": tool, "mqtt_call_id": call_id})


def _contents(blocks: list[Any]) -> list[Content] | None:
    contents: list[Content] = []
    for block in blocks:
        content = _content(block)
        if content is None:
            return None  # then it is data that only looks similar
        contents.append(content)
    return contents


def _content(block: Any) -> Content | None:
    if not isinstance(block, Mapping):
        return None
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return TextResultContent(content=block["text"])
    if block.get("type") == "image" and isinstance(block.get("data"), str):
        try:
            return ImageResultContent(content=Image.from_base64(block["data"]))
        except (OSError, ValueError, binascii.Error) as error:
            return TextResultContent(content=f"[an image that cannot be read: {error}]")
    return None


def _text(value: Any) -> TextResultContent:
    return TextResultContent(content=value if isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
