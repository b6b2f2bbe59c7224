"""One network connection: one CONNECT of one paho-mqtt client, driven by asyncio.

A link lives from its CONNECT to its end and is never reused, so a packet identifier can only ever be acknowledged on
the connection that it came over, and paho-mqtt never repeats a message that its sender has given up. What must outlive
a link (subscriptions, unconfirmed messages) is the business of :class:`~mqtt_agent.transport.connection.Connection`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import BrokerUnreachable, ConnectionLost, QueueFull, TransportError
from mqtt_agent.transport.acknowledgements import Acknowledgements
from mqtt_agent.transport.connect_errors import WRONG_PORT, explain, refused
from mqtt_agent.transport.driver import BrokerLimits, ConnectOptions, PahoClient
from mqtt_agent.transport.message import InboundMessage, PublishProperties
from mqtt_agent.transport.packets import (
    PUBACK,
    PUBLISH,
    Unreadable,
    pack_disconnect,
    pack_puback,
    pack_publish,
    pack_pubrec,
    pack_subscribe,
    pack_unsubscribe,
    read_publish,
    read_suback,
)
from mqtt_agent.transport.pump import Pump

__all__ = ["Link"]

logger: logging.Logger = logging.getLogger(__name__)

_MAX_UNCONFIRMED = 60_000  # packet identifiers go to 65,535, and subscriptions take some


class Link:
    """A live connection. All methods run on the event loop that opened it.

    Args:
        options: What to connect to, and how.
        on_message: Called with each message, outside of paho-mqtt's locks.
        on_closed: Called once, with the reason, after a link that had been open is gone.
        max_unacknowledged: See :class:`~mqtt_agent.transport.acknowledgements.Acknowledgements`.
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
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[BrokerLimits] = self._loop.create_future()
        self._closed: TransportError | None = None
        self._opened = False
        self._received: list[InboundMessage] = []
        self._publishes: dict[int, Callable[[int], None]] = {}
        self._subscribes: dict[int, asyncio.Future[int]] = {}
        self._faults = FaultLog(logger)
        self.limits: BrokerLimits
        self._client = client = PahoClient(options)
        client.on_connect = self._handle_connack
        client.on_disconnect = self._handle_disconnect
        client.taken = self._publishes, self._subscribes
        client.on_socket_close = self._handle_socket_close
        self._pump = Pump(client, options.url, options.keep_alive, self._take, self.abort)
        self._acknowledgements = Acknowledgements(self._send_acknowledgement, max_unacknowledged)

    # Opening and closing

    async def open(self) -> BrokerLimits:
        """Connect, and wait for the broker's CONNACK.

        Raises:
            BrokerUnreachable: Nobody answers in time, or what answers is not an MQTT 5 broker.
            ConnectionRefused: The broker refuses us.
        """
        connecting = self._loop.run_in_executor(None, self._client.connect_blocking)
        try:
            # A thread cannot be canceled: the shield lets it end by its own time limit, and we clean up after it.
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._discard)
            raise
        except (OSError, ValueError) as error:
            raise BrokerUnreachable(f"no MQTT broker answers at {self._options.url}: {explain(error)}") from error
        try:
            self._pump.start()
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the CONNACK.
            await asyncio.wait([self._connack], timeout=self._options.timeout)
            if not self._connack.done():
                raise BrokerUnreachable(
                    f"{self._options.url} accepts connections but did not answer MQTT "
                    f"within {self._options.timeout:g} s"
                )
            self.limits = self._connack.result()
        except ConnectionLost as error:
            cause = self._pump.error
            why = explain(cause) if cause is not None else f"{error}; {WRONG_PORT}"
            raise BrokerUnreachable(f"no MQTT broker answers at {self._options.url}: {why}") from cause or error
        except BaseException:
            self.abort()
            raise
        self._opened = True
        if self._closed is not None:
            raise self._closed
        self._loop.call_soon(self._deliver)  # what came with the CONNACK: our opener has to know the limits first
        return self.limits

    def _discard(self, connecting: asyncio.Future[None]) -> None:
        if not connecting.cancelled():
            connecting.exception()
        self.abort()

    def disconnect(self, *, end_session: bool) -> None:
        """Say goodbye: the broker drops the will, and the session too with ``end_session``."""
        if self._closed is None:
            self._pump.send(pack_disconnect(end_session=end_session))
            self._close(ConnectionLost("the connection was closed by this side"), linger=True)

    async def wait_closed(self) -> None:
        """Wait, about a second at most, until the broker has taken the goodbye."""
        await self._pump.wait_closed()

    def abort(self, reason: TransportError | None = None) -> None:
        """Drop the connection without a word, as a crash would."""
        self._close(reason or ConnectionLost("the connection was dropped by this side"))

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
                waiter.exception()  # retrieved: nobody may be waiting any more
        self._subscribes.clear()
        if not self._connack.done():
            self._connack.set_exception(reason)
            self._connack.exception()  # retrieved: nobody may be waiting any more
        if self._opened:
            self._opened = False
            self._on_closed(reason)

    # What comes in

    def _take(self, head: int, data: bytes, at: int, end: int) -> None:
        if head & 0xF0 == PUBLISH:
            self._take_publish(head, data, at, end)
            return
        if head & 0xF0 != PUBACK:
            mid, code = read_suback(data, at, end)
            waiter = self._subscribes.pop(mid, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(code)
            return
        on_puback = self._publishes.pop(data[at] << 8 | data[at + 1], None)
        if on_puback is not None:
            on_puback(data[at + 2] if end > at + 2 else 0)

    def _take_publish(self, head: int, data: bytes, at: int, end: int) -> None:
        try:
            message, mid = read_publish(head, data, at, end)
        except Unreadable as error:
            # It must not cost the connection: at QoS 1 it would come again after each reconnect.
            self._faults.tell(error.topic, "a message that is not read", error)
            if head & 0x06 == 0x02:
                self._acknowledgements.owe_now(error.mid)
            return
        if message.qos == 1:
            message.acknowledgement = self._acknowledgements.owe(mid)
        elif message.qos == 2:  # from a subscription that is none of ours; paho-mqtt answers the PUBREL
            self._pump.send(pack_pubrec(mid))
        self._received.append(message)
        self._deliver()

    def _deliver(self) -> None:
        if self._opened and self._received:
            received, self._received = self._received, []
            for message in received:
                self._on_message(message)

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
        self._pump.send(pack_publish(topic, payload, qos, retain, mid, properties))
        if on_puback is not None:
            self._publishes[mid] = on_puback
        return mid

    async def wait_writable(self) -> None:
        """Wait until the network has taken most of what was published."""
        await self._pump.wait_writable()

    async def subscribe(self, topic_filter: str, qos: int, *, retain_handling: int) -> int:
        """Subscribe and return the reason code of the SUBACK: the granted QoS, or 0x80 and more for a refusal.

        Raises:
            ConnectionLost: The connection ended before the broker answered.
        """
        mid = self._client.next_mid()
        return await self._answered(mid, pack_subscribe(mid, topic_filter, qos, retain_handling))

    async def unsubscribe(self, topic_filter: str) -> int:
        """Unsubscribe and return the reason code of the UNSUBACK."""
        mid = self._client.next_mid()
        return await self._answered(mid, pack_unsubscribe(mid, topic_filter))

    async def _answered(self, mid: int, packet: bytes) -> int:
        if self._closed is not None:
            raise self._closed
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._subscribes[mid] = waiter
        self._pump.send(packet)
        since = self._loop.time()
        while not waiter.done():
            # As long as it says anything it is busy with what came before: thousands of subscriptions take a while.
            silence = self._loop.time() - max(since, self._pump.heard_at)
            if silence >= self._options.timeout:
                self.abort(ConnectionLost(f"{self._options.url} does not answer any more"))
                break
            await asyncio.wait([waiter], timeout=self._options.timeout - silence)
        return await waiter

    @property
    def unanswered(self) -> list[asyncio.Future[int]]:
        """What waits for a SUBACK or UNSUBACK."""
        return list(self._subscribes.values())

    def _send_acknowledgement(self, mid: int) -> None:
        self._pump.send(pack_puback(mid))

    # What paho-mqtt calls, under its locks: note it and return

    def _handle_connack(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._connack.done():
            return
        if reason.value >= 0x80:
            anonymous = self._options.username is None and self._options.password is None
            self._connack.set_exception(refused(self._options.url, reason, anonymous=anonymous))
            return
        limits = BrokerLimits.read(flags, properties)
        self._acknowledgements.on_arrival = not limits.shared_subscriptions
        self._connack.set_result(limits)

    def _handle_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            what = f"{self._options.url} ended the connection: {reason} (0x{reason.value:02x})"
            lost = ConnectionLost(what, reason_code=reason.value)
        else:
            cause = self._pump.error or "closed by the other side"
            lost = ConnectionLost(f"the connection to {self._options.url} broke: {cause}")
        self._loop.call_soon(self._close, lost)  # not under paho-mqtt's locks

    def _handle_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        self._pump.forget(sock)
