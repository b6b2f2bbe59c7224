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
from collections import deque
from collections.abc import Callable
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
from mqtt_agent.transport.socket import BufferedSocket
from mqtt_agent.transport.url import BrokerURL

__all__ = ["BrokerLimits", "ConnectOptions", "Link"]

logger = logging.getLogger(__name__)

_HIGH_WATER = 256 * 1024
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
        shared_subscriptions: Whether it offers shared subscriptions. Without them it is taken for ejabberd, which sends
            a client nothing more, not even at QoS 0, until the last QoS 1 message is acknowledged: there, everything
            is acknowledged on arrival.
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
    """paho-mqtt over our buffered socket."""

    on_unreadable: Callable[[str, int, int, Exception], None]

    def _create_socket(self) -> Any:
        return BufferedSocket(super()._create_socket())

    def _handle_publish(self) -> Any:
        try:
            return super()._handle_publish()
        except Exception as error:
            # A PUBLISH that paho-mqtt does not read, for U+FEFF in a property for example, must not cost the
            # connection: at QoS 1 it would come again after each reconnect.
            packet, qos = bytes(self._in_packet["packet"]), (self._in_packet["command"] & 0x06) >> 1
            end = 2 + int.from_bytes(packet[:2], "big")
            if len(packet) < end + 2:
                raise
            topic = packet[2:end].decode(errors="replace")
            self.on_unreadable(topic, qos, int.from_bytes(packet[end : end + 2], "big"), error)
            return paho.MQTT_ERR_SUCCESS


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
        self._one_at_a_time = False
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[BrokerLimits] = self._loop.create_future()
        self._closed: TransportError | None = None
        self._opened = False
        self._socket: BufferedSocket | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._writing = False
        self._flush_scheduled = False
        self._misc_timer: asyncio.TimerHandle | None = None
        self._received: list[InboundMessage] = []
        self._unacknowledged: deque[_Acknowledgement] = deque()  # in the order of arrival
        self._publishes: dict[int, Callable[[int], None]] = {}
        self._subscribes: dict[int, asyncio.Future[int]] = {}
        self._relief: asyncio.TimerHandle | None = None
        self._faults = FaultLog(logger)
        self._heard_at = 0.0
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
            manual_ack=True,
        )
        client.max_inflight_messages = 0  # the connection keeps to the broker's Receive Maximum itself
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
        client.on_message = self._handle_message
        client.on_unreadable = self._handle_unreadable
        client.on_publish = self._handle_puback
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
        self._loop.call_soon(self._deliver)  # what came with the CONNACK: our opener has to know the limits first
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
        self._heard_at = self._loop.time()
        sock.fill()
        going = True
        while going and sock.readable:
            try:
                going = self._client.loop_read() == paho.MQTT_ERR_SUCCESS
            except Exception as error:  # a broken or hostile broker must not take the loop down
                logger.warning("%s sent what MQTT does not allow: %r", self._options.url, error)
                self.abort(ConnectionLost(f"{self._options.url} broke the MQTT protocol"))
                return
            if self._opened:
                self._deliver()
                going = going and self._closed is None
        if self._client.want_write():
            self._schedule_flush()

    def _deliver(self) -> None:
        if self._received and self._closed is None:
            received, self._received = self._received, []
            for message in received:
                self._on_message(message)

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
        info = self._client.publish(topic, payload, qos, retain, _pack(properties))
        if info.rc == paho.MQTT_ERR_QUEUE_SIZE:
            raise QueueFull("all 65,535 packet identifiers of the connection are in use")
        if on_puback is not None:
            self._publishes[info.mid] = on_puback
        self._schedule_flush()
        if self._socket is not None and self._socket.unsent >= _HIGH_WATER:
            self._writable.clear()
        return info.mid

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
        since = self._loop.time()
        while not waiter.done():
            # As long as it says anything it is busy with what came before: thousands of subscriptions take a while.
            silence = self._loop.time() - max(since, self._heard_at)
            if silence >= self._options.timeout:
                self.abort(ConnectionLost(f"{self._options.url} does not answer any more"))
                break
            await asyncio.wait([waiter], timeout=self._options.timeout - silence)
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
            self._client.ack(queue.popleft().mid, 1)
        self._schedule_flush()

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
        shared = bool(getattr(properties, "SharedSubscriptionAvailable", 1))
        self._one_at_a_time = not shared
        self._connack.set_result(
            BrokerLimits(
                session_present=bool(flags.session_present),
                receive_maximum=getattr(properties, "ReceiveMaximum", 65535),
                maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
                shared_subscriptions=shared,
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

    def _handle_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        acknowledge = None
        if message.qos == 1:
            entry = _Acknowledgement(self, message.mid)
            self._unacknowledged.append(entry)
            acknowledge = entry
            if self._one_at_a_time:
                self._loop.call_soon(entry.acknowledge)  # its handlers have it by then
        try:
            topic = message.topic
        except UnicodeDecodeError:
            logger.warning("a message on a topic that is not UTF-8 was dropped")
            if acknowledge is not None:
                self._loop.call_soon(acknowledge.acknowledge)
            return
        properties = message.properties
        received = InboundMessage(
            topic,
            bytes(message.payload),
            qos=message.qos,
            retain=message.retain,
            duplicate=message.dup,
            acknowledgement=acknowledge,
        )
        if properties is not None:
            values = properties.__dict__
            received.response_topic = values.get("ResponseTopic")
            received.correlation_data = values.get("CorrelationData")
            received.message_expiry = values.get("MessageExpiryInterval")
            received.user_properties = tuple(values.get("UserProperty", ()))
        self._received.append(received)

    def _handle_unreadable(self, topic: str, qos: int, mid: int, error: Exception) -> None:
        self._faults.tell(topic, "a message that is not read", error)
        if qos == 1:
            entry = _Acknowledgement(self, mid)
            self._unacknowledged.append(entry)
            self._loop.call_soon(entry.acknowledge)

    def _handle_puback(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        on_puback = self._publishes.pop(mid, None)
        if on_puback is not None:
            on_puback(reason.value)

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


def _pack(properties: PublishProperties) -> Properties:
    packed = Properties(PacketTypes.PUBLISH)
    if properties.content_type is not None:
        packed.ContentType = properties.content_type
        packed.PayloadFormatIndicator = 1
    if properties.response_topic is not None:
        packed.ResponseTopic = properties.response_topic
    if properties.correlation_data is not None:
        packed.CorrelationData = properties.correlation_data
    if properties.message_expiry is not None:
        packed.MessageExpiryInterval = properties.message_expiry
    if properties.user_properties:
        packed.UserProperty = list(properties.user_properties)
    return packed


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
