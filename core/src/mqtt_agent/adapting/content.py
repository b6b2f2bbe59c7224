"""Content blocks in a form that every adapter can turn into its framework's own blocks, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from mqtt_agent.wire.contents import CONTENT_SCHEME

__all__ = ["Block", "Data", "Link", "Media", "Text", "as_text", "content_of", "in_words", "kind_of", "to_mcp"]

_ABOUT = frozenset(("type", "annotations", "_meta"))
_MCP_KEYS = {
    "text": _ABOUT | {"text"},
    "image": _ABOUT | {"data", "mimeType"},
    "audio": _ABOUT | {"data", "mimeType"},
    "resource": _ABOUT | {"resource"},
    "resource_link": _ABOUT | {"uri", "name", "title", "description", "mimeType", "size", "icons"},
}
"""The keys of MCP's content blocks. A value with other keys is data that happens to have a ``type``."""
_MCP_RESULT = frozenset(("content", "structuredContent", "isError", "_meta"))
"""The keys of a result in MCP's own form. A value with other keys is data that happens to have a ``content``."""
_DEFAULT_MIME_TYPES = {"image": "image/png", "audio": "audio/wav", "file": "application/octet-stream"}
Kind = Literal["image", "audio", "file"]


@dataclass(frozen=True)
class Text:
    """Text for a model or a person to read."""

    text: str


@dataclass(frozen=True)
class Media:
    """An image, a recording or a file whose bytes are in the block.

    Attributes:
        kind: ``image``, ``audio`` or ``file``.
        data: The bytes, in base64.
        mime_type: For example ``image/png``.
        uri: Where the file comes from; None when the block does not name a URI.
        name: The name of the file, such as ``trip.pdf``; None when the block does not name the file.
    """

    kind: Kind
    data: str
    mime_type: str
    uri: str | None = None
    name: str | None = None

    def decoded(self) -> bytes:
        """The bytes.

        Raises:
            ValueError: ``data`` is not base64.
        """
        try:
            return base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise ValueError(f"the data of this {self.kind} is not base64: {error}") from error


@dataclass(frozen=True)
class Link:
    """An image, a recording or a file whose bytes are not in the block.

    Attributes:
        kind: ``image``, ``audio`` or ``file``.
        uri: The address of the bytes.
        mime_type: For example ``image/png``; None when the block does not name a type.
        name: The name of the file; None when the block does not name the file.
    """

    kind: Kind
    uri: str
    mime_type: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Data:
    """A JSON value for a program. A model reads it as JSON."""

    value: Any


Block = Text | Media | Link | Data


def content_of(result: Any, blocks: Sequence[Mapping[str, Any]] | None = None) -> list[Block] | None:
    """The content blocks of a tool's answer.

    Args:
        result: The tool's result, any JSON value. A result in MCP's own form, ``{"content": [...]}``, has blocks. A
            value with keys that MCP does not know is data: reading it as content would lose these keys.
        blocks: The MCP content blocks beside the result, when the tool returned some.

    Returns:
        The blocks in order, or None when the answer has no blocks: then the result itself is the answer.
    """
    if not blocks and isinstance(result, Mapping):
        whole = cast("Mapping[str, Any]", result)
        inside = whole.get("content")
        is_mcp = whole.keys() <= _MCP_RESULT and _are_blocks(inside)
        blocks = cast("list[Mapping[str, Any]]", inside) if is_mcp else None
    return [_read(block) for block in blocks] if blocks else None


def as_text(value: Any) -> str:
    """Write a JSON value for a language model: a string stays as it is, any other value becomes JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def in_words(blocks: Sequence[Block]) -> str:
    """All blocks as one text, for a framework whose tools can give text only.

    Text blocks keep their text, one block a line, and data becomes JSON. Any other block becomes a short note such as
    ``[image: image/png]`` or ``[file trip.pdf: application/pdf]``: no model can read the bytes as text, and they would
    fill the model's context.
    """
    return "\n".join(_in_words(block) for block in blocks)


def to_mcp(blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """Write blocks in MCP's form."""
    return [_write(block) for block in blocks]


