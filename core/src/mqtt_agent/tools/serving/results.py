"""What a handler returns when plain JSON is not enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SharedContent", "ToolResult"]


@dataclass
class ToolResult:
    """What a handler returns when plain JSON is not enough.

    Attributes:
        result: Any JSON value, for programs.
        content: MCP content blocks, for a model to read: texts, images, files.
        structured: Whether ``result`` is a value of its own. False when ``result`` is only the text of ``content``.
        meta: Any other JSON data for the caller.
    """

    result: Any
    content: list[dict[str, Any]] | None = None
    structured: bool = True
    meta: dict[str, Any] | None = None


@dataclass
class SharedContent(ToolResult):
    """A content that a handler has shared. A handler that returns it gives its caller the reference to the content.

    Attributes:
        uri: The URI with which the caller reads the content.
        size: The size of the content, in bytes.
        sha256: The SHA-256 of the content, in hexadecimal digits.
        name: The name of the content, such as a file name.
        mime_type: The MIME type of the content.
    """

    uri: str = ""
    size: int = 0
    sha256: str = ""
    name: str | None = None
    mime_type: str | None = None

    @classmethod
    def of(cls, uri: str, size: int, sha256: str, name: str | None, mime_type: str | None) -> SharedContent:
        """Make the reference to a content, as JSON and as MCP's ``resource_link``."""
        kind = {} if mime_type is None else {"mimeType": mime_type}
        result: dict[str, Any] = {"uri": uri, "size": size, "sha256": sha256, **kind}
        if name is not None:
            result["name"] = name
        link = {"type": "resource_link", "uri": uri, "name": name or "content", "size": size, **kind}
        return cls(result, [link], uri=uri, size=size, sha256=sha256, name=name, mime_type=mime_type)
