"""Moves packets between the socket and the two that read and write them: paho-mqtt and the link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import anyio
import paho.mqtt.client as paho

from mqtt_agent.errors import BrokerUnreachable, ConnectionLost
from mqtt_agent.transport.driver import PahoClient
from mqtt_agent.transport.packets import PUBACK, PUBLISH, SUBACK, UNSUBACK
from mqtt_agent.transport.socket import BufferedSocket
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Pump"]

logger: logging.Logger = logging.getLogger(__name__)

_OURS = frozenset((PUBLISH, PUBACK, SUBACK, UNSUBACK))
_HIGH_WATER = 256 * 1024
_LINGER = 1.0


class Pump:
    """Drives one paho-mqtt client, and spares it the packets that the link reads itself.

    Args:
        client: The client.
        url: The broker, for messages.
        keep_alive: Seconds of silence after which the connection is tested.
        on_packet: Called with each PUBLISH, PUBACK, SUBACK and UNSUBACK: the first byte, and the bytes in which the
            body lies, with its begin and end; outside of paho-mqtt's locks.
        on_broken: Called when the broker sent what is no MQTT.
    """

    def __init__(
        self,
        client: PahoClient,
        url: BrokerURL,
        keep_alive: int,
        on_packet: Callable[[int, bytes, int, int], None],
        on_broken: Callable[[ConnectionLost], None],
    ) -> None:
        self._client = client
        self._url = url
        self._keep_alive = keep_alive
        self._on_packet = on_packet
        self._on_broken = on_broken
        self.heard_at: float = 0.0
        """When the broker said anything last, in loop time."""
        self._loop = asyncio.get_running_loop()
        self._socket: BufferedSocket | None = None
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None
        self._lingering: asyncio.Task[None] | None = None
        self._writing = False
        self._flush_scheduled = False
        self._misc_timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def error(self) -> OSError | None:
        """Why the socket broke."""
        return None if self._socket is None else self._socket.error

    def start(self) -> None:
        """Begin, when the client has connected.

        Raises:
            BrokerUnreachable: It is not connected any more.
        """
        sock = self._client.socket()
        if sock is None:
            raise BrokerUnreachable(f"{self._url} closed the connection before it answered")
        assert isinstance(sock, BufferedSocket)
        self._socket = sock
        try:
            self._loop.add_reader(sock.fileno(), self._on_readable)
        except NotImplementedError:  # Windows' proactor loop has no add_reader
            self._watcher = self._loop.create_task(self._watch_by_polling(sock.fileno()))
        self.flush_soon()
        self._misc()

    def close(self, *, linger: bool = False) -> None:
        """No more packets in either direction.

        Args:
            linger: Leave the closing to the broker for a moment. A socket that is closed with unread bytes in it is
                reset, and a broker that writes to it then may miss the goodbye, and publish the will.
        """
        self._closed = True
        if self._misc_timer is not None:
            self._misc_timer.cancel()
        self._unwatch()
        if self._socket is not None:
            if linger and not self._socket.ended:
                self._lingering = self._loop.create_task(self._linger(self._socket), name="mqtt-agent goodbye")
            else:
                self._socket.close()
        self._writable.set()

    async def wait_closed(self) -> None:
        """Wait until the socket of a pump that lingers is closed."""
        if self._lingering is not None:
            await asyncio.wait([self._lingering])

    async def _linger(self, sock: BufferedSocket) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._say_all(sock), _LINGER)

    async def _say_all(self, sock: BufferedSocket) -> None:
        try:
            while not sock.flush():
                await anyio.wait_writable(sock.fileno())
            while not sock.drain():
                await anyio.wait_readable(sock.fileno())
        finally:
            sock.close()

    def forget(self, sock: object) -> None:
        """paho-mqtt has closed this socket."""
        if sock is self._socket:
            self._unwatch()

    def flush_soon(self) -> None:
        """Something is to be sent."""
        if not self._flush_scheduled and not self._closed:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def send(self, packet: bytes) -> None:
        """Send a packet that is none of paho-mqtt's, at the end of this turn of the loop."""
        if self._socket is None or self._closed:
            return
        if self._client.want_write():
            self._client.loop_write()  # what it was given before goes first
        self._socket.send(packet)
        self.flush_soon()
        if self._socket.unsent >= _HIGH_WATER:
            self._writable.clear()

    async def wait_writable(self) -> None:
        """Wait until the network has taken most of what was sent."""
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
        if sock is None or self._closed:
            return
        sock.fill()
        self.heard_at = self._loop.time()
        client = self._client
        client.heard()
        try:
            while not self._closed and (packet := sock.next_packet()) is not None:
                head, body, end = packet
                if head & 0xF0 in _OURS:
                    sock.skip(end)
                    self._on_packet(head, sock.data, body, end)
                    continue
                sock.lay_open(end)
                if client.loop_read() != paho.MQTT_ERR_SUCCESS:
                    break
            if sock.ended and not self._closed:
                sock.lay_open(len(sock.data))
                client.loop_read()
        except Exception as error:  # a broken or hostile broker must not take the loop down
            logger.warning("%s sent what MQTT does not allow: %r", self._url, error)
            self._on_broken(ConnectionLost(f"{self._url} broke the MQTT protocol"))
            return
        if self._client.want_write():
            self.flush_soon()

    def _flush(self) -> None:
        self._flush_scheduled = False
        sock = self._socket
        if sock is None or self._closed:
            return
        if self._client.want_write():
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
            self._client.loop_misc()
            self.flush_soon()
            self._misc_timer = self._loop.call_later(min(5.0, max(1.0, self._keep_alive / 8)), self._misc)
