"""A TCP proxy between a client and its broker: cuts the network, and delays, splits, truncates and loses its bytes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Any

from brokers import free_port
from typing_extensions import Self


@dataclass(eq=False)
class _Way:
    """One direction of one connection."""

    source: asyncio.StreamReader
    sink: asyncio.StreamWriter
    up: bool
    answered: asyncio.Event
    """Whether the broker has answered on the connection."""


class Proxy:
    """Forwards a free local port to the port of ``url``; the proxy's ``url`` has the same scheme, user and password.

    ``cut`` breaks all connections, and refuses new ones until ``mend``. ``hold`` stops all bytes. ``reset_after`` and
    ``lose_after`` break each connection within a packet.

    Attributes:
        delay: Seconds that each piece of bytes waits, at most.
        piece: The largest number of bytes that pass at once; None is no limit.
        single: How many of the bytes that arrive together pass one by one, before the others.
        spares_connects: Whether only those connections break on which the broker has answered the client.
    """

    def __init__(self, url: str) -> None:
        self._where, _, port = url.rpartition(":")
        self._target = int(port)
        self._server: asyncio.Server | None = None
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = set()
        self._passing = {True: asyncio.Event(), False: asyncio.Event()}  # up to the broker, and down from it
        self.release()
        self.port = free_port()
        self.connections = 0
        self.delay = 0.0
        self.piece: int | None = None
        self.single = 0
        self.spares_connects = False
        self._left: dict[bool, int | None] = {True: None, False: None}
        self._resets = False
        self._broken = asyncio.Event()

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
        for way in self._ways:
            way.sink.transport.abort()
        ending = [*self._tasks, *self._opening]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def drop(self) -> None:
        """Reset the existing connections; new ones are accepted."""
        for way in self._ways:
            if self._may_break(way):
                way.sink.transport.abort()

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        """Cut the network so that no side notices: connections stay open, and no byte passes in these directions."""
        for held, passing in ((up, self._passing[True]), (down, self._passing[False])):
            if held:
                passing.clear()

    def release(self) -> None:
        for passing in self._passing.values():
            passing.set()

    def reset_after(self, count: int, *, up: bool) -> None:
        """Let so many bytes pass in one direction, then reset the connection that they belong to. This happens once."""
        self._left[up], self._resets = count, True
        self._broken.clear()

    def lose_after(self, count: int, *, up: bool) -> None:
        """Let so many bytes pass in one direction, then drop all bytes in both directions until :meth:`find_again`.

        No side notices, because the connections stay open.
        """
        self._left[up], self._resets = count, False
        self._broken.clear()

    async def broken(self) -> None:
        """Wait until the bytes of :meth:`reset_after` or :meth:`lose_after` have passed."""
        await self._broken.wait()

    def find_again(self) -> None:
        """Drop no more bytes. The connections that have lost bytes are reset."""
        if self._loses:
            self.drop()
        self._left = {True: None, False: None}

    def _may_break(self, way: _Way) -> bool:
        return way.answered.is_set() or not self.spares_connects

    @property
    def _loses(self) -> bool:
        return not self._resets and 0 in self._left.values()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        opening = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", self._target))
        self._opening.add(opening)
        try:
            out_reader, out_writer = await opening
        except (OSError, asyncio.CancelledError):  # Python 3.11 logs an error when this handler ends as canceled
            writer.transport.abort()
            return
        finally:
            self._opening.discard(opening)
        answered = asyncio.Event()
        for way in (_Way(reader, out_writer, True, answered), _Way(out_reader, writer, False, answered)):
            self._ways.add(way)
            task = asyncio.create_task(self._pump(way))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def on_bytes(self, data: bytes, *, up: bool) -> None:
        """Forward bytes in one direction, ``up`` to the broker or down from it."""

    async def _pump(self, way: _Way) -> None:
        with contextlib.suppress(OSError):
            while data := await way.source.read(65536):
                await self._passing[way.up].wait()
                self.on_bytes(data, up=way.up)
                for piece in self._pieces(data):
                    if self.delay:
                        await asyncio.sleep(random.uniform(0, self.delay))
                    await self._forward(piece, way)
                if not way.up:
                    way.answered.set()
        way.sink.transport.abort()
        self._ways.discard(way)

    def _pieces(self, data: bytes) -> list[bytes]:
        pieces = [data[at : at + 1] for at in range(min(self.single, len(data)))]
        data = data[len(pieces) :]
        while data:
            size = len(data) if self.piece is None else random.randint(1, self.piece)
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    async def _forward(self, piece: bytes, way: _Way) -> None:
        if self._may_break(way):
            if self._loses:
                return
            left = self._left[way.up]
            if left is not None:
                piece = piece[:left]
                self._left[way.up] = left - len(piece)
        way.sink.write(piece)
        await way.sink.drain()
        if self._left[way.up] == 0 and not self._broken.is_set():
            self._broken.set()
            if self._resets:
                self._left[way.up] = None
                raise ConnectionResetError("the test wants it")
