"""Results as a language model reads them: MCP's content blocks become LangChain's, and LangChain's become MCP's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mqtt_agent.adapting.content import Block, Data, Link, Media, Text, as_text, in_words, kind_of
from mqtt_agent.adapting.content import content_of as blocks_of
from mqtt_agent.adapting.content import to_mcp as write_mcp

__all__ = ["are_blocks", "are_media", "content_of", "text_of", "to_mcp"]

_DEFAULT_MIME_TYPES = {"image": "image/png", "audio": "audio/wav"}
_BINARY = ("image", "audio", "video", "file")
_ABOUT = frozenset(("type", "id", "index", "extras", "cache_control"))
_KEYS = {
    "text": _ABOUT | {"text", "annotations"},
    "image_url": _ABOUT | {"image_url"},
    **dict.fromkeys(_BINARY, _ABOUT | {"base64", "url", "data", "source_type", "mime_type", "metadata"}),
}
"""The keys of LangChain's content blocks. A value with other keys is data that happens to have a ``type``."""


def are_blocks(value: Any) -> bool:
    """Whether a value is a list of LangChain's content blocks, and not a list of records with a key ``type``."""
    return isinstance(value, list) and bool(value) and all(map(_is_block, value))


def are_media(blocks: Sequence[str | Mapping[str, Any]]) -> bool:
    """Whether a block among content blocks is more than text."""
    return any(not isinstance(block, str) and block.get("type") != "text" for block in blocks)


def _is_block(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value.keys() <= _KEYS.get(str(value.get("type")), frozenset()):
        return False
    if value["type"] == "text":
        return isinstance(value.get("text"), str)
    return not isinstance(_to_mcp(value), Text)


def content_of(result: Any, blocks: Sequence[Mapping[str, Any]] | None = None) -> str | list[dict[str, Any]]:
    """The content of a tool message.

    Args:
        result: Any JSON value. Text stays as it is, a result in MCP's own form gives its content blocks, and any other
            value becomes JSON.
        blocks: The MCP content blocks beside the result, when the tool returned some.
    """
    found = blocks_of(result, blocks)
    return as_text(result) if found is None else [_from_mcp(block) for block in found]


def text_of(content: Sequence[str | Mapping[str, Any]]) -> str:
    """The texts in LangChain's content blocks, one block a line."""
    texts = (block if isinstance(block, str) else block.get("text") for block in content)
    return "\n".join(text for text in texts if isinstance(text, str))


def _from_mcp(block: Block) -> dict[str, Any]:
    if isinstance(block, (Text, Data)):
        return {"type": "text", "text": in_words([block])}
    # An audio block becomes a file block, because LangChain converts the audio blocks of a tool message to text.
    kind = "image" if block.kind == "image" else "file"
    if isinstance(block, Media):
        return {"type": kind, "base64": block.data, "mime_type": block.mime_type}
    return {"type": kind, "url": block.uri, **({"mime_type": block.mime_type} if block.mime_type else {})}


def to_mcp(content: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert LangChain's content blocks to MCP's content blocks."""
    return write_mcp([_to_mcp(block) for block in content])


def _to_mcp(block: str | Mapping[str, Any]) -> Block:
    if isinstance(block, str):
        return Text(block)
    if block.get("type") == "text":
        return Text(str(block.get("text", "")))
    read = _of_image_url(block) if block.get("type") == "image_url" else block
    kind, mime_type, url = str(read.get("type")), read.get("mime_type"), read.get("url")
    data = read.get("base64") or (read.get("data") if read.get("source_type") == "base64" else None)
    if kind in _BINARY and isinstance(data, str):
        mime_type = mime_type or _DEFAULT_MIME_TYPES.get(kind, "application/octet-stream")
        return Media(kind_of(mime_type), data, mime_type, read.get("id"))
    if kind in _BINARY and isinstance(url, str):
        return Link(kind_of(mime_type), url, mime_type)
    return Text(as_text(dict(block)))


def _of_image_url(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert an image block of OpenAI's form to LangChain's form."""
    url = block.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if isinstance(url, str) and url.startswith("data:") and ";base64," in url:
        mime_type, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "image", "base64": data, "mime_type": mime_type}
    return {"type": "image", "url": url if isinstance(url, str) else None}
