"""Reads contents: bytes that a tool server keeps for this client, because they are too large for one message."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any

from mqtt_agent.aio.daemon_threads import DaemonThreads
from mqtt_agent.errors import CallError, CallTimeout, ContentLost, ToolUnavailable
from mqtt_agent.tools.calling.handle import error_of
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.wire import ContentChunk, Response, ServerCard, new_call_id, read_content_uri
from mqtt_agent.wire.contents import CHUNK_HEADER, CONTENT_CHANGED, CONTENT_GONE, READ_CONTENT, RELEASE_CONTENT

__all__ = ["Content", "ContentSource", "uri_of"]

_CHUNK = 256 * 1024
_AHEAD = 4
"""Chunks that are asked for before the first of them is used."""
_ASK_AGAIN = 10.0
"""Seconds after which a chunk that has not arrived is asked for again: a broker may have dropped it. On a slow network,
chunks take longer. So the time doubles with each such chunk, and a late answer counts."""
_ABSENT = 0.25  # seconds between two questions to a server whose topic nobody reads at the moment
_READ_AT_ONCE = 64 * 1024 * 1024


class ContentSource:
    """Asks one replica for the chunks of one content.

    Args:
        scope: What all parts of the client share.
        catalog: The servers.
        queries: Sends the requests.
        uri: The URI of the content.
        timeout: Seconds that each chunk may take, also while the replica is away; None means no limit.

    Raises:
        WireError: This is not the URI of a content.
    """

    def __init__(self, scope: Scope, catalog: LiveCatalog, queries: Queries, uri: str, timeout: float | None) -> None:
        self.uri: str = uri
        server, self._content_id = read_content_uri(uri)
        self.server: str = server
        self._catalog = catalog
        self._queries = queries
        self._timeout = timeout
        self._ask_again = _ASK_AGAIN
        self._started: str | None = None
        """When the process began that has answered; None before the first answer."""
        self.length: int = min(_CHUNK, scope.connection.max_payload, scope.max_payload) - CHUNK_HEADER

    async def chunk(self, offset: int, length: int) -> ContentChunk:
        """Ask for a chunk, again and again if necessary.

        Raises:
            ContentLost: The server does not keep the content for this client.
            ToolUnavailable: The server did not come back in time.
            CallTimeout: No answer arrived in time.
            CallError: The server answers with another error.
        """
        params = {"id": self._content_id, "offset": offset, "length": length}
        chunk = (await self._ask(READ_CONTENT, params, self._timeout)).result
        if not isinstance(chunk, ContentChunk) or chunk.offset != offset or len(chunk.data) > length:
            raise ContentLost(f"{self.server} answers a request for {self.uri} wrongly", tool=self.server)
        return chunk

    async def release(self) -> None:
        """Tell the server that it may drop the content. A server that is gone has dropped it already."""
        with contextlib.suppress(CallError):
            await self._ask(RELEASE_CONTENT, {"id": self._content_id}, _ASK_AGAIN)

    async def _ask(self, method: str, params: dict[str, Any], timeout: float | None) -> Response:
        loop, request_id = asyncio.get_running_loop(), new_call_id()
        end = None if timeout is None else loop.time() + timeout
        while True:
            card = await self._card(end)
            patience = self._ask_again
            attempt = loop.time() + patience
            try:
                response = await self._queries.request(card, method, params, min(attempt, end or attempt), request_id)
            except CallTimeout:
                self._ask_again = max(self._ask_again, 2 * patience)
                if end is not None and loop.time() >= end:
                    raise
                continue
            if response is not None:
                self._started = card.started
                if response.status == "error":
                    raise self._error(response)
                return response
            if card.started != (self._started or card.started) and card.status == "online":
                raise ContentLost(f"{self._kept} was lost with its process: call the tool again", tool=self.server)
            if end is not None and loop.time() >= end:
                raise ToolUnavailable(f"{self._kept} cannot be read: its server takes no requests", tool=self.server)
            await asyncio.sleep(_ABSENT)

    @property
    def _kept(self) -> str:
        return f"the content {self.uri} of server {self.server}"

    async def _card(self, end: float | None) -> ServerCard:
        """The card of the server, as soon as the server is online."""
        if not self._catalog.is_server_online(self.server):
            forever = asyncio.get_running_loop().time() + 1e9
            await self._catalog.back([self.server], forever if end is None else end)
        card = self._catalog.server(self.server)
        if card is None or not self._catalog.is_server_online(self.server):
            what = f"{self._kept} cannot be read, because this server is offline"
            raise ToolUnavailable(f"{what}: read on when it is back, or call the tool again", tool=self.server)
        return card

    def _error(self, response: Response) -> CallError:
        code = None if response.error is None else response.error.code
        error = error_of(self.server, response)
        if code in (CONTENT_GONE, CONTENT_CHANGED):
            return ContentLost(str(error), tool=self.server, call_id=response.call_id)
        return error


class Content:
    """Bytes that a tool server keeps for this client. :meth:`ToolClient.open_content` returns it.

    The client asks for the bytes chunk by chunk, and only a few chunks ahead. So neither side holds the content in its
    memory, and a slow reader slows the server down. While the connection or the server is away, reading waits.

    Example:
        >>> content = await client.open_content(await client.call("export", {"year": 2025}))  # doctest: +SKIP
        >>> async for piece in content:  # doctest: +SKIP
        ...     file.write(piece)

    Attributes:
        uri: The URI of the content.
        server: The id of the replica that keeps it.
        size: Its size, in bytes.
        sha256: Its SHA-256, in hexadecimal digits.
        name: Its name, such as a file name; None without one.
        mime_type: Its MIME type; None when the server has not said it.
        keep: Whether the server keeps the content after it was read to its end. Otherwise the server drops it then.
    """

    def __init__(self, source: ContentSource, first: ContentChunk, keep: bool) -> None:
        self.uri: str = source.uri
        self.server: str = source.server
        self.size: int = first.size
        self.sha256: str = first.sha256
        self.name: str | None = first.name
        self.mime_type: str | None = first.mime_type
        self.keep: bool = keep
        self._source = source

    def __repr__(self) -> str:
        return f"<Content {self.name or self.uri} of {self.server}, {self.size:,} bytes>"

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self, offset: int = 0) -> AsyncGenerator[bytes]:
        """Iterate over the bytes from an offset on, as pieces of at most 256 KiB.

        Args:
            offset: The place of the first byte. To resume after an error, give the number of bytes that you have.

        Raises:
            ContentLost: The server does not keep the content any more, or, when it was read from its beginning, its
                bytes do not have its SHA-256.
            ToolUnavailable: The server is offline, and did not come back in time.
            CallTimeout: A chunk did not arrive in time.
        """
        digest = hashlib.sha256() if offset == 0 else None
        async with contextlib.aclosing(self._pieces(offset)) as pieces:
            async for piece in pieces:
                if digest is not None:
                    digest.update(piece)
                yield piece
        if digest is not None:
            self._check(digest.hexdigest())
        if not self.keep:
            await self.release()

    async def read(self, max_bytes: int = _READ_AT_ONCE) -> bytes:
        """Read the whole content into memory.

        Args:
            max_bytes: The largest size to read, in bytes.

        Raises:
            ValueError: The content is larger.
            ContentLost, ToolUnavailable, CallTimeout: See :meth:`chunks`.
        """
        if self.size > max_bytes:
            what = f"{self!r} is larger than max_bytes={max_bytes:,}"
            raise ValueError(f"{what}: iterate over it, use save(), or allow more")
        async with contextlib.aclosing(self.chunks()) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the content to a file.

        The bytes go to a file beside it, whose name ends with ``.part``. That file gets the name ``path`` when it is
        complete and its SHA-256 is right. An interrupted ``save`` leaves it. The next ``save`` of the same bytes to the
        same path goes on after its last byte, also in another process.

        Args:
            path: The path of the file. A file that exists is replaced.

        Returns:
            The path.

        Raises:
            OSError: The file cannot be written.
            ContentLost, ToolUnavailable, CallTimeout: See :meth:`chunks`.
        """
        path = Path(path)
        part = path.with_name(f"{path.name}.{self.sha256[:16]}.part")
        digest = hashlib.sha256()
        threads = DaemonThreads(1, "mqtt-agent-save")
        try:
            file: IO[bytes] = await asyncio.wrap_future(threads.submit(_resumed, part, digest, self.size))
            with file:
                async with contextlib.aclosing(self._pieces(file.tell())) as pieces:
                    async for piece in pieces:
                        digest.update(piece)
                        await asyncio.wrap_future(threads.submit(file.write, piece))
        finally:
            threads.shutdown(wait=False)
        try:
            self._check(digest.hexdigest())
        except ContentLost:
            part.unlink()
            raise
        try:
            part.replace(path)
        except FileNotFoundError:  # another save of the same bytes has just ended
            if not path.exists():
                raise
        if not self.keep:
            await self.release()
        return path

    async def release(self) -> None:
        """Tell the server that it need not keep the content any longer."""
        await self._source.release()

    def _check(self, sha256: str) -> None:
        if sha256 != self.sha256:
            what = f"the bytes of {self.uri} have the SHA-256 {sha256}, and not {self.sha256}"
            raise ContentLost(f"{what}: call the tool again", tool=self.server)

    async def _pieces(self, offset: int) -> AsyncGenerator[bytes]:
        """The bytes from an offset on. The next chunks are on their way while the user works on one."""
        ahead = deque[asyncio.Task[bytes]]()
        try:
            while offset < self.size or ahead:
                while offset < self.size and len(ahead) < _AHEAD:
                    length = min(self._source.length, self.size - offset)
                    ahead.append(asyncio.ensure_future(self._piece(offset, length)))
                    offset += length
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)  # else asyncio logs the errors of each of them

    async def _piece(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. A server whose messages must be smaller sends them in several chunks."""
        found = list[bytes]()
        while length:
            chunk = await self._source.chunk(offset, length)
            if not chunk.data or chunk.sha256 != self.sha256:
                raise ContentLost(f"{self.server} has another content under {self.uri}", tool=self.server)
            if len(chunk.data) < length:
                self._source.length = min(self._source.length, len(chunk.data))
            found.append(chunk.data)
            offset, length = offset + len(chunk.data), length - len(chunk.data)
        return found[0] if len(found) == 1 else b"".join(found)


def uri_of(content: str | Mapping[str, Any]) -> str:
    """The URI of a content, from the URI itself or from a tool's result that refers to it.

    Raises:
        ValueError: This refers to no content.
    """
    uri = content.get("uri") if isinstance(content, Mapping) else content
    if not isinstance(uri, str):
        raise ValueError(f"{content!r:.200} refers to no content: give its URI, or a result with a 'uri'")
    return uri


def _resumed(part: Path, digest: Any, size: int) -> IO[bytes]:
    """Open the file of an interrupted save at its end, and compute the SHA-256 of what it has."""
    # Not in the mode for appending: two saves at once write the same bytes to the same places.
    made = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    file = os.fdopen(made, "r+b")
    try:
        if os.fstat(made).st_size > size:
            file.truncate(0)
        while piece := file.read(_CHUNK):
            digest.update(piece)
    except BaseException:
        file.close()
        raise
    return file
