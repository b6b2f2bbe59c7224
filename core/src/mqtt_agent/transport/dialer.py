"""Opens the links (network connections) of a :class:`Connection`: each with its client id, login and Last Will."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable

from mqtt_agent.errors import ConnectionRefused, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.driver import ConnectOptions, LinkSettings
from mqtt_agent.transport.failover import Brokers
from mqtt_agent.transport.link import Link
from mqtt_agent.transport.message import InboundMessage, Will
from mqtt_agent.transport.reasons import REFUSED_LOGINS
from mqtt_agent.transport.renewal import Renewal
from mqtt_agent.transport.tls import Certificates
from mqtt_agent.transport.url import BrokerURL

__all__ = ["Dialer"]

logger: logging.Logger = logger_of(__name__)


class Dialer:
    """Opens the links of one connection, one after the other.

    Args:
        settings: The settings that all links have in common. The URL is replaced by that of the broker in use.
        brokers: The brokers that may be used.
        renewal: Gives the login of each link.
        certificates: Gives the SSL context of each link. None leaves the one in ``settings``.
    """

    def __init__(
        self, settings: LinkSettings, brokers: Brokers, renewal: Renewal, certificates: Certificates | None = None
    ) -> None:
        self.will: Will | None = None
        """The Last Will, which the broker publishes when no link is open for ``will_delay`` seconds."""
        self.epoch: int = 0
        """How many links were opened, failed attempts included."""
        self.clean_start: bool = False
        """Whether each link begins with a new session."""
        self.brokers: Brokers = brokers
        """The brokers that may be used, and the one that is in use."""
        self._told: set[tuple[BrokerURL, str]] = set()
        self._settings = settings
        self._renewal = renewal
        self._certificates = certificates
        self.rename(settings.client_id)

    def rename(self, client_id: str) -> None:
        """Use another client id from the next link on, or the same client id in another process."""
        self._settings = dataclasses.replace(self._settings, client_id=client_id)
        self._token = uuid.uuid4().hex[:6]  # distinguishes this process from others that have the same client id

    @property
    def url(self) -> BrokerURL:
        """The URL of the broker in use."""
        return self.brokers.current

    @property
    def client_id(self) -> str:
        """The MQTT client id of the connection."""
        return self._settings.client_id

    @property
    def will_delay(self) -> int:
        """Seconds that the broker waits without a link before it publishes the Last Will."""
        return self._settings.will_delay

    def tell_shortcomings(self, limits: Capabilities) -> None:
        """Log each thing once that the broker does worse than this client has asked for."""
        for each in limits.shortcomings(self._settings.session_expiry):
            if (self.url, each) not in self._told:
                self._told.add((self.url, each))
                logger.warning("%s %s", self.url, each)

    async def open(
        self, on_message: Callable[[InboundMessage], None], on_lost: Callable[[TransportError], None]
    ) -> Link:
        """Open the next link.

        Args:
            on_message: Called with each message, but not before this method has returned.
            on_lost: Called with the reason when the link was open and is lost.

        Raises:
            BrokerUnreachable, ConnectionRefused: See :meth:`Link.open`.
            TokenNotIssued: The token service gives no token.
            WireError: No CONNECT packet can hold the token or the Last Will.
        """
        self.epoch += 1
        will = self.will
        login = await self._renewal.login()
        # With a clean start, each link has a client id of its own: rumqttd mixes up the Last Wills of connections with
        # the same client id, also across processes. No session is lost, because a clean start resumes no session.
        client_id = f"{self.client_id}~{self._token}{self.epoch}" if self.clean_start else self.client_id
        settings = dataclasses.replace(self._settings, url=self.url)
        if self._certificates is not None:
            settings = dataclasses.replace(settings, ssl_context=self._certificates.context())
        link = Link(ConnectOptions(settings, client_id, login, self.clean_start, will), on_message, on_lost)
        try:
            await link.open()
        except ConnectionRefused as error:
            if error.reason_code in REFUSED_LOGINS:
                self._renewal.refused()
            raise
        return link
