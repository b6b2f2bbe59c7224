"""LangChain's messages become A2A's parts, and parts become the content of LangChain's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from mqtt_agent.adapting.content import Block, Data, Link, Media, Text, as_text, in_words, kind_of
from mqtt_agent.adapting.parts import answer_of, read_blocks
from mqtt_agent.wire import TaskMessage, TaskResult

from langchain_mqtt_agent.content import are_blocks

__all__ = ["blocks_in", "content_from", "content_of_message", "tool_content", "value_of"]

_FILES = ("image", "audio", "video", "file")
_WORKING = ("reasoning", "thinking", "redacted_thinking", "tool_use", "function_call", "input_json_delta")
"""What a model writes for its own work. Blocks with a tool call have other types, which all name it."""
_SCHEMES = ("http", "https", "data", "gs", "s3")
"""Addresses that a model's integration may open. A peer could name a file of this computer with any other address."""
_DEFAULT_TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


def blocks_in(message: BaseMessage) -> list[Block]:
    """The content of a message in any provider's form, without the thoughts and tool calls of a model."""
    given = cast("list[dict[str, Any]]", message.content_blocks)
    return [read for block in given if not _is_working(block) and (read := _read(block)) is not None]


def _is_working(block: Mapping[str, Any]) -> bool:
    kind = str(block.get("type"))
    value = block.get("value")
    if kind == "non_standard" and isinstance(value, Mapping):
        kind = str(cast("Mapping[str, Any]", value).get("type"))
    return kind in _WORKING or "tool_call" in kind


def _read(block: Mapping[str, Any]) -> Block | None:
    kind, mime_type, url, data = (block.get(key) for key in ("type", "mime_type", "url", "base64"))
    if kind == "text" or (kind == "text-plain" and isinstance(block.get("text"), str)):
        return Text(str(block.get("text", ""))) if block.get("text") else None
    name = _name_of(block)
    if kind in (*_FILES, "text-plain") and isinstance(data, str):
        mime_type = mime_type or _DEFAULT_TYPES.get(str(kind), "application/octet-stream")
        return Media(kind_of(mime_type), data, mime_type, name=name)
    if kind in (*_FILES, "text-plain") and isinstance(url, str):
        return Link(kind_of(mime_type), url, mime_type, name)
    return Data(block["value"] if kind == "non_standard" and "value" in block else dict(block))


def _name_of(block: Mapping[str, Any]) -> str | None:
    """The name of a file, at each of the places where LangChain's integrations look for it."""
    places = [block, block.get("extras"), block.get("metadata")]
    names = [cast("Mapping[str, Any]", place).get("filename") for place in places if isinstance(place, Mapping)]
    return next((name for name in names if isinstance(name, str)), None)


def content_from(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    """The content of a message. Data becomes JSON, which every model can read."""
    if not blocks:
        return ""
    if len(blocks) == 1 and isinstance(blocks[0], (Text, Data)):
        return _write(blocks[0])["text"]
    return [_write(block) for block in blocks]


def _write(block: Block) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if isinstance(block, Data):
        return {"type": "text", "text": as_text(block.value)}
    if isinstance(block, Link) and block.uri.partition(":")[0].lower() not in _SCHEMES:
        return {"type": "text", "text": in_words([block])}
    is_video = (block.mime_type or "").startswith("video/")
    written: dict[str, Any] = {"type": "video" if is_video else block.kind}
    written |= {"base64": block.data} if isinstance(block, Media) else {"url": block.uri}
    if block.mime_type:
        written["mime_type"] = block.mime_type
    return {**written, "extras": {"filename": block.name}} if block.name else written


def content_of_message(message: TaskMessage) -> str | list[dict[str, Any]]:
    """The content of a message of a task. Content that is in LangChain's form already stays as it is."""
    if message.parts is None and (isinstance(message.content, str) or are_blocks(message.content)):
        return message.content
    return content_from(read_blocks(message))


def tool_content(value: Any) -> str | list[dict[str, Any]]:
    """The content of a tool message for a peer's answer."""
    if not are_blocks(value):
        return as_text(value)
    # LangChain converts the recordings of a tool message to text, so they are sent as files.
    return [{**block, "type": "file"} if block["type"] in ("audio", "video") else block for block in value]


def value_of(value: object, result: TaskResult | None) -> object:
    """The value of a peer's answer: its parts as LangChain's content, when it has some, and the value otherwise."""
    blocks = answer_of(result)
    return value if blocks is None else content_from(blocks)
