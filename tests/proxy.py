"""A TCP proxy between a client and its broker, to cut the network."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from brokers import free_port
from typing_extensions import Self


class Proxy:
    """Forwards a free local port to the port of ``url``; the proxy's ``url`` has the same scheme, user and password.

    ``cut`` breaks all connections, and refuses new ones until ``mend``.
    """

    def __init__(self, url: str) -> None:
        self._where, _, port = url.rpartition(":")
        self._target = int(port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = {True: asyncio.Event(), False: asyncio.Event()}  # up to the broker, and down from it
        self.release()
        self.port = free_port()
        self.connections = 0

    @property
    def url(self) -> str:
        return f"{self._where}:{self.port}"

    @property
    def mended(self) -> bool:
        """Whether the proxy accepts connections."""
        return self._server is not None and self._server.is_serving()

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.cut()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def move(self, url: str) -> None:
        """Forward new connections to another broker."""
        self._target = int(url.rpartition(":")[2])

    async def cut(self) -> None:
        """Cut the network so that both sides notice: connections are reset, and new ones are refused."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """Reset the existing connections; new ones are accepted."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Cut the network so that no side notices: connections stay open, and no byte passes in these directions."""
        for held, passing in ((up, self._passing[True]), (down, self._passing[False])):
            if held:
                passing.clear()

    def release(self) -> None:
        for passing in self._passing.values():
            passing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, out_writer}
        for up, source, sink in ((True, reader, out_writer), (False, out_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink, up))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def on_bytes(self, data: bytes, *, up: bool) -> None:
        """Forward bytes in one direction, ``up`` to the broker or down from it."""

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._passing[up].wait()
                self.on_bytes(data, up=up)
                sink.write(data)
                await sink.drain()
        sink.transport.abort()
        self._writers.discard(sink)
