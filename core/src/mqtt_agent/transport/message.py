"""What travels: a message that came in, and the properties of one that goes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Acknowledgement", "InboundMessage", "PublishProperties", "Will"]


@dataclass(frozen=True)
class PublishProperties:
    """MQTT 5 properties of a PUBLISH.

    Attributes:
        response_topic: Where the receiver answers.
        correlation_data: Bytes that the receiver sends back.
        content_type: MIME type of the payload.
        message_expiry: Seconds after which the broker drops an undelivered message.
        user_properties: Pairs of strings.
    """

    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = "application/json"
    message_expiry: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained and at QoS 1, when this client is gone without a word.

    Attributes:
        topic: Where.
        payload: A function that returns the payload, asked at each connect.
        expiry: Seconds that the broker keeps it; None for ever.
    """

    topic: str
    payload: Callable[[], bytes]
    expiry: int | None = None


class Acknowledgement(Protocol):
    """How the connection hears what becomes of a message."""

    def acknowledge(self) -> None:
        """Its work is done."""

    def work_started(self) -> None:
        """Long work on it has begun."""

    def hold(self) -> None:
        """It is about to be stored."""


class InboundMessage:
    """A message from the broker.

    Attributes:
        topic: Where it was published.
        payload: Its bytes.
        qos: 0, 1 or 2.
        retain: Whether it is a retained one, sent because of a new subscription.
        duplicate: Whether the broker says that it sent it before.
        response_topic: MQTT 5 Response Topic, if any.
        correlation_data: MQTT 5 Correlation Data, if any.
        message_expiry: Seconds left before it expires, if it does.
        user_properties: Pairs of strings.
        acknowledgement: Who is to hear that its work is done, until it was told.
    """

    __slots__ = (
        "acknowledgement",
        "correlation_data",
        "duplicate",
        "message_expiry",
        "payload",
        "qos",
        "response_topic",
        "retain",
        "topic",
        "user_properties",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        message_expiry: int | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
        acknowledgement: Acknowledgement | None = None,
    ) -> None:
        self.topic: str = topic
        self.payload: bytes = payload
        self.qos: int = qos
        self.retain: bool = retain
        self.duplicate: bool = duplicate
        self.response_topic: str | None = response_topic
        self.correlation_data: bytes | None = correlation_data
        self.message_expiry: int | None = message_expiry
        self.user_properties: tuple[tuple[str, str], ...] = user_properties
        self.acknowledgement = acknowledgement

    def acknowledge(self) -> None:
        """Tell the broker that the work is done.

        May be called twice, from any task of the connection's loop, and after the connection that the message came
        over is gone: then the broker delivers it again over the next one, so the receiver must know repeats.
        """
        acknowledgement, self.acknowledgement = self.acknowledgement, None
        if acknowledgement is not None:
            acknowledgement.acknowledge()

    def work_started(self) -> None:
        """Say that long work on it has begun: when too many messages stay unacknowledged, this one may be early."""
        if self.acknowledgement is not None:
            self.acknowledgement.work_started()

    def hold(self) -> None:
        """Say that it is about to be stored: it is not acknowledged before :meth:`acknowledge`, come what may.

        Only for the handler to call, before it returns, and for quick work: some brokers wait for each acknowledgement.
        """
        if self.acknowledgement is not None:
            self.acknowledgement.hold()

    def __repr__(self) -> str:
        return f"<InboundMessage {self.topic} {len(self.payload)} bytes qos={self.qos}>"
