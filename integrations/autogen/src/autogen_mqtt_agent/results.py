"""From what a remote tool gives, or how it fails, to AutoGen's tool results."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from autogen_agentchat.messages import ThoughtEvent
from autogen_core import Image
from autogen_core.tools import ImageResultContent, TextResultContent, ToolResult
from typing_extensions import override

__all__ = ["error_result", "partial_event", "tool_result"]

Content = TextResultContent | ImageResultContent


class PictureResult(ToolResult):
    """A result whose pictures a program can use. A model gets the text alone, and so is told that there are some:
    AutoGen would write each out as base64, which no model can see and which fills its context.
    """

    @override
    def to_text(self, replace_image: str | None = None) -> str:
        return super().to_text(replace_image or "[a picture, which cannot be shown here]")


def tool_result(name: str, value: Any, blocks: list[dict[str, Any]] | None = None) -> ToolResult:
    """What a tool returned. MCP's content blocks become texts and images; any other JSON value becomes one text.

    Args:
        name: What the model calls the tool.
        value: The result.
        blocks: The content blocks beside it, for a model to read.
    """
    is_error = False
    if not blocks:
        found = value.get("content") if isinstance(value, Mapping) else value
        blocks = found if _are_blocks(found) else None
        is_error = isinstance(value, Mapping) and blocks is not None and value.get("isError") is True
    contents = [_content(block) for block in blocks or ()] or [_text(value)]
    pictures = any(isinstance(each, ImageResultContent) for each in contents)
    return (PictureResult if pictures else ToolResult)(name=name, result=contents, is_error=is_error)


def error_result(name: str, message: str) -> ToolResult:
    """A call that failed, as something that the language model can read."""
    return ToolResult(name=name, result=[TextResultContent(content=message)], is_error=True)


def partial_event(tool: str, call_id: str, partial: Any) -> ThoughtEvent:
    """Something that a tool streamed before its result: an event of a type that every team knows."""
    text = partial if isinstance(partial, str) else _json(partial)
    return ThoughtEvent(content=text, source=tool, metadata={"mqtt_tool": tool, "mqtt_call_id": call_id})


def _are_blocks(value: Any) -> bool:
    known = ("text", "image", "audio", "resource", "resource_link")
    return isinstance(value, list) and all(isinstance(each, Mapping) and each.get("type") in known for each in value)


def _content(block: Mapping[str, Any]) -> Content:
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return TextResultContent(content=block["text"])
    if block.get("type") == "image" and isinstance(block.get("data"), str):
        try:
            return ImageResultContent(content=Image.from_base64(block["data"]))
        except (OSError, ValueError, binascii.Error) as error:
            return TextResultContent(content=f"[an image that cannot be read: {error}]")
    resource = block.get("resource")
    if isinstance(resource, Mapping) and isinstance(resource.get("text"), str):
        return TextResultContent(content=resource["text"])
    return _text(block)


def _text(value: Any) -> TextResultContent:
    return TextResultContent(content=value if isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
