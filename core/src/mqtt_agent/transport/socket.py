"""The socket between the kernel and what reads packets: quick, buffered, and never blocking.

A readable socket is emptied at once, and all packets written in one turn of the event loop leave in one system call.
Packets are found here; one that is not for us to read is laid open to paho-mqtt.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any, Protocol

from mqtt_agent.transport.packets import find_packet

__all__ = ["BufferedSocket", "RawSocket"]

_CHUNK = 256 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RawSocket(Protocol):
    """What paho-mqtt needs of a socket: a TCP or TLS socket, or its own WebSocket wrapper."""

    def recv(self, buffer_size: int, /) -> bytes: ...  # noqa: D102
    def send(self, buffer: Any, /) -> int: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def setblocking(self, flag: bool, /) -> None: ...  # noqa: D102


class BufferedSocket:
    """Wraps a connected socket; packets are read from its buffers, and written to them.

    Args:
        raw: The connected socket.
    """

    def __init__(self, raw: RawSocket) -> None:
        self._raw = raw
        self._tcp = _tcp_socket(raw)
        self.data: bytes = b""
        """What came in; :meth:`next_packet` tells where in it a packet lies."""
        self._pos = 0
        self._open = 0  # up to where paho-mqtt may read
        self._later: list[bytes] = []  # what came in after `data`, while a packet is not all there
        self._missing = 0  # how many bytes of that packet are still to come
        self._out = bytearray()
        self._eof = False
        self.error: OSError | None = None
        """What broke the connection, if it was not an orderly end."""
        if self._tcp is not None:
            try:
                self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:  # not TCP, or already closed: the next read tells
                self.error = error
            self._quick_ack()

    def _quick_ack(self) -> None:
        # Without it the kernel delays ACKs by 40 ms, and a broker that has Nagle's algorithm on waits for them.
        # The option does not stick: the kernel leaves quick mode on its own.
        if self._tcp is not None and _QUICKACK is not None and sys.platform == "linux":
            try:
                self._tcp.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError as error:
                self.error = error

    def fill(self) -> None:
        """Take everything that the kernel holds; call it when the socket is readable."""
        room = 4 * _CHUNK
        while room > 0 or self._pending():
            try:
                chunk = self._raw.recv(_CHUNK)
            except _WOULD_BLOCK:
                if self._pending():
                    continue  # a WebSocket says so after each ping too
                break
            except OSError as error:
                self.error, self._eof = error, True
                break
            if not chunk:
                self._eof = True
                break
            self._later.append(chunk)
            self._missing -= len(chunk)
            room -= len(chunk)
            if len(chunk) < _CHUNK and not isinstance(self._tcp, ssl.SSLSocket) and self._tcp is self._raw:
                break  # a short read of a plain socket means that it is empty
        self._quick_ack()
        # A large packet that comes in many pieces is put together once, when it is all there.
        if self._later and (self._missing <= 0 or self._eof):
            if self._pos < len(self.data):
                self._later.insert(0, self.data[self._pos :])
            self.data = self._later[0] if len(self._later) == 1 else b"".join(self._later)
            self._pos = self._open = 0
            self._later.clear()

    def next_packet(self) -> tuple[int, int, int] | None:
        """The next packet, once it is all there: its first byte, and where in ``data`` its body begins and ends.

        Then it must be left behind, by :meth:`skip` or :meth:`lay_open`.

        Raises:
            ValueError: What came in is no packet.
        """
        data, at = self.data, self._pos
        if at >= len(data) or self._later:
            return None
        body, end = find_packet(data, at)
        if not body or end > len(data):
            self._missing = end - len(data) if body else 1
            return None
        return data[at], body, end

    def skip(self, end: int) -> None:
        """The packet that ends there has been read."""
        self._pos = end

    def lay_open(self, end: int) -> None:
        """Let ``recv`` give what lies up to there."""
        self._open = end

    @property
    def ended(self) -> bool:
        """Whether nothing more will come in."""
        return self._eof

    def _pending(self) -> int:
        # What TLS has decrypted already makes no socket readable: nobody would come back for it.
        return self._tcp.pending() if isinstance(self._tcp, ssl.SSLSocket) else 0

    def recv(self, buffer_size: int, /) -> bytes:
        """Up to ``buffer_size`` bytes of what was laid open."""
        pos = self._pos
        if pos >= self._open:
            if self._eof and pos >= len(self.data):
                return b""
            raise BlockingIOError
        self._pos = min(pos + buffer_size, self._open)
        return self.data[pos : self._pos]

    def send(self, buffer: bytes | bytearray, /) -> int:
        """Take all of ``buffer``; :meth:`flush` sends it."""
        self._out += buffer
        return len(buffer)

    @property
    def unsent(self) -> int:
        """Bytes that wait for :meth:`flush`."""
        return len(self._out)

    def flush(self) -> bool:
        """Send what waits; True when nothing is left."""
        while self._out:
            try:
                sent = self._raw.send(self._out)
            except _WOULD_BLOCK:
                return False
            except OSError as error:
                self.error, self._eof = error, True
                self._out.clear()
                return True
            if sent <= 0:
                return False
            del self._out[:sent]
        return True

    def drain(self) -> bool:
        """Throw away what the kernel holds; True once the other side has closed."""
        while not self._eof:
            try:
                self._eof = not self._raw.recv(_CHUNK)
            except _WOULD_BLOCK:
                return False
            except OSError as error:
                self.error, self._eof = error, True
        return True

    def close(self) -> None:
        """Send what can be sent without waiting, then close."""
        self.flush()
        self._raw.close()

    def fileno(self) -> int:
        """The file descriptor to watch."""
        return self._raw.fileno()

    def setblocking(self, flag: bool, /) -> None:
        """As on any socket."""
        self._raw.setblocking(flag)


def _tcp_socket(raw: object) -> socket.socket | None:
    if isinstance(raw, socket.socket):
        return raw
    inner = getattr(raw, "_socket", None)  # paho-mqtt's WebSocket wrapper keeps the real one here
    return inner if isinstance(inner, socket.socket) else None
