"""Moves packets between the socket and their two readers, the link and paho-mqtt, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

import anyio
import paho.mqtt.client as paho

from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.driver import LinkSettings, PahoClient
from mqtt_agent.transport.socket import BufferedSocket

__all__ = ["Pump"]

logger: logging.Logger = logger_of(__name__)

_HIGH_WATER = 256 * 1024  # unsent bytes above which senders wait
_LINGER = 1.0  # seconds
_AT_ONCE = 64
"""How many packets are handled before the event loop does other work. A broker may send 10,000 cards at once."""


class Pump:
    """Drives one paho-mqtt client without threads. Packets that the link decodes itself do not reach the client.

    Args:
        client: The paho-mqtt client.
        settings: The broker's URL, for logs and errors, and the keep alive in seconds.
        handlers: What is called with each packet that the link reads itself, by the kind of the packet, and never
            inside of paho-mqtt's locks. The arguments are the packet's first byte, bytes that contain its body, and
            where the body begins and ends.
        on_broken: Called when the broker sent bytes that are not MQTT.

    Attributes:
        heard_at: When the broker last sent anything, in seconds of the event loop's clock.
    """

    def __init__(
        self,
        client: PahoClient,
        settings: LinkSettings,
        handlers: Mapping[int, Callable[[int, bytes, int, int], None]],
        on_broken: Callable[[ConnectionLost], None],
    ) -> None:
        self._client = client
        self._queued = client.queued
        self._url = settings.url
        self._keep_alive = settings.keep_alive
        self._handlers = handlers
        self._on_broken = on_broken
        self.heard_at: float = 0.0
        self._loop = asyncio.get_running_loop()
        self._socket: BufferedSocket | None = None
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None
        self._lingering: asyncio.Task[None] | None = None
        self._writing = False
        self._flush_scheduled = False
        self._unmade: list[bytes | Callable[[], bytes]] = []
        """Packets that are made when they leave, and the packets after them."""
        self._behind = False
        """Whether packets that were received wait for the next iteration of the event loop."""
        self._misc_timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def error(self) -> OSError | None:
        """Why the socket failed; None when the socket has not failed."""
        return None if self._socket is None else self._socket.error

    def start(self) -> None:
        """Begin to move packets, after the client has connected.

        Raises:
            BrokerUnreachable: The client is not connected any more.
        """
        sock = self._client.socket()
        if sock is None:
            raise BrokerUnreachable(f"{self._url} closed the connection before it answered")
        assert isinstance(sock, BufferedSocket)
        self._socket = sock
        self.heard_at = self._loop.time()
        try:
            self._loop.add_reader(sock.fileno(), self._on_readable)
        except NotImplementedError:  # the proactor event loop of Windows has no add_reader
            self._watcher = self._loop.create_task(self._watch_by_polling(sock.fileno()))
        self.flush_soon()
        self._misc()

    def close(self, *, linger: bool = False) -> None:
        """Move no more packets, and close the socket.

        Args:
            linger: Wait in the background for the broker to close first, for one second at most. A socket that is
                closed while it has unread bytes is reset. A broker that writes to it at that moment may miss the
                DISCONNECT packet, and publish the Last Will.
        """
        self._closed = True
        if self._misc_timer is not None:
            self._misc_timer.cancel()
        self._unwatch()
        if self._socket is not None:
            self._make(self._socket)
            if linger and not self._socket.ended:
                self._lingering = self._loop.create_task(self._linger(self._socket), name="mqtt-agent linger")
            else:
                self._socket.close()
        self._writable.set()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed, after :meth:`close` with ``linger``."""
        if self._lingering is not None:
            await asyncio.wait([self._lingering])

    async def _linger(self, sock: BufferedSocket) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._send_rest(sock), _LINGER)

    async def _send_rest(self, sock: BufferedSocket) -> None:
        try:
            while not sock.flush():
                await anyio.wait_writable(sock.fileno())
            while not sock.drain():
                await anyio.wait_readable(sock.fileno())
        finally:
            sock.close()

    def forget(self, sock: object) -> None:
        """Stop watching a socket that paho-mqtt has closed."""
        if sock is self._socket:
            self._unwatch()

    def flush_soon(self) -> None:
        """Send the buffered bytes in the next iteration of the event loop."""
        if not self._flush_scheduled and not self._closed:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def send(self, packet: bytes) -> None:
        """Send a packet from the link, in the next iteration of the event loop."""
        sock = self._socket
        if sock is None or self._closed:
            return
        if self._queued:
            self._make(sock)
            self._client.loop_write()  # earlier packets of paho-mqtt go first
        if self._unmade:
            self._unmade.append(packet)
        else:
            sock.out += packet
        if len(sock.out) >= _HIGH_WATER:
            self._writable.clear()
        if not self._flush_scheduled:
            self.flush_soon()

    def send_made(self, make: Callable[[], bytes]) -> None:
        """Send a packet that is made when it leaves, in the next iteration of the event loop."""
        self._unmade.append(make)
        self.send(b"")

    def _make(self, sock: BufferedSocket) -> None:
        """Make the packets that are made when they leave."""
        if self._unmade:
            unmade, self._unmade = self._unmade, []
            sock.out += b"".join([each if isinstance(each, bytes) else each() for each in unmade])
            if len(sock.out) >= _HIGH_WATER:
                self._writable.clear()

    async def wait_writable(self) -> None:
        """Wait until most of the sent bytes have been given to the network."""
        await self._writable.wait()

    async def _watch_by_polling(self, fileno: int) -> None:
        while not self._closed:
            await anyio.wait_readable(fileno)
            self._on_readable()

    def _unwatch(self) -> None:
        if self._socket is None:
            return
        fileno = self._socket.fileno()
        if self._watcher is not None:
            self._watcher.cancel()
        elif fileno >= 0:
            self._loop.remove_reader(fileno)
            if self._writing:
                self._loop.remove_writer(fileno)
        self._writing = False

    def _on_readable(self) -> None:
        sock = self._socket
        if sock is not None and not self._closed and not self._behind:
            sock.fill()
            self.heard_at = self._loop.time()
            self._read(sock)

    def _read_on(self, sock: BufferedSocket) -> None:
        self._behind = False
        if not self._closed and self._read(sock) and not self._behind:
            # The event loop may call _on_readable in this iteration too: what arrives then waits for the next one.
            self._behind = True
            self._loop.call_soon(self._read_on, sock)

    def _read(self, sock: BufferedSocket) -> bool:
        """Handle packets that were received, and return whether there were any."""
        client, handlers, left = self._client, self._handlers, _AT_ONCE
        try:
            while not self._closed and (packet := sock.next_packet()) is not None:
                if left == 0:
                    self._behind = True
                    self._loop.call_soon(self._read_on, sock)
                    return True
                left -= 1
                head, body, end = packet
                handle = handlers.get(head & 0xF0)
                if handle is not None:
                    sock.position = end
                    handle(head, sock.data, body, end)
                    continue
                sock.hand_over(end)
                if client.loop_read() != paho.MQTT_ERR_SUCCESS:
                    break
            if sock.ended and not self._closed:
                sock.hand_over(len(sock.data))
                client.loop_read()
        except Exception as error:  # a broken or hostile broker must not stop the event loop
            logger.warning("%s violated the MQTT protocol, so the connection is closed: %r", self._url, error)
            self._on_broken(ConnectionLost(f"{self._url} violated the MQTT protocol"))
            return False
        if self._queued:
            self.flush_soon()
        if not self._flush_scheduled and not self._closed:  # bytes that are sent carry the acknowledgement
            sock.acknowledge()
        return left < _AT_ONCE

    def _flush(self) -> None:
        self._flush_scheduled = False
        sock = self._socket
        if sock is None or self._closed:
            return
        self._make(sock)
        if self._queued:
            self._client.loop_write()
        done = sock.flush()
        if done and self._writing:
            self._writing = False
            self._loop.remove_writer(sock.fileno())
        elif not done and not self._writing:
            if self._watcher is not None:
                self._loop.call_later(0.005, self.flush_soon)
            else:
                self._writing = True
                self._loop.add_writer(sock.fileno(), self._flush)
        if sock.unsent < _HIGH_WATER:
            self._writable.set()
        if sock.error is not None:
            self._on_readable()

    def _misc(self) -> None:
        if not self._closed:
            self._client.heard(self._loop.time() - self.heard_at)
            self._client.loop_misc()
            self.flush_soon()
            self._misc_timer = self._loop.call_later(min(5.0, max(1.0, self._keep_alive / 8)), self._misc)
