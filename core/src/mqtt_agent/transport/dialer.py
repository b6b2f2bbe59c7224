"""Opens the links of one connection, one after the other: under which client id, with which login and which will."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from mqtt_agent.errors import TransportError
from mqtt_agent.transport.driver import ConnectOptions
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import InboundMessage, Will
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Dialer"]


@dataclass
class Dialer:
    """What all links of one connection have in common; the arguments are those of :class:`Connection`.

    Attributes:
        renewal: Gives the login.
        will: What the broker publishes when a link is lost for longer than ``will_delay`` seconds.
        epoch: Counts the links.
        clean_start: Whether each begins without the session of the one before.
        token: Tells this process from others with the same client id, where each link needs an id of its own.
    """

    url: BrokerURL
    client_id: str
    ssl_context: ssl.SSLContext | None
    keep_alive: int
    session_expiry: int
    will_delay: int
    connect_timeout: float
    receive_maximum: int
    max_packet_size: int
    max_unacknowledged: int
    renewal: Renewal
    will: Will | None = None
    epoch: int = 0
    clean_start: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:6])

    async def open(
        self, on_message: Callable[[InboundMessage], None], on_lost: Callable[[TransportError], None]
    ) -> Link:
        """Open the next one.

        Args:
            on_message: Called with each message, for the first time when this has returned.
            on_lost: Called with the reason when the link, once open, is gone.

        Raises:
            BrokerUnreachable, ConnectionRefused: See :meth:`Link.open`.
        """
        self.epoch += 1
        will = self.will
        username, password = await self.renewal.login()
        options = ConnectOptions(
            url=self.url,
            # rumqttd mixes up the wills of connections with the same id, those of an earlier process included; and
            # there is no session to find again.
            client_id=f"{self.client_id}~{self.token}{self.epoch}" if self.clean_start else self.client_id,
            username=username,
            password=password,
            ssl_context=self.ssl_context,
            keep_alive=self.keep_alive,
            session_expiry=self.session_expiry,
            receive_maximum=self.receive_maximum,
            maximum_packet_size=self.max_packet_size,
            timeout=self.connect_timeout,
            clean_start=self.clean_start,
            will_topic=will.topic if will else None,
            will_payload=will.payload() if will else b"",
            will_delay=self.will_delay,
            will_expiry=will.expiry if will else None,
        )
        link = Link(options, on_message, on_lost, self.max_unacknowledged)
        await link.open()
        return link
