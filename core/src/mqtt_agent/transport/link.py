"""One network connection: one CONNECT of one paho-mqtt client, driven by asyncio.

A link lives from its CONNECT to its end and is never reused, so a packet identifier can only ever be acknowledged on
the connection that it came over, and paho-mqtt never repeats a message that its sender has given up. What must outlive
a link (subscriptions, unconfirmed messages) is the business of :class:`~mqtt_agent.transport.connection.Connection`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

import anyio
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, ConnectionRefused, QueueFull, TransportError
from mqtt_agent.faultlog import FaultLog
from mqtt_agent.transport.message import InboundMessage, PublishProperties
from mqtt_agent.transport.packets import (
    PUBACK,
    PUBLISH,
    Unreadable,
    pack_puback,
    pack_publish,
    pack_pubrec,
    read_publish,
)
from mqtt_agent.transport.socket import BufferedSocket
from mqtt_agent.transport.url import BrokerURL

__all__ = ["BrokerLimits", "ConnectOptions", "Link"]

logger = logging.getLogger(__name__)

_HIGH_WATER = 256 * 1024
_MAX_UNCONFIRMED = 60_000  # packet identifiers go to 65,535, and subscriptions take some
_RUMQTTD = {"TopicAliasMaximum": 4096}  # it has no name, but says this in its CONNACK and nothing else
_ADVICE = {  # by reason code of the CONNACK
    0x84: "it must speak MQTT 5",
    0x85: "choose another client id",
    0x86: "check the user name and the password or token",
    0x87: "check the user name and the password or token, and what the broker allows this client",
}
_NO_LOGIN = "give credentials=Password(...) or Token(...), or put user:password@ before the host in the URL"
_WRONG_PORT = "is this port for another one of mqtt://, mqtts://, ws:// and wss://?"
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # OpenSSL's X509_V_ERR_ for chains that end at nobody we trust
_RELIEF_AFTER = 0.025  # seconds: quick work gets done, and acknowledged in time, before relief is needed


@dataclass(frozen=True)
class BrokerLimits:
    """What the broker said in its CONNACK.

    Attributes:
        session_present: Whether it still had our session.
        receive_maximum: How many QoS 1 messages it takes before it confirms one.
        maximum_packet_size: Bytes of the largest packet it takes, or None for no limit.
        shared_subscriptions: Whether it offers shared subscriptions.
        assigned_client_id: The client id it chose, when we gave none.
        server_keep_alive: Seconds, when it overrules ours.
        forgets_groups: Whether it is rumqttd, where a share group does not outlive the connections of its members:
            two members that resume their sessions each get every message, and a last member that leaves a message
            unacknowledged in its session takes the broker down. Members there must begin with a clean start.
    """

    session_present: bool
    receive_maximum: int
    maximum_packet_size: int | None
    shared_subscriptions: bool
    assigned_client_id: str | None
    server_keep_alive: int | None
    forgets_groups: bool


@dataclass(frozen=True)
class ConnectOptions:
    """Everything that goes into one CONNECT."""

    url: BrokerURL
    client_id: str
    username: str | None
    password: str | None = field(repr=False)
    ssl_context: ssl.SSLContext | None
    keep_alive: int
    session_expiry: int
    receive_maximum: int
    maximum_packet_size: int
    timeout: float
    clean_start: bool = False
    will_topic: str | None = None
    will_payload: bytes = b""
    will_delay: int = 0
    will_expiry: int | None = None


class _PahoClient(paho.Client):
    """paho-mqtt over our buffered socket; it reads and writes all but PUBLISH and PUBACK."""

    taken: tuple[Container[int], ...] = ()
    """Packet identifiers that are in use."""

    def _create_socket(self) -> Any:
        return BufferedSocket(super()._create_socket())

    def next_mid(self) -> int:
        """A packet identifier that nobody uses."""
        return self._mid_generate()

    def _mid_generate(self) -> int:
        while True:
            mid = super()._mid_generate()
            if not any(mid in taken for taken in self.taken):
                return mid

    def heard(self) -> None:
        """The broker is alive: it has sent something."""
        self._last_bytes_received = time.monotonic()


class Link:
    """A live connection. All methods run on the event loop that opened it.

    Args:
        options: What to connect to, and how.
        on_message: Called with each message, outside of paho-mqtt's locks.
        on_closed: Called once, with the reason, after a link that had been open is gone.
        max_unacknowledged: When more QoS 1 messages than this stay unacknowledged, the oldest whose work has started
            are acknowledged before it is done, so that long work never uses up the broker's window.
    """

    def __init__(
        self,
        options: ConnectOptions,
        on_message: Callable[[InboundMessage], None],
        on_closed: Callable[[TransportError], None],
        max_unacknowledged: int,
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_closed = on_closed
        self._max_unacknowledged = max_unacknowledged
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[BrokerLimits] = self._loop.create_future()
        self._closed: TransportError | None = None
        self._opened = False
        self._socket: BufferedSocket | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._writing = False
        self._flush_scheduled = False
        self._misc_timer: asyncio.TimerHandle | None = None
        self._unacknowledged: deque[_Acknowledgement] = deque()  # in the order of arrival
        self._publishes: dict[int, Callable[[int], None]] = {}
        self._subscribes: dict[int, asyncio.Future[int]] = {}
        self._relief: asyncio.TimerHandle | None = None
        self._faults = FaultLog(logger)
        self._writable = asyncio.Event()
        self._writable.set()
        self.limits: BrokerLimits
        self._client = self._make_client()

    def _make_client(self) -> _PahoClient:
        o = self._options
        client = _PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=o.client_id,
            protocol=paho.MQTTv5,
            transport="websockets" if o.url.websocket else "tcp",
            reconnect_on_failure=False,
        )
        client.taken = self._publishes, self._subscribes
        client.connect_timeout = o.timeout
        if o.url.websocket:
            client.ws_set_options(path=o.url.path)
        if o.ssl_context is not None:
            client.tls_set_context(o.ssl_context)  # pyright: ignore[reportUnknownMemberType]
        if o.username is not None or o.password is not None:
            client.username_pw_set(o.username or "", o.password)
        if o.will_topic is not None:
            properties = Properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = o.will_delay
            properties.ContentType = "application/json"
            properties.PayloadFormatIndicator = 1
            if o.will_expiry is not None:
                properties.MessageExpiryInterval = o.will_expiry
            client.will_set(o.will_topic, o.will_payload, qos=1, retain=True, properties=properties)
        client.on_connect = self._handle_connack
        client.on_disconnect = self._handle_disconnect
        client.on_subscribe = self._handle_suback
        client.on_unsubscribe = self._handle_suback
        client.on_socket_close = self._handle_socket_close
        return client

    # Opening and closing

    async def open(self) -> BrokerLimits:
        """Connect, and wait for the broker's CONNACK.

        Raises:
            BrokerUnreachable: Nobody answers in time, or what answers is not an MQTT 5 broker.
            ConnectionRefused: The broker refuses us.
        """
        connecting = self._loop.run_in_executor(None, self._connect_blocking)
        try:
            # A thread cannot be cancelled: the shield lets it end by its own time limit, and we clean up after it.
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._discard)
            raise
        except (OSError, ValueError) as error:
            raise BrokerUnreachable(f"no MQTT broker answers at {self._options.url}: {_explain(error)}") from error
        try:
            self._watch()
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the CONNACK.
            await asyncio.wait([self._connack], timeout=self._options.timeout)
            if not self._connack.done():
                raise BrokerUnreachable(
                    f"{self._options.url} accepts connections but did not answer MQTT "
                    f"within {self._options.timeout:g} s"
                )
            self.limits = self._connack.result()
        except ConnectionLost as error:
            cause = self._socket.error if self._socket is not None else None
            why = _explain(cause) if cause is not None else f"{error}; {_WRONG_PORT}"
            raise BrokerUnreachable(f"no MQTT broker answers at {self._options.url}: {why}") from cause or error
        except BaseException:
            self.abort()
            raise
        self._opened = True
        if self._closed is not None:
            raise self._closed
        return self.limits

    def _connect_blocking(self) -> None:
        o = self._options
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = o.session_expiry
        properties.ReceiveMaximum = o.receive_maximum
        properties.MaximumPacketSize = o.maximum_packet_size
        self._client.connect(o.url.host, o.url.port, o.keep_alive, clean_start=o.clean_start, properties=properties)

    def _discard(self, connecting: asyncio.Future[None]) -> None:
        if not connecting.cancelled():
            connecting.exception()
        self.abort()

    def disconnect(self, *, end_session: bool) -> None:
        """Say goodbye: the broker drops the will, and the session too with ``end_session``."""
        if self._closed is None:
            properties = Properties(PacketTypes.DISCONNECT)
            if end_session:
                properties.SessionExpiryInterval = 0
            self._client.disconnect(properties=properties)
            self._close(ConnectionLost("the connection was closed by this side"))

    def abort(self, reason: TransportError | None = None) -> None:
        """Drop the connection without a word, as a crash would."""
        self._close(reason or ConnectionLost("the connection was dropped by this side"))

    def _close(self, reason: TransportError) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        for timer in (self._misc_timer, self._relief):
            if timer is not None:
                timer.cancel()
        self._unwatch()
        if self._socket is not None:
            self._socket.close()
        self._writable.set()
        self._unacknowledged.clear()
        self._publishes.clear()
        for waiter in self._subscribes.values():
            if not waiter.done():
                waiter.set_exception(reason)
        self._subscribes.clear()
        if not self._connack.done():
            self._connack.set_exception(reason)
            self._connack.exception()  # retrieved: nobody may be waiting any more
        if self._opened:
            self._opened = False
            self._on_closed(reason)

    # Moving bytes

    def _watch(self) -> None:
        sock = self._client.socket()
        if sock is None:
            raise BrokerUnreachable(f"{self._options.url} closed the connection before it answered")
        assert isinstance(sock, BufferedSocket)
        self._socket = sock
        try:
            self._loop.add_reader(sock.fileno(), self._on_readable)
        except NotImplementedError:  # Windows' proactor loop has no add_reader
            self._watcher = self._loop.create_task(self._watch_by_polling(sock.fileno()))
        self._schedule_flush()
        self._misc()

    async def _watch_by_polling(self, fileno: int) -> None:
        while self._closed is None:
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
        if sock is None or self._closed is not None:
            return
        sock.fill()
        client = self._client
        client.heard()
        try:
            while self._closed is None and (packet := sock.next_packet()) is not None:
                head, body, end = packet
                kind = head & 0xF0
                if kind == PUBLISH:
                    sock.skip(end)
                    self._on_publish(head, sock.data, body, end)
                elif kind == PUBACK:
                    sock.skip(end)
                    self._on_puback(sock.data, body, end)
                else:
                    sock.lay_open(end)
                    if client.loop_read() != paho.MQTT_ERR_SUCCESS:
                        break
            if sock.ended and self._closed is None:
                sock.lay_open(len(sock.data))
                client.loop_read()
        except Exception as error:  # a broken or hostile broker must not take the loop down
            logger.warning("%s sent what MQTT does not allow: %r", self._options.url, error)
            self.abort(ConnectionLost(f"{self._options.url} broke the MQTT protocol"))
            return
        if client.want_write():
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled and self._closed is None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        sock = self._socket
        if sock is None or self._closed is not None:
            return
        if self._client.want_write():
            self._client.loop_write()
        done = sock.flush()
        if done and self._writing:
            self._writing = False
            self._loop.remove_writer(sock.fileno())
        elif not done and not self._writing:
            if self._watcher is not None:
                self._loop.call_later(0.005, self._schedule_flush)
            else:
                self._writing = True
                self._loop.add_writer(sock.fileno(), self._flush)
        if sock.unsent < _HIGH_WATER:
            self._writable.set()
        if sock.error is not None:
            self._on_readable()

    def _misc(self) -> None:
        if self._closed is None:
            self._client.loop_misc()
            self._schedule_flush()
            self._misc_timer = self._loop.call_later(min(5.0, max(1.0, self._options.keep_alive / 8)), self._misc)

    # Publishing, subscribing, acknowledging

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: PublishProperties,
        on_puback: Callable[[int], None] | None = None,
    ) -> int:
        """Hand one message to the network; ``on_puback`` gets the reason code of the broker's PUBACK.

        Returns:
            The packet identifier.
        """
        if len(self._publishes) >= _MAX_UNCONFIRMED:
            raise QueueFull(f"{_MAX_UNCONFIRMED:,} messages on their way to {self._options.url} are unconfirmed")
        mid = self._client.next_mid() if qos else 0
        self._send(pack_publish(topic, payload, qos, retain, mid, properties))
        if on_puback is not None:
            self._publishes[mid] = on_puback
        if self._socket is not None and self._socket.unsent >= _HIGH_WATER:
            self._writable.clear()
        return mid

    def _send(self, packet: bytes) -> None:
        if self._socket is None or self._closed is not None:
            return
        if self._client.want_write():
            self._client.loop_write()  # what it was given before goes first
        self._socket.send(packet)
        self._schedule_flush()

    def forget(self, mid: int) -> None:
        """Nobody waits for this PUBACK any more."""
        self._publishes.pop(mid, None)

    async def wait_writable(self) -> None:
        """Wait until the network has taken most of what was published."""
        await self._writable.wait()

    async def subscribe(self, topic_filter: str, qos: int, *, retain_handling: int) -> int:
        """Subscribe and return the reason code of the SUBACK: the granted QoS, or 0x80 and more for a refusal.

        Raises:
            ConnectionLost: The connection ended before the broker answered.
        """
        options = SubscribeOptions(qos=qos, retainHandling=retain_handling)
        _, mid = self._client.subscribe(topic_filter, options=options)
        return await self._acknowledged(mid)

    async def unsubscribe(self, topic_filter: str) -> int:
        """Unsubscribe and return the reason code of the UNSUBACK."""
        _, mid = self._client.unsubscribe(topic_filter)
        return await self._acknowledged(mid)

    async def _acknowledged(self, mid: int | None) -> int:
        if mid is None or self._closed is not None:
            raise self._closed or ConnectionLost("not connected")
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._subscribes[mid] = waiter
        self._schedule_flush()
        done, _ = await asyncio.wait([waiter], timeout=self._options.timeout)
        if not done:
            self.abort(ConnectionLost(f"{self._options.url} does not answer any more"))
        return await waiter

    @property
    def unanswered(self) -> list[asyncio.Future[int]]:
        """What waits for a SUBACK or UNSUBACK."""
        return list(self._subscribes.values())

    def send_acknowledgements(self) -> None:
        """Send the PUBACKs that are due."""
        # MQTT wants them in the order of arrival, and some brokers cut the connection otherwise.
        queue = self._unacknowledged
        while queue and queue[0].done:
            self._send(pack_puback(queue.popleft().mid))

    def check_window(self) -> None:
        """See to it that long work does not use up the broker's window."""
        if len(self._unacknowledged) > self._max_unacknowledged and self._relief is None:
            self._relief = self._loop.call_later(_RELIEF_AFTER, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        excess = len(self._unacknowledged) - self._max_unacknowledged // 2
        for entry in list(self._unacknowledged)[: max(0, excess)]:
            if not entry.started and not entry.done:
                break
            entry.done = True
        self.send_acknowledgements()

    # What comes in

    def _on_publish(self, head: int, data: bytes, at: int, end: int) -> None:
        try:
            message, mid = read_publish(head, data, at, end)
        except Unreadable as error:
            # It must not cost the connection: at QoS 1 it would come again after each reconnect.
            self._faults.tell(error.topic, "a message that is not read", error)
            if head & 0x06 == 0x02:
                entry = _Acknowledgement(self, error.mid)
                self._unacknowledged.append(entry)
                entry.acknowledge()
            return
        if message.qos == 1:
            entry = _Acknowledgement(self, mid)
            self._unacknowledged.append(entry)
            message.acknowledgement = entry
        elif message.qos == 2:  # from a subscription that is none of ours; paho-mqtt answers the PUBREL
            self._send(pack_pubrec(mid))
        self._on_message(message)

    def _on_puback(self, data: bytes, at: int, end: int) -> None:
        on_puback = self._publishes.pop(data[at] << 8 | data[at + 1], None)
        if on_puback is not None:
            on_puback(data[at + 2] if end > at + 2 else 0)

    # What paho-mqtt calls, under its locks: note it and return

    def _handle_connack(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._connack.done():
            return
        if reason.value >= 0x80:
            what = f"{self._options.url} refused the connection: {reason} (0x{reason.value:02x})"
            anonymous = self._options.username is None and self._options.password is None
            advice = _NO_LOGIN if anonymous and reason.value in (0x86, 0x87) else _ADVICE.get(reason.value)
            what += f"; {advice}" if advice else ""
            self._connack.set_exception(ConnectionRefused(what, reason_code=reason.value))
            return
        self._connack.set_result(
            BrokerLimits(
                session_present=bool(flags.session_present),
                receive_maximum=getattr(properties, "ReceiveMaximum", 65535),
                maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
                shared_subscriptions=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
                assigned_client_id=getattr(properties, "AssignedClientIdentifier", None),
                server_keep_alive=getattr(properties, "ServerKeepAlive", None),
                forgets_groups=properties is not None and properties.json() == _RUMQTTD,
            )
        )

    def _handle_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            what = f"{self._options.url} ended the connection: {reason} (0x{reason.value:02x})"
            lost = ConnectionLost(what, reason_code=reason.value)
        else:
            cause = self._socket.error if self._socket is not None else None
            lost = ConnectionLost(f"the connection to {self._options.url} broke: {cause or 'closed by the other side'}")
        self._loop.call_soon(self._close, lost)  # not under paho-mqtt's locks

    def _handle_suback(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        waiter = self._subscribes.pop(mid, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(reasons[0].value if reasons else 0)

    def _handle_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        if sock is self._socket:
            self._unwatch()


class _Acknowledgement:
    __slots__ = ("done", "link", "mid", "started")

    def __init__(self, link: Link, mid: int) -> None:
        self.link = link
        self.mid = mid
        self.done = False
        self.started = False

    def acknowledge(self) -> None:
        self.done = True
        self.link.send_acknowledgements()
        self.link.check_window()

    def work_started(self) -> None:
        self.started = True
        self.link.check_window()


def _explain(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "; name who signed it with tls=TLS(ca=...)" if error.verify_code in _UNKNOWN_AUTHORITY else ""
        return f"its certificate was not accepted ({error.verify_message}){advice}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        if "CERTIFICATE_REQUIRED" in reason:
            return "it asks for a certificate of ours; give tls=TLS(certificate=..., key=...)"
        if "ALERT" in reason and ("_CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            return f"it did not accept our certificate ({reason})"
        return f"TLS failed ({reason}); {_WRONG_PORT}"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "the connection timed out"
    if isinstance(error, ConnectionResetError):
        return f"it closed the connection; {_WRONG_PORT}"
    if isinstance(error, paho.WebsocketConnectionError):
        return f"it does not speak WebSocket; {_WRONG_PORT}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
