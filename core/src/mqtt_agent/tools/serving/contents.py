"""Keeps contents: bytes that are too large for one message, each for the one client that may read them in chunks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any

from mqtt_agent.aio.daemon_threads import DaemonThreads
from mqtt_agent.errors import ToolError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.content_files import ContentFile, FileIndex, Owner, Source, opened, pieces_of
from mqtt_agent.tools.serving.content_settings import ContentSettings
from mqtt_agent.tools.serving.results import SharedContent
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.wire import ContentChunk, content_uri
from mqtt_agent.wire.contents import CHUNK_HEADER, CONTENT_GONE

__all__ = ["Contents"]

logger: logging.Logger = logger_of(__name__)

_THREADS = 4
"""How many chunks are read at once."""
_SOURCES = 64
"""How many sources are copied at once. A source may wait for its data, which must keep no client from reading."""
_MOST_AT_ONCE = 1024 * 1024
"""Bytes of the largest chunk, whatever a client asks for. Several chunks are in memory at once."""
_LONGEST = 255
"""Bytes of the longest name and of the longest MIME type of a content."""


class Contents:
    """The contents that one replica of a tool server keeps.

    A content that nobody has read for a while is dropped, and so are those that were not read for the longest time when
    there are too many or when they take too much space.

    Args:
        scope: What all parts of the server share.
        settings: How many contents are kept, how long, and where.

    Attributes:
        on_share: Awaited before a content is handed out, so that requests for it can arrive.
    """

    def __init__(self, scope: Scope, settings: ContentSettings) -> None:
        self._scope = scope
        self._settings = settings
        self._kept: OrderedDict[str, ContentFile] = (
            OrderedDict()
        )  # the one that was not read for the longest time first
        self._index = None if settings.directory is None else FileIndex(settings.directory, scope.server_id)
        self._readers: DaemonThreads | None = None
        self._copiers: DaemonThreads | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self.on_share: Callable[[], Awaitable[None]] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    async def start(self) -> None:
        """Take up the contents that an earlier process of this replica has left in the directory."""
        if self._index is not None:
            for content in await self._in_thread(self._index.load, self._settings.max_age):
                self._keep(content)

    def close(self) -> None:
        """Drop all contents. Those in a directory stay there for the next process of this replica."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._kept:
            self._kept.popitem()[1].close()
        for threads in (self._readers, self._copiers):
            if threads is not None:
                threads.shutdown(wait=False)
        self._readers = self._copiers = None

    # Sharing

    async def share(self, source: Source, owner: Owner, name: str | None, mime_type: str | None) -> SharedContent:
        """Keep a content for a client; see :meth:`ToolContext.share`."""
        if isinstance(source, str):
            raise TypeError("share() takes no text: pass a pathlib.Path to share a file, or text.encode() for the text")
        self._check_open()
        if self.on_share is not None:
            await self.on_share()
        content_id = uuid.uuid4().hex
        path = os.fspath(source) if isinstance(source, os.PathLike) else None
        if name is None and path is not None:
            name = os.path.basename(path)
        for what, text in (("name", name), ("MIME type", mime_type)):
            if text is not None and len(str(text).encode()) > _LONGEST:
                raise ValueError(f"the {what} of a content has more than {_LONGEST} bytes: choose a shorter one")
        if isinstance(source, os.PathLike):
            content = await self._in_thread(opened, content_id, owner, os.fspath(source))
        else:
            content = await self._spooled(content_id, owner, source)
        content.name, content.mime_type = name, mime_type
        try:
            if self._index is not None:
                await self._in_thread(self._index.note, content)
            self._check_open()
        except BaseException:  # the disk is full, the call was canceled, or the server was stopped meanwhile
            content.remove()
            raise
        self._keep(content)
        uri = content_uri(self._scope.server_id, content_id)
        return SharedContent.of(uri, content.size, content.sha256, name, mime_type)

    def _check_open(self) -> None:
        # A plain handler may go on in its thread after its server has stopped.
        if self._closed:
            what = f"server {self._scope.server_id} has stopped, so no client could read the content"
            raise ToolError(f"{what}: share contents while the server runs", code=CONTENT_GONE)

    async def _spooled(
        self, content_id: str, owner: Owner, source: bytes | Iterable[bytes] | AsyncIterable[bytes]
    ) -> ContentFile:
        """Write a content to a file of the server."""
        spool = await self._in_thread(ContentFile.new, content_id, owner, self._index)
        digest = hashlib.sha256()

        def write(piece: bytes) -> None:
            if spool.size + len(piece) > self._settings.max_bytes:
                what = f"the content is larger than the {self._settings.max_bytes:,} bytes that this server keeps"
                raise ToolError(f"{what}: share a file of your own, or raise max_bytes", code="CONTENT_TOO_LARGE")
            digest.update(piece)
            spool.write(piece)

        def write_all(pieces: Iterable[bytes]) -> None:
            for piece in pieces:
                write(piece)

        try:
            if isinstance(source, AsyncIterable):
                async for piece in source:
                    await self._in_thread(write, piece)
            else:
                await self._in_thread(write_all, pieces_of(source))
            await self._in_thread(spool.flush)
        except BaseException:
            spool.remove()
            raise
        spool.sha256 = digest.hexdigest()
        return spool

    def _keep(self, content: ContentFile) -> None:
        content.used = asyncio.get_running_loop().time()
        self._kept[content.content_id] = content
        while len(self._kept) > self._settings.max_count or self._bytes() > self._settings.max_bytes:
            self._drop(self._one_too_many())
        if self._kept and self._sweep is None:
            self._sweep_later()

    def _one_too_many(self) -> str:
        """Of the client that has most of what is scarce, the content that was not read for the longest time."""
        many = len(self._kept) > self._settings.max_count
        costs = {content_id: 1 if many else content.own_bytes for content_id, content in self._kept.items()}
        shares = Counter[str]()
        for content_id, content in self._kept.items():
            shares[content.owner.client] += costs[content_id]
        # The last one was just shared, and somebody is about to get its URI.
        others = [each for each in list(self._kept)[:-1] if costs[each]] or list(self._kept)
        return max(others, key=lambda each: shares[self._kept[each].owner.client])  # the first of several

    def _bytes(self) -> int:
        return sum(content.own_bytes for content in self._kept.values())

    def _drop(self, content_id: str) -> None:
        self._kept.pop(content_id).remove()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = next(iter(self._kept.values())).used
        self._sweep = loop.call_at(oldest + self._settings.max_age, self._drop_old)

    def _drop_old(self) -> None:
        self._sweep, oldest = None, asyncio.get_running_loop().time() - self._settings.max_age
        while self._kept and (first := next(iter(self._kept.values()))).used <= oldest:
            self._drop(first.content_id)
        if self._kept:
            self._sweep_later()

    # Reading

    async def read(self, asker: Owner, request_id: str, params: dict[str, Any]) -> ContentChunk:
        """One chunk of a content.

        Args:
            asker: Who asks.
            request_id: The id of the request.
            params: ``id`` of the content, ``offset``, and ``length``, the number of bytes at most.

        Raises:
            ToolError: The server keeps no such content for this client.
        """
        content = self._of(asker, params)
        offset, length = params.get("offset", 0), params.get("length", 0)
        if not (_is_count(offset) and _is_count(length)):
            raise ToolError("offset and length are whole numbers of bytes", type="invalid_arguments")
        content.used = asyncio.get_running_loop().time()
        self._kept.move_to_end(content.content_id)
        most = min(length, _MOST_AT_ONCE, self._scope.connection.max_payload - CHUNK_HEADER)
        data = await self._in_reader(content.read, offset, most) if most > 0 and offset < content.size else b""
        return ContentChunk(
            call_id=request_id,
            server=self._scope.server_id,
            offset=offset,
            size=content.size,
            sha256=content.sha256,
            name=content.name,
            mime_type=content.mime_type,
            data=data,
        )

    def release(self, asker: Owner, params: dict[str, Any]) -> None:
        """Drop a content, because its client has read it.

        Raises:
            ToolError: The server keeps no such content for this client.
        """
        self._drop(self._of(asker, params).content_id)

    def _of(self, asker: Owner, params: dict[str, Any]) -> ContentFile:
        content_id = params.get("id")
        content = self._kept.get(content_id) if isinstance(content_id, str) else None
        if content is None or not content.owner.is_same(asker):
            what = f"server {self._scope.server_id} keeps no such content for {asker.client}"
            why = "it was released, was not read for too long, had to make room, or was lost with its process"
            raise ToolError(f"{what}: {why}. Call the tool again", code=CONTENT_GONE)
        return content

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._copiers is None:
            self._copiers = DaemonThreads(_SOURCES, "mqtt-agent-share")
        return await asyncio.wrap_future(self._copiers.submit(function, *args))

    async def _in_reader(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._readers is None:
            self._readers = DaemonThreads(_THREADS, "mqtt-agent-content")
        return await asyncio.wrap_future(self._readers.submit(function, *args))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
