"""One network connection to the broker: one CONNECT of one paho-mqtt client, driven by asyncio.

A link is never reused after its end. So a packet identifier can only be acknowledged on the network connection that its
message arrived on, and paho-mqtt never repeats a message that its sender has given up. Subscriptions and unconfirmed
messages outlive a link: ``subscriber`` and ``outbox`` keep them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import paho.mqtt.client as paho

from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.handlers import run_in_thread
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.acknowledgements import Acknowledgements
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.connect_errors import WRONG_PORT, explain, refused
from mqtt_agent.transport.driver import ConnectOptions, PahoClient
from mqtt_agent.transport.message import InboundMessage
from mqtt_agent.transport.packets import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBACK,
    UNSUBACK,
    Unreadable,
    read_connack,
    read_disconnect,
    read_publish,
    read_suback,
)
from mqtt_agent.transport.packing import (
    PackedPublish,
    pack_disconnect,
    pack_puback,
    pack_pubrec,
    pack_subscribe,
    pack_unsubscribe,
)
from mqtt_agent.transport.pump import Pump
from mqtt_agent.transport.reasons import IDENTIFIER_IN_USE, QUOTA_EXCEEDED, explain_reason

__all__ = ["Link"]

logger: logging.Logger = logger_of(__name__)

_ATTEMPTS = 6  # for a packet that a broker refuses with a reason that may pass
_FIRST_QUOTA_WAIT, _LONGEST_QUOTA_WAIT = 0.2, 2.0  # seconds
_ANSWERED_WITHIN = 300.0  # seconds that a broker may take to answer a subscribe while it sends other packets


class Link:
    """One network connection. All methods run on the event loop that made the link.

    Args:
        options: What the link connects to, and how.
        on_message: Called with each message, never inside of paho-mqtt's locks.
        on_closed: Called once with the reason, when the link was open and has ended.

    Attributes:
        limits: What the broker said in its CONNACK packet. Set by :meth:`open`.
    """

    def __init__(
        self,
        options: ConnectOptions,
        on_message: Callable[[InboundMessage], None],
        on_closed: Callable[[TransportError], None],
    ) -> None:
        settings = options.settings
        self._url = settings.url
        self._timeout = settings.connect_timeout
        self._anonymous = options.login == (None, None)
        self._will = options.will
        self._on_message = on_message
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[Capabilities] = self._loop.create_future()
        self._closed: TransportError | None = None
        self._opened = False
        self.closed_quietly: bool = False
        """Whether the broker has closed the connection without a word or an error, and owed no answer."""
        self._received: list[InboundMessage] = []
        self._publishes: dict[int, Callable[[int], None]] = {}
        self._subscribes: dict[int, asyncio.Future[int]] = {}
        self._faults = FaultLog(logger)
        self.limits: Capabilities
        self._client = client = PahoClient(options)
        client.on_disconnect = self._handle_disconnect
        client.published, client.subscribed = self._publishes, self._subscribes
        client.on_socket_close = self._handle_socket_close
        handlers = {
            CONNACK: self._on_connack,
            PUBLISH: self._on_publish,
            PUBACK: self._on_puback,
            SUBACK: self._on_suback,
            UNSUBACK: self._on_suback,
            DISCONNECT: self._on_disconnect,
        }
        self._pump = Pump(client, settings, handlers, self.abort)
        self._acknowledgements = Acknowledgements(self._send_puback, settings.max_unacknowledged)

    # Opening and closing

    async def open(self) -> Capabilities:
        """Connect, and wait for the broker's CONNACK packet.

        Returns:
            What the broker said in its CONNACK packet.

        Raises:
            BrokerUnreachable: No answer in time, or an answer that is not MQTT 5.
            ConnectionRefused: The broker refuses the connection.
            BrokerNotSupported: No endpoint works with the broker.
        """
        # Not in the default executor of the loop: the program's blocking code may have taken all threads there.
        connecting = run_in_thread(self._client.connect_blocking, "mqtt-agent-connect")
        try:
            # A thread cannot be canceled. The shield lets it run to its own timeout, and _discard cleans up after it.
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._discard)
            raise
        except (OSError, ValueError) as error:
            raise BrokerUnreachable(f"no MQTT broker answers at {self._url}: {explain(error)}") from error
        try:
            self._pump.start()
            # Before Python 3.12, wait_for swallows a cancellation that arrives together with the CONNACK.
            await asyncio.wait([self._connack], timeout=self._timeout)
            if not self._connack.done():
                what = f"{self._url} accepts connections but sent no MQTT answer within {self._timeout:g} s"
                raise BrokerUnreachable(f"{what}: it is too busy, or use a broker that speaks MQTT 5; {WRONG_PORT}")
            self.limits = self._connack.result()
            self.limits.check(self._url)
        except ConnectionLost as error:
            cause = self._pump.error
            why = explain(cause) if cause is not None else f"{error}; {WRONG_PORT}"
            raise BrokerUnreachable(f"no MQTT broker answers at {self._url}: {why}") from cause or error
        except BaseException:
            self.abort()
            raise
        self._opened = True
        if self._closed is not None:
            raise self._closed
        # Messages that arrived together with the CONNACK are delivered after this method has returned the limits.
        self._loop.call_soon(self._deliver)
        return self.limits

    def _discard(self, connecting: asyncio.Future[None]) -> None:
        if not connecting.cancelled():
            connecting.exception()
        self.abort()

    def disconnect(self, *, end_session: bool) -> None:
        """End the link with a DISCONNECT packet, so that the broker does not publish the Last Will.

        Args:
            end_session: Tell the broker to forget the session.
        """
        if self._closed is None:
            self._pump.send(pack_disconnect(end_session=end_session))
            self._close(ConnectionLost("this client closed the connection"), linger=True)

    async def wait_closed(self) -> None:
        """Wait until the broker has received the DISCONNECT packet, for about one second at most."""
        await self._pump.wait_closed()

    def abort(self, reason: TransportError | None = None) -> None:
        """End the link without a DISCONNECT packet, as a crash would.

        Args:
            reason: Why, for ``on_closed`` and for operations that wait for the broker.
        """
        self._close(reason or ConnectionLost("this client dropped the connection"))

    def _close(self, reason: TransportError, *, linger: bool = False) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        self._acknowledgements.close()
        self._pump.close(linger=linger)
        self._publishes.clear()
        for waiter in self._subscribes.values():
            if not waiter.done():
                waiter.set_exception(reason)
                waiter.exception()  # marks the error as retrieved, so that asyncio does not log the error
        self._subscribes.clear()
        if not self._connack.done():
            self._connack.set_exception(reason)
            self._connack.exception()  # marks this error as retrieved too
        if self._opened:
            self._opened = False
            self._on_closed(reason)

    # Received packets

    def _on_puback(self, head: int, data: bytes, at: int, end: int) -> None:
        on_puback = self._publishes.pop(data[at] << 8 | data[at + 1], None)
        if on_puback is not None:
            on_puback(data[at + 2] if end > at + 2 else 0)

    def _on_disconnect(self, head: int, data: bytes, at: int, end: int) -> None:
        code, said = read_disconnect(data, at, end)
        what = f"{self._url} ended the connection: {explain_reason(code, said)}"
        self._close(ConnectionLost(what, reason_code=code))

    def _on_suback(self, head: int, data: bytes, at: int, end: int) -> None:
        mid, code = read_suback(data, at, end)
        waiter = self._subscribes.pop(mid, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(code)

    def _on_connack(self, head: int, data: bytes, at: int, end: int) -> None:
        if self._connack.done():
            return
        connack = read_connack(data, at, end)
        if connack.code != 0:
            self._connack.set_exception(refused(self._url, connack, anonymous=self._anonymous, will=self._will))
            return
        limits = Capabilities.read(connack.session_present, connack.properties)
        self._client.connected(limits.keep_alive)
        self._acknowledgements.on_arrival = limits.sends_singly
        self._connack.set_result(limits)

    def _on_publish(self, head: int, data: bytes, at: int, end: int) -> None:
        try:
            message, mid = read_publish(head, data, at, end)
        except Unreadable as error:
            # Closing the connection would not help: at QoS 1 the message would arrive again after each reconnect.
            self._faults.tell(error.topic, "an unreadable MQTT message", error)
            if head & 0x06 == 0x02:
                self._acknowledgements.add_unhandled(error.mid)
            return
        if message.qos == 1:
            message.acknowledgement = self._acknowledgements.add(mid)
        elif message.qos == 2:  # another program has subscribed in this session; paho-mqtt answers the PUBREL
            self._pump.send(pack_pubrec(mid))
        if self._opened and not self._received:
            self._on_message(message)
        else:
            self._received.append(message)
            self._deliver()

    def _deliver(self) -> None:
        if self._opened and self._received:
            received, self._received = self._received, []
            for message in received:
                self._on_message(message)

    # Publishing, subscribing, acknowledging

    def publish(self, packed: PackedPublish, on_puback: Callable[[int], None] | None = None) -> int:
        """Hand one message to the network.

        Args:
            packed: The message. It was packed before, so that nothing can fail here.
            on_puback: Called with the reason code of the broker's PUBACK, at QoS 1.

        Returns:
            The packet identifier; 0 at QoS 0.
        """
        mid = self._client.next_mid() if packed.qos else 0
        self._pump.send(packed.with_id(mid))
        if on_puback is not None:
            self._publishes[mid] = on_puback
        return mid

    def publish_made(self, make: Callable[[int], bytes], on_puback: Callable[[int], None]) -> None:
        """Hand a message to the network that is made when it leaves.

        Args:
            make: Returns the packet for a packet identifier. The message has QoS 1.
            on_puback: See :meth:`publish`.
        """
        mid = self._client.next_mid()
        self._pump.send_made(partial(make, mid))
        self._publishes[mid] = on_puback

    def skip_identifiers(self) -> None:
        """Use packet identifiers far from the latest, because the broker says that the latest is in use."""
        self._client.skip_mids()

    async def wait_writable(self) -> None:
        """Wait until most of the published bytes have been given to the network."""
        await self._pump.wait_writable()

    async def subscribe(self, topic_filter: str, qos: int, *, retain_handling: int, no_local: bool = False) -> int:
        """Subscribe to one topic filter.

        Args:
            topic_filter: The topic filter.
            qos: The highest QoS wanted.
            retain_handling: 0: send retained messages at every subscribe. 2: never send them.
            no_local: Whether the broker does not send this client its own messages.

        Returns:
            The reason code of the SUBACK: the granted QoS, or 0x80 and more for a refusal.

        Raises:
            ConnectionLost: The connection ended before the broker answered.
        """
        return await self._ask(lambda mid: pack_subscribe(mid, topic_filter, qos, retain_handling, no_local))

    async def unsubscribe(self, topic_filter: str) -> int:
        """Unsubscribe from one topic filter.

        Returns:
            The reason code of the UNSUBACK.

        Raises:
            ConnectionLost: The connection ended before the broker answered.
        """
        return await self._ask(lambda mid: pack_unsubscribe(mid, topic_filter))

    async def _ask(self, pack: Callable[[int], bytes]) -> int:
        """Send a SUBSCRIBE or UNSUBSCRIBE packet, again when the broker cannot take it under this identifier or now.

        Args:
            pack: Returns the packet with a packet identifier.

        Returns:
            The reason code of the broker's last answer.
        """
        quota = Backoff(_FIRST_QUOTA_WAIT, _LONGEST_QUOTA_WAIT)
        code = 0
        for _ in range(_ATTEMPTS):
            mid = self._client.next_mid()
            code = await self._send_and_wait(mid, pack(mid))
            if code == IDENTIFIER_IN_USE:
                self.skip_identifiers()
            elif code == QUOTA_EXCEEDED:
                await quota.wait()
            else:
                break
        return code

    async def _send_and_wait(self, mid: int, packet: bytes) -> int:
        if self._closed is not None:
            raise self._closed
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._subscribes[mid] = waiter
        self._pump.send(packet)
        since = self._loop.time()
        while not waiter.done():
            # A broker that sends anything is alive. It may be busy with earlier packets, such as many subscriptions.
            now = self._loop.time()
            silence = now - max(since, self._pump.heard_at)
            if silence >= self._timeout or now - since >= _ANSWERED_WITHIN:
                self.abort(ConnectionLost(f"{self._url} stopped answering"))
                break
            left = since + _ANSWERED_WITHIN - now
            await asyncio.wait([waiter], timeout=min(self._timeout - silence, left))
        return await waiter

    @property
    def unanswered(self) -> list[asyncio.Future[int]]:
        """Futures of the subscribes and unsubscribes that the broker has not answered."""
        return list(self._subscribes.values())

    def _send_puback(self, mid: int) -> None:
        self._pump.send(pack_puback(mid))

    # Callbacks of paho-mqtt. It calls them while holding its locks, so they only note what happened.

    def _handle_disconnect(self, *arguments: object) -> None:
        self.closed_quietly = self._pump.error is None and not self._publishes and not self._subscribes
        cause = self._pump.error or "the broker closed it"
        lost = ConnectionLost(f"the connection to {self._url} broke: {cause}")
        self._loop.call_soon(self._close, lost)  # not inside of paho-mqtt's locks

    def _handle_socket_close(self, client: paho.Client, userdata: object, sock: object) -> None:
        self._pump.forget(sock)