def _in_words(block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Data):
        return as_text(block.value)
    what = block.uri or (block.mime_type if isinstance(block, Media) else "")
    return f"[{block.kind}: {what}]" if block.name is None else f"[{block.kind} {block.name}: {what}]"


def _are_blocks(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(map(_is_block, cast("list[object]", value)))


def _is_block(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    block = cast("Mapping[str, Any]", value)
    kind = block.get("type")
    if not isinstance(kind, str) or not block.keys() <= _MCP_KEYS.get(kind, frozenset[str]()):
        return False
    if kind in ("text", "resource_link"):
        return isinstance(block.get("text" if kind == "text" else "uri"), str)
    if kind == "resource":
        resource = block.get("resource")
        return isinstance(resource, Mapping) and _read_resource(cast("Mapping[str, Any]", resource)) is not None
    return not isinstance(_read(block), Text)


def _read(block: Mapping[str, Any]) -> Block:
    """Read an MCP block. A block without a required field becomes text, so that nothing is lost."""
    kind, mime_type = block.get("type"), block.get("mimeType")
    if kind == "text" and isinstance(block.get("text"), str):
        return Text(block["text"])
    if kind in ("image", "audio") and isinstance(block.get("data"), str):
        return Media(kind, block["data"], mime_type if isinstance(mime_type, str) else _DEFAULT_MIME_TYPES[kind])
    if kind == "resource_link" and str(block.get("uri")).startswith(CONTENT_SCHEME):
        return Text(_about_content(block))
    if kind == "resource_link" and isinstance(block.get("uri"), str):
        mime_type = mime_type if isinstance(mime_type, str) else None
        return Link(kind_of(mime_type), block["uri"], mime_type)
    resource = block.get("resource")
    if kind == "resource" and isinstance(resource, Mapping):
        found = _read_resource(cast("Mapping[str, Any]", resource))
        if found is not None:
            return found
    return Text(as_text(dict(block)))


def _about_content(block: Mapping[str, Any]) -> str:
    """What a model reads of a large content. No provider of a model could open its URI."""
    size = block.get("size")
    how_large = f" of {size:,} bytes" if isinstance(size, int) else ""
    what = f"{block.get('name') or 'content'}: a content{how_large}, which is too large to be shown here"
    return f"[{what}. A program reads it with ToolClient.open_content({block['uri']!r})]"


def _read_resource(resource: Mapping[str, Any]) -> Block | None:
    mime_type, uri = resource.get("mimeType"), resource.get("uri")
    if isinstance(resource.get("text"), str):
        return Text(resource["text"])
    if not isinstance(resource.get("blob"), str):
        return None
    mime_type = mime_type if isinstance(mime_type, str) else _DEFAULT_MIME_TYPES["file"]
    return Media(kind_of(mime_type), resource["blob"], mime_type, uri if isinstance(uri, str) else None)


def kind_of(mime_type: str | None) -> Kind:
    """Whether content of a MIME type is an ``image``, ``audio``, or any other ``file``."""
    first = (mime_type or "").partition("/")[0]
    return "image" if first == "image" else "audio" if first == "audio" else "file"


def _write(block: Block) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if isinstance(block, Data):
        return {"type": "text", "text": as_text(block.value)}
    if isinstance(block, Link):
        name = block.name or block.uri.rsplit("/", 1)[-1] or block.uri
        about = {"mimeType": block.mime_type} if block.mime_type else {}
        return {"type": "resource_link", "uri": block.uri, "name": name, **about}
    if block.kind in ("image", "audio"):
        return {"type": block.kind, "data": block.data, "mimeType": block.mime_type}
    resource = {"uri": block.uri or "file:///content", "mimeType": block.mime_type, "blob": block.data}
    return {"type": "resource", "resource": resource}
