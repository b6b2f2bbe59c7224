"""Contents: bytes that one replica of a tool server keeps for one client, which reads them chunk by chunk (ours)."""

from __future__ import annotations

from urllib.parse import quote, unquote

from pydantic import Field

from mqtt_agent.errors import WireError
from mqtt_agent.wire.identifiers import is_identifier
from mqtt_agent.wire.messages import Message, decode, encode, too_large

__all__ = [
    "CHUNK_CONTENT_TYPE",
    "CHUNK_HEADER",
    "CONTENTS",
    "CONTENT_CHANGED",
    "CONTENT_GONE",
    "CONTENT_SCHEME",
    "READ_CONTENT",
    "RELEASE_CONTENT",
    "ContentChunk",
    "chunk_header",
    "content_uri",
    "decode_chunk",
    "encode_chunk",
    "read_content_uri",
]

CONTENT_SCHEME: str = "mqtt-agent:content/"
"""The beginning of the URI of each content."""

CONTENTS: str = "contents/"
"""The beginning of the methods of requests that are about contents."""

READ_CONTENT: str = CONTENTS + "read"
"""The method of a request for one chunk."""

RELEASE_CONTENT: str = CONTENTS + "release"
"""The method of a request that says: the client has read the content, and the server may drop it."""

CONTENT_GONE: str = "CONTENT_GONE"
"""The code of the error for a content that the server does not keep, or does not keep for this client."""

CONTENT_CHANGED: str = "CONTENT_CHANGED"
"""The code of the error for a content whose file has changed since it was shared."""

CHUNK_CONTENT_TYPE: str = "application/octet-stream"
"""The MQTT 5 Content Type of a chunk."""

CHUNK_HEADER: int = 1024
"""Bytes of a chunk's payload that are left for its header."""

_MARK = b"\0"
"""The first byte of a chunk. No JSON text begins with this byte."""
_MAX_HEADER = 4096


class ContentChunk(Message):
    """The answer to a request for a chunk: the header of the chunk, and its bytes (ours).

    Attributes:
        call_id: The id of the request.
        server: The id of the replica that answers.
        offset: The place of the first byte in the content.
        size: The size of the whole content, in bytes.
        sha256: The SHA-256 of the whole content, in hexadecimal digits.
        name: The name of the content, such as a file name.
        mime_type: The MIME type of the content.
        data: The bytes. They follow the header and are no part of it.
    """

    call_id: str
    server: str | None = None
    offset: int = Field(ge=0)
    size: int = Field(ge=0)
    sha256: str
    name: str | None = None
    mime_type: str | None = None
    data: bytes = Field(b"", exclude=True)


def encode_chunk(chunk: ContentChunk) -> bytes:
    """The payload of a chunk: a zero byte, the header as JSON, a line break, and the bytes."""
    return b"".join((_MARK, encode(chunk), b"\n", chunk.data))


def chunk_header(payload: bytes) -> bytes | None:
    """The header of a chunk as JSON; None when the payload is no chunk."""
    end = payload.find(b"\n", 0, _MAX_HEADER) if payload.startswith(_MARK) else -1
    return None if end < 0 else payload[1:end]


def decode_chunk(payload: bytes, max_bytes: int) -> ContentChunk | None:
    """Read a chunk.

    Args:
        payload: The bytes from the broker, which may be anything.
        max_bytes: The largest payload to read, in bytes.

    Returns:
        The chunk; None when the payload is no chunk.

    Raises:
        WireError: The payload begins as a chunk, and its header is unreadable, or it is too large.
    """
    header = chunk_header(payload)
    if header is None:
        return None
    if len(payload) > max_bytes:
        raise WireError(too_large("ContentChunk", len(payload), max_bytes))
    chunk = decode(ContentChunk, header, _MAX_HEADER)
    chunk.data = payload[len(header) + 2 :]
    return chunk


def content_uri(server: str, content_id: str) -> str:
    """The URI of a content.

    Example:
        >>> content_uri("export:a", "7f3a")
        'mqtt-agent:content/export%3Aa/7f3a'

    Args:
        server: The id of the replica that keeps the content.
        content_id: The id of the content.
    """
    return f"{CONTENT_SCHEME}{quote(server, safe='')}/{quote(content_id, safe='')}"


def read_content_uri(uri: str) -> tuple[str, str]:
    """The server and the id in the URI of a content.

    Raises:
        WireError: This is not the URI of a content.
    """
    server, slash, content_id = uri[len(CONTENT_SCHEME) :].partition("/")
    server, content_id = unquote(server), unquote(content_id)
    if not (uri.startswith(CONTENT_SCHEME) and slash and content_id and is_identifier(server)):
        raise WireError(f"{uri!r:.200} is not the URI of a content, such as {CONTENT_SCHEME}SERVER/ID")
    return server, content_id
