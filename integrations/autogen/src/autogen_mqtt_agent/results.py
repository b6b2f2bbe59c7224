"""How a remote tool's answer, its failure, and what it streams become AutoGen's tool results and events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from autogen_agentchat.messages import ThoughtEvent
from autogen_core import Image
from autogen_core.tools import ImageResultContent, TextResultContent, ToolResult
from mqtt_agent import CallHandle
from mqtt_agent.adapting.content import as_text, content_of
from typing_extensions import override

from autogen_mqtt_agent.parts import picture_or_words

__all__ = ["outcome_result", "partial_event"]


class PictureResult(ToolResult):
    """A result whose pictures a program can use. A model gets only text, which says that there are pictures.

    AutoGen would write each picture out as base64, which no model can see and which fills the model's context.
    """

    @override
    def to_text(self, replace_image: str | None = None) -> str:
        return super().to_text(replace_image or "[a picture, which cannot be shown here]")


def outcome_result(name: str, outcome: asyncio.Future[CallHandle]) -> ToolResult:
    """The result of a call.

    Args:
        name: The tool's name for the language model.
        outcome: A future that is done. It has the call's handle, or the error of a call that was not made.
    """
    if outcome.cancelled():
        return _error_result(name, f"{name}: the call was canceled")
    error = outcome.exception()
    if error is None:
        handle = outcome.result()
        error = handle.failure()
        if error is None and handle.response is not None:
            return _tool_result(name, handle.response.result, handle.response.content)
    return _error_result(name, str(error) or type(error).__name__)


def _error_result(name: str, message: str) -> ToolResult:
    """A failed call, as a result that the language model can read."""
    return ToolResult(name=name, result=[TextResultContent(content=message)], is_error=True)


def partial_event(tool: str, call_id: str, partial: Any) -> ThoughtEvent:
    """A value that a tool streams before its result, as an event. Every team accepts events of this type."""
    return ThoughtEvent(content=as_text(partial), source=tool, metadata={"mqtt_tool": tool, "mqtt_call_id": call_id})


def _tool_result(name: str, value: Any, beside: list[dict[str, Any]] | None) -> ToolResult:
    blocks = content_of({"content": value} if isinstance(value, list) else value, beside)
    if blocks is None:
        return ToolResult(name=name, result=[TextResultContent(content=as_text(value))])
    contents = [_content(picture_or_words(block)) for block in blocks]
    pictures = any(isinstance(each, ImageResultContent) for each in contents)
    is_error = not beside and isinstance(value, Mapping) and value.get("isError") is True
    return (PictureResult if pictures else ToolResult)(name=name, result=contents, is_error=is_error)


def _content(shown: str | Image) -> TextResultContent | ImageResultContent:
    return TextResultContent(content=shown) if isinstance(shown, str) else ImageResultContent(content=shown)
