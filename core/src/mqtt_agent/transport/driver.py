"""paho-mqtt as we use it: a client made from our options, for all packets but PUBLISH and PUBACK."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt_agent.transport.socket import BufferedSocket
from mqtt_agent.transport.url import BrokerURL

__all__ = ["BrokerLimits", "ConnectOptions", "PahoClient"]

_RUMQTTD = {"TopicAliasMaximum": 4096}  # it has no name, but says this in its CONNACK and nothing else


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

    @classmethod
    def read(cls, flags: Any, properties: Any) -> BrokerLimits:
        """From what paho-mqtt made of the CONNACK."""
        return cls(
            session_present=bool(flags.session_present),
            receive_maximum=getattr(properties, "ReceiveMaximum", 65535),
            maximum_packet_size=getattr(properties, "MaximumPacketSize", None),
            shared_subscriptions=bool(getattr(properties, "SharedSubscriptionAvailable", 1)),
            assigned_client_id=getattr(properties, "AssignedClientIdentifier", None),
            server_keep_alive=getattr(properties, "ServerKeepAlive", None),
            forgets_groups=properties is not None and properties.json() == _RUMQTTD,
        )


class PahoClient(paho.Client):
    """paho-mqtt over our buffered socket, with a session, a will and a login as the options say."""

    taken: tuple[Container[int], ...] = ()
    """Packet identifiers that are in use."""
    _raw: socket.socket | None = None  # the connected socket, which is closed when a handshake on it fails

    def __init__(self, options: ConnectOptions) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=paho.MQTTv5,
            transport="websockets" if options.url.websocket else "tcp",
            reconnect_on_failure=False,
        )
        self._options = options
        self.connect_timeout = options.timeout
        if options.url.websocket:
            self.ws_set_options(path=options.url.path)
        if options.ssl_context is not None:
            self.tls_set_context(options.ssl_context)  # pyright: ignore[reportUnknownMemberType]
        if options.username is not None or options.password is not None:
            self.username_pw_set(options.username or "", options.password)
        if options.will_topic is not None:
            properties = Properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = options.will_delay
            properties.ContentType = "application/json"
            properties.PayloadFormatIndicator = 1
            if options.will_expiry is not None:
                properties.MessageExpiryInterval = options.will_expiry
            self.will_set(options.will_topic, options.will_payload, qos=1, retain=True, properties=properties)

    def connect_blocking(self) -> None:
        """TCP, TLS and WebSocket, and the CONNECT; not from the loop.

        Raises:
            OSError, ValueError: Nobody is there, or what is there is something else.
        """
        o = self._options
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = o.session_expiry
        properties.ReceiveMaximum = o.receive_maximum
        properties.MaximumPacketSize = o.maximum_packet_size
        self.connect(o.url.host, o.url.port, o.keep_alive, clean_start=o.clean_start, properties=properties)

    def _create_socket(self) -> Any:
        try:
            return BufferedSocket(super()._create_socket())
        except BaseException:
            if self._raw is not None:
                self._raw.close()
            raise

    def _create_socket_connection(self) -> Any:
        self._raw = super()._create_socket_connection()
        return self._raw

    def _ssl_wrap_socket(self, tcp_sock: Any) -> ssl.SSLSocket:
        # paho-mqtt does the same, but a socket whose handshake fails stays open until the error is forgotten.
        o = self._options
        assert o.ssl_context is not None
        wrapped = o.ssl_context.wrap_socket(tcp_sock, server_hostname=o.url.host, do_handshake_on_connect=False)
        self._raw = wrapped
        wrapped.settimeout(o.timeout)
        wrapped.do_handshake()
        return wrapped

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
