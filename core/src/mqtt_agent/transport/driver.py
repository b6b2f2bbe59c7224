"""paho-mqtt, set up for one link. It handles rare packets, such as CONNECT; ``packets`` handles the frequent ones."""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Collection, Container
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, _ConnectionState  # pyright: ignore[reportPrivateUsage]
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt_agent.errors import WireError
from mqtt_agent.transport.credentials import Login, check_login
from mqtt_agent.transport.message import MAX_WILL, MessageIdentity, PublishProperties, Will
from mqtt_agent.transport.packing import MAX_SECONDS, says_text
from mqtt_agent.transport.socket import BufferedSocket
from mqtt_agent.transport.url import BrokerURL

__all__ = ["ConnectOptions", "LinkSettings", "PahoClient"]


_WILL_MARGIN = 30
"""Seconds. Brokers that end sessions late publish the will with the end, if its delay is longer than that."""
_FIRST_IDENTIFIER, _LAST_IDENTIFIER = 32_768, 65_535


@dataclass(frozen=True)
class LinkSettings:
    """The settings that all links of one connection have in common. :class:`Connection` explains each of them."""

    url: BrokerURL
    client_id: str
    ssl_context: ssl.SSLContext | None
    keep_alive: int
    session_expiry: int
    will_delay: int
    connect_timeout: float
    receive_maximum: int
    max_unacknowledged: int
    max_packet_size: int
    identity: MessageIdentity | None = None


@dataclass(frozen=True)
class ConnectOptions:
    """Everything that goes into the CONNECT packet of one link.

    Attributes:
        settings: The settings that all links of the connection have in common.
        client_id: The MQTT client id of this link.
        login: The user name and the password.
        clean_start: Whether the link begins with a new session.
        will: The Last Will.
    """

    settings: LinkSettings
    client_id: str
    login: Login = field(repr=False)
    clean_start: bool = False
    will: Will | None = None


class PahoClient(paho.Client):
    """paho-mqtt's client over a :class:`BufferedSocket`, with the session, the Last Will and the login of one link.

    Args:
        options: What the client connects to, and how.
    """

    published: Container[int] = ()
    """The packet identifiers of the messages that the broker has not confirmed."""
    subscribed: Container[int] = ()
    """The packet identifiers of the SUBSCRIBEs and UNSUBSCRIBEs that the broker has not answered."""
    _raw: socket.socket | None = None  # the connected socket; it is closed when a handshake on it fails

    def __init__(self, options: ConnectOptions) -> None:
        settings = options.settings
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=paho.MQTTv5,
            transport="websockets" if settings.url.websocket else "tcp",
            reconnect_on_failure=False,
        )
        self.queued: Collection[object] = self._out_packet
        """The packets that paho-mqtt has not sent yet."""
        self._options = options
        self.connect_timeout = settings.connect_timeout
        if settings.url.websocket:
            self.ws_set_options(path=settings.url.path)
        if settings.url.tls and settings.ssl_context is not None:
            self.tls_set_context(settings.ssl_context)  # pyright: ignore[reportUnknownMemberType]
        username, password = check_login(options.login)
        if username is not None or password is not None:
            self.username_pw_set(username or "", password)
        if options.will is not None:
            self._set_will(options.will, settings)

    def _set_will(self, will: Will, settings: LinkSettings) -> None:
        delay, session_expiry = settings.will_delay, settings.session_expiry
        properties = Properties(PacketTypes.WILLMESSAGE)
        if delay >= session_expiry:
            # The will comes with the end of the session [MQTT-3.1.3-9]. With two equal times, some brokers publish the
            # will earlier, and put messages into the session after that.
            delay = min(session_expiry + _WILL_MARGIN, MAX_SECONDS)
        properties.WillDelayInterval = delay
        if will.expiry is not None:
            properties.MessageExpiryInterval = will.expiry
        payload = will.payload()
        if says_text(payload):
            properties.PayloadFormatIndicator = 1
        if len(payload) > MAX_WILL:
            raise WireError(
                f"the Last Will on {will.topic} has {len(payload):,} bytes, and MQTT can carry at most {MAX_WILL:,}"
            )
        # mochi-mqtt takes the Content Type from a Last Will, and a signature covers the Content Type.
        about = PublishProperties(content_type=None)
        signed = about if settings.identity is None else settings.identity.sign(will.topic, payload, about)
        if signed.user_properties:
            properties.UserProperty = list(signed.user_properties)
        else:
            properties.ContentType = "application/json"
        self.will_set(will.topic, payload, qos=1, retain=True, properties=properties)

    def connect_blocking(self) -> None:
        """Open TCP, TLS and WebSocket, and send the CONNECT packet. It blocks, so the event loop must not call it.

        Raises:
            OSError, ValueError: Nothing answers, or the server that answers is not an MQTT broker.
        """
        settings = self._options.settings
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = settings.session_expiry
        properties.ReceiveMaximum = settings.receive_maximum
        properties.MaximumPacketSize = settings.max_packet_size
        self.connect(
            settings.url.host,
            settings.url.port,
            settings.keep_alive,
            clean_start=self._options.clean_start,
            properties=properties,
        )

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
        # paho-mqtt does this too, but leaves the socket of a failed handshake open as long as the exception exists.
        settings = self._options.settings
        assert settings.ssl_context is not None
        host = settings.url.host
        wrapped = settings.ssl_context.wrap_socket(tcp_sock, server_hostname=host, do_handshake_on_connect=False)
        self._raw = wrapped
        wrapped.settimeout(settings.connect_timeout)
        wrapped.do_handshake()
        return wrapped

    def connected(self, keep_alive: int | None) -> None:
        """Note that the broker has accepted the connection.

        The link reads the CONNACK packet itself, because paho-mqtt refuses a packet with any property that it does not
        expect, and a Maximum Packet Size above 268,435,455.

        Args:
            keep_alive: The Server Keep Alive in seconds, if any.
        """
        self._state = _ConnectionState.MQTT_CS_CONNECTED
        if keep_alive is not None:
            self._keepalive = keep_alive

    def next_mid(self) -> int:
        """A packet identifier that is not in use."""
        return self._mid_generate()

    def skip_mids(self) -> None:
        """Go on with packet identifiers far from the latest, because the broker says that the latest is in use."""
        self._last_mid = random.randrange(_FIRST_IDENTIFIER, _LAST_IDENTIFIER)

    def _mid_generate(self) -> int:
        # Some brokers confuse the client's packet identifiers with their own, which begin at 1. These begin higher.
        mid = self._last_mid
        while True:
            mid = mid + 1 if _FIRST_IDENTIFIER <= mid < _LAST_IDENTIFIER else _FIRST_IDENTIFIER
            if mid not in self.published and mid not in self.subscribed:
                self._last_mid = mid
                return mid

    def heard(self, seconds_ago: float) -> None:
        """Note when the broker has sent something, so it was alive."""
        self._last_bytes_received = time.monotonic() - seconds_ago
