"""A buffered, non-blocking socket that finds the MQTT packets in the received bytes.

A readable socket is emptied at once, and all packets of one iteration of the event loop are sent in one system call.
Packets that the link does not decode itself are made available to paho-mqtt, which reads them with ``recv``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
from typing import Any, Protocol

from mqtt_agent.aio.forks import in_child
from mqtt_agent.transport.packets import find_packet

__all__ = ["BufferedSocket", "RawSocket"]

_CHUNK = 256 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class RawSocket(Protocol):
    """The methods that paho-mqtt uses of a TCP socket, a TLS socket, or its own WebSocket wrapper."""

    def recv(self, buffer_size: int, /) -> bytes: ...  # noqa: D102
    def send(self, buffer: Any, /) -> int: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def setblocking(self, flag: bool, /) -> None: ...  # noqa: D102


class BufferedSocket:
    """Wraps a connected socket with one buffer for each direction.

    Args:
        raw: The connected socket.

    Attributes:
        data: The received bytes. :meth:`next_packet` finds the packets in them.
        position: Where in ``data`` the next packet begins. Whoever decodes a packet moves it to the packet's end.
        out: The packets that wait for :meth:`flush`. The link adds its packets here.
        error: The error that broke the connection; None while the connection works, and after an orderly end.
    """

    def __init__(self, raw: RawSocket) -> None:
        self._raw = raw
        self._tcp = _tcp_socket(raw)
        self._plain = self._tcp is raw and not isinstance(raw, ssl.SSLSocket)
        self.data: bytes = b""
        self.position: int = 0
        self._open = 0  # the end of the bytes that paho-mqtt may read
        self._later: list[bytes] = []  # bytes received after `data`, while a packet is incomplete
        self._missing = 0  # how many bytes of that packet have not arrived
        self.out: bytearray = bytearray()
        self._eof = False
        self.error: OSError | None = None
        in_child(self._after_fork)
        if self._tcp is not None:
            try:
                self._tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:  # not TCP, or already closed: the next read shows which
                self.error = error
            self.acknowledge()

    def acknowledge(self) -> None:
        """Let the kernel acknowledge the received bytes at once. Call it after :meth:`fill`.

        The call can be left out when bytes are about to be sent, because they carry the acknowledgement.
        """
        # Without this option, the kernel delays TCP acknowledgements by 40 ms, and a broker that uses Nagle's algorithm
        # waits for them. The kernel resets the option by itself, so it must be set again and again.
        if self._tcp is not None and _QUICKACK is not None and sys.platform == "linux":
            with contextlib.suppress(OSError):  # the connection has ended, and a read says why
                self._tcp.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def fill(self) -> None:
        """Receive all bytes that the kernel has. Call it when the socket is readable."""
        room = 4 * _CHUNK
        while True:
            try:
                chunk = self._raw.recv(_CHUNK)
            except _WOULD_BLOCK:
                if self._pending():
                    continue  # a WebSocket raises this after each ping too
                break
            except OSError as error:
                self.error, self._eof = error, True
                break
            if not chunk:
                self._eof = True
                break
            self._later.append(chunk)
            size = len(chunk)
            self._missing -= size
            if self._plain and size < _CHUNK:
                break  # a plain socket returns fewer bytes than requested when it is empty
            room -= size
            if room <= 0 and not self._pending():
                break
        # The pieces of a large packet are joined only once, when all have arrived.
        if self._later and (self._missing <= 0 or self._eof):
            if self.position < len(self.data):
                self._later.insert(0, self.data[self.position :])
            self.data = self._later[0] if len(self._later) == 1 else b"".join(self._later)
            self.position = self._open = 0
            self._later.clear()

    def next_packet(self) -> tuple[int, int, int] | None:
        """Find the next packet in ``data``. The caller must then set ``position``, or call :meth:`hand_over`.

        Returns:
            The packet's first byte, and where in ``data`` its body begins and ends. None when no packet is complete.

        Raises:
            ValueError: The received bytes are not an MQTT packet.
        """
        data, at = self.data, self.position
        known = len(data)
        if at >= known or self._later:
            return None
        if at + 2 < known:  # nearly all lengths have one or two bytes
            first, second = data[at + 1], data[at + 2]
            if first < 0x80:
                body = at + 2
                end = body + first
            elif second < 0x80:
                body = at + 3
                end = body + (first & 0x7F | second << 7)
            else:
                body, end = find_packet(data, at)
        else:
            body, end = find_packet(data, at)
        if not body or end > known:
            self._missing = end - known if body else 1
            return None
        return data[at], body, end

    def hand_over(self, end: int) -> None:
        """Let paho-mqtt read ``data`` up to ``end`` with :meth:`recv`."""
        self._open = end

    @property
    def ended(self) -> bool:
        """Whether the other side has closed the connection, or the connection has failed."""
        return self._eof

    def _pending(self) -> int:
        # Bytes that TLS has decrypted already do not make the socket readable, so they must be read now.
        return self._tcp.pending() if isinstance(self._tcp, ssl.SSLSocket) else 0

    def recv(self, buffer_size: int, /) -> bytes:
        """Give paho-mqtt up to ``buffer_size`` of the bytes that it may read."""
        pos = self.position
        if pos >= self._open:
            if self._eof and pos >= len(self.data):
                return b""
            raise BlockingIOError
        self.position = min(pos + buffer_size, self._open)
        return self.data[pos : self.position]

    def send(self, buffer: bytes | bytearray, /) -> int:
        """Buffer a packet of paho-mqtt, which wants to know how many of its bytes were taken: all of them."""
        self.out += buffer
        return len(buffer)

    @property
    def unsent(self) -> int:
        """How many bytes wait for :meth:`flush`."""
        return len(self.out)

    def flush(self) -> bool:
        """Send as many buffered bytes as the kernel takes. True when all bytes are sent."""
        while self.out:
            try:
                sent = self._raw.send(self.out)
            except _WOULD_BLOCK:
                return False
            except OSError as error:
                self.error, self._eof = error, True
                self.out.clear()
                return True
            if sent <= 0:
                return False
            del self.out[:sent]
        return True

    def drain(self) -> bool:
        """Discard bytes that the kernel has received; True when the other side has closed the connection.

        The socket stays readable when the kernel may have more bytes, because a peer may send as fast as this reads.
        """
        room = 4 * _CHUNK
        while not self._eof and (room > 0 or self._pending()):
            try:
                chunk = self._raw.recv(_CHUNK)
            except _WOULD_BLOCK:
                return False
            except OSError as error:
                self.error, self._eof = error, True
                break
            self._eof = not chunk
            room -= len(chunk)
        return self._eof

    def close(self) -> None:
        """Send the buffered bytes that the kernel takes without waiting, then close the socket."""
        self.flush()
        self._raw.close()

    def _after_fork(self) -> None:
        # The socket belongs to the parent process. While this copy is open, a crash of the parent does not end the
        # connection.
        self.out = bytearray()  # not clear(): at the fork, another thread may have been sending these bytes
        self._eof = True
        self._raw.close()

    def fileno(self) -> int:
        """The file descriptor of the socket."""
        return self._raw.fileno()

    def setblocking(self, flag: bool, /) -> None:
        """Set blocking mode, as on any socket."""
        self._raw.setblocking(flag)


def _tcp_socket(raw: object) -> socket.socket | None:
    if isinstance(raw, socket.socket):
        return raw
    inner = getattr(raw, "_socket", None)  # paho-mqtt's WebSocket wrapper keeps the real socket here
    return inner if isinstance(inner, socket.socket) else None
