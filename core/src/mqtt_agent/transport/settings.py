"""BrokerSettings: broker, namespace, credentials and TLS as one value, which all endpoints accept."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mqtt_agent.transport.connection import Connection
from mqtt_agent.transport.credentials import Credentials
from mqtt_agent.transport.message import MessageAudit, MessageIdentity
from mqtt_agent.transport.tls import TLS
from mqtt_agent.transport.url import BrokerURL
from mqtt_agent.wire import DEFAULT_NAMESPACE, Topics

__all__ = ["Bound", "BrokerSettings"]

Bound = Literal["off", "prefer", "require"]
"""Whether an endpoint speaks sender-bound topics; see :class:`BrokerSettings`."""


@dataclass(frozen=True, eq=False)
class BrokerSettings:
    """Which broker, which namespace, and how to log in.

    Two settings are equal when they mean the same broker, namespace and login. A broker of ``None`` equals the URL that
    ``None`` stands for. Settings have no hash, because a token function may have no hash.

    Attributes:
        broker: A URL, or several, as a sequence or with commas between them; see
            :class:`~mqtt_agent.transport.Connection`. None means ``$MQTT_AGENT_BROKER``, then
            ``mqtt://localhost:1883``.
        namespace: The prefix of all topics.
        credentials: A :class:`Password` or a :class:`Token`; None takes the user and password of the URL, if any.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`, for ``mqtts://`` and ``wss://``.
        bound: Whether the endpoint speaks sender-bound topics, whose names say who writes them, so that a broker can
            check the sender (ours). ``"prefer"``: with every peer that speaks them, and plain topics with others.
            ``"require"``: never a plain topic. ``"off"``: only plain topics.
        identity: Signs the endpoint's messages, and proves who has signed those that arrive; see
            :class:`mqtt_agent.identity.Identity`. None signs nothing and asks for no proof.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`. None keeps nothing.

    Raises:
        ValueError: ``broker`` is not a broker URL, or ``bound`` has another value.
        InvalidIdentifier: ``namespace`` cannot be used in topics.
    """

    broker: str | BrokerURL | Sequence[str] | None = field(default=None, repr=False)  # the URL may hold a password
    namespace: str = DEFAULT_NAMESPACE
    credentials: Credentials | None = None
    tls: ssl.SSLContext | TLS | None = None
    bound: Bound = "prefer"
    identity: MessageIdentity | None = None
    audit: MessageAudit | None = None

    def __post_init__(self) -> None:
        self._meaning()
        if self.bound not in get_args(Bound):
            choices = ", ".join(repr(each) for each in get_args(Bound))
            raise ValueError(f"bound={self.bound!r} is not known: use one of {choices}")

    def _meaning(self) -> tuple[object, ...]:
        return (
            BrokerURL.parse_all(self.broker),
            Topics(self.namespace).namespace,
            self.credentials,
            self.tls,
            self.bound,
            self.identity,
            self.audit,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrokerSettings) and self._meaning() == other._meaning()

    def connection(self, client_id: str, *, session_expiry: int, will_delay: int = 5) -> Connection:
        """Make a connection with these settings; the connection is not started.

        Args:
            client_id: The MQTT client id.
            session_expiry: Seconds that the broker keeps the session while the client is disconnected.
            will_delay: Seconds that the broker waits for the client to come back before it publishes the Last Will.

        Raises:
            OSError: A file that ``tls`` names cannot be used.
        """
        return Connection(
            self.broker,
            client_id=client_id,
            credentials=self.credentials,
            tls=self.tls,
            session_expiry=session_expiry,
            will_delay=will_delay,
            identity=self.identity,
            audit=self.audit,
        )

    def as_arguments(self) -> dict[str, Any]:
        """The settings as keyword arguments for the constructor of an endpoint."""
        return {
            "broker": self.broker,
            "namespace": self.namespace,
            "credentials": self.credentials,
            "tls": self.tls,
            "bound": self.bound,
            "identity": self.identity,
            "audit": self.audit,
        }
