"""Results as a model reads them: MCP's content blocks and LangChain's, both ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["content_of", "to_mcp"]

_to_text = json.JSONEncoder(ensure_ascii=False).encode
_BINARY = ("image", "audio", "video", "file")


def content_of(result: Any, blocks: list[dict[str, Any]] | None = None) -> Any:
    """The content of a tool message.

    Args:
        result: Any JSON value: text as it is, a result in MCP's own form by its ``content``, anything else as JSON.
        blocks: MCP content blocks, when the tool returned some.
    """
    if not blocks and isinstance(result, Mapping) and _are_blocks(result.get("content")):
        blocks = result["content"]
    if blocks:
        return [_from_mcp(block) for block in blocks]
    return result if isinstance(result, str) else _to_text(result)


def _are_blocks(value: Any) -> bool:
    known = ("text", "image", "audio", "resource", "resource_link")
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(block, Mapping) and block.get("type") in known for block in value)
    )


def _from_mcp(block: Mapping[str, Any]) -> dict[str, Any]:
    """An MCP content block as one of LangChain's. What LangChain has no block for becomes text."""
    kind, mime = block.get("type"), block.get("mimeType")
    if kind == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if kind == "image" and isinstance(block.get("data"), str):
        return {"type": "image", "base64": block["data"], "mime_type": mime or "image/png"}
    if kind == "audio" and isinstance(block.get("data"), str):
        # As a file: LangChain writes a tool's audio blocks out as text.
        return {"type": "file", "base64": block["data"], "mime_type": mime or "audio/wav"}
    if kind == "resource_link" and isinstance(block.get("uri"), str):
        return _linked(block["uri"], mime)
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, Mapping):
        mime = resource.get("mimeType")
        if isinstance(resource.get("text"), str):
            return {"type": "text", "text": resource["text"]}
        if isinstance(resource.get("blob"), str):
            return {**_kind(mime), "base64": resource["blob"]}
    return {"type": "text", "text": _to_text(dict(block))}


def _linked(uri: str, mime: Any) -> dict[str, Any]:
    return {**_kind(mime, needed=False), "url": uri}


def _kind(mime: Any, *, needed: bool = True) -> dict[str, Any]:
    if isinstance(mime, str) and mime.startswith("image/"):
        return {"type": "image", "mime_type": mime}
    if isinstance(mime, str) or needed:
        return {"type": "file", "mime_type": mime or "application/octet-stream"}
    return {"type": "file"}


def to_mcp(content: str | Sequence[Any]) -> list[dict[str, Any]] | None:
    """LangChain's content as MCP content blocks; None for plain text, which needs none."""
    if isinstance(content, str):
        return None
    return [_to_mcp(block) for block in content]


def _to_mcp(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": str(block.get("text", ""))}
    block = _of_image_url(block) if kind == "image_url" else block
    kind = block.get("type")
    data = block.get("base64") or (block.get("data") if block.get("source_type") == "base64" else None)
    mime = block.get("mime_type")
    if kind in _BINARY and isinstance(data, str):
        mime = mime or {"image": "image/png", "audio": "audio/wav"}.get(kind, "application/octet-stream")
        if mime.startswith(("image/", "audio/")):
            return {"type": mime.split("/")[0], "data": data, "mimeType": mime}
        resource = {"uri": block.get("id") or "file:///content", "mimeType": mime, "blob": data}
        return {"type": "resource", "resource": resource}
    if kind in _BINARY and isinstance(block.get("url"), str):
        named = {"name": block["url"].rsplit("/", 1)[-1] or block["url"]}
        return {"type": "resource_link", "uri": block["url"], **named, **({"mimeType": mime} if mime else {})}
    return {"type": "text", "text": _to_text(block)}


def _of_image_url(block: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's form of an image block in LangChain's."""
    url = block.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if isinstance(url, str) and url.startswith("data:") and ";base64," in url:
        mime, _, data = url[len("data:") :].partition(";base64,")
        return {"type": "image", "base64": data, "mime_type": mime}
    return {"type": "image", "url": url} if isinstance(url, str) else dict(block, type="image_url_without_url")
