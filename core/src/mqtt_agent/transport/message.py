"""Messages: a received message, the MQTT properties of a sent message, and the Last Will."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "MAX_WILL",
    "Acknowledgement",
    "InboundMessage",
    "MessageAudit",
    "MessageBatches",
    "MessageIdentity",
    "MessageScreen",
    "Proof",
    "PublishProperties",
    "Refusal",
    "UnsignedMessage",
    "Verify",
    "Will",
]

MAX_WILL: int = 65_535
"""The size of the largest Last Will that MQTT can carry, in bytes."""


@dataclass(frozen=True, init=False)
class PublishProperties:
    """MQTT 5 properties of a PUBLISH.

    Attributes:
        response_topic: The topic for the receiver's answer.
        correlation_data: Bytes that the receiver sends back with its answer.
        content_type: The MIME type of the payload.
        message_expiry: Seconds after which the broker drops the message when it is still undelivered.
        user_properties: Pairs of strings.
    """

    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = "application/json"
    message_expiry: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    def __init__(
        self,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        content_type: str | None = "application/json",
        message_expiry: int | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
    ) -> None:
        # Each message has properties, and the constructor that a frozen dataclass gets takes three times as long.
        self.__dict__.update(
            response_topic=response_topic,
            correlation_data=correlation_data,
            content_type=content_type,
            message_expiry=message_expiry,
            user_properties=user_properties,
        )

    def adding(self, *user_properties: tuple[str, str]) -> PublishProperties:
        """The same properties with more user properties."""
        return PublishProperties(
            self.response_topic,
            self.correlation_data,
            self.content_type,
            self.message_expiry,
            (*self.user_properties, *user_properties),
        )


@dataclass(frozen=True)
class Will:
    """A Last Will: the broker publishes it, retained and at QoS 1, when a connection ends without a DISCONNECT packet.

    Attributes:
        topic: The topic.
        payload: A function that returns the payload. It is called at each connect.
        expiry: Seconds that the broker keeps the retained message; None is no limit.
    """

    topic: str
    payload: Callable[[], bytes]
    expiry: int | None = None


class Proof(NamedTuple):
    """What the signature of a message proves.

    Attributes:
        signer: The name of whoever signed the message; None when nothing is proven.
        signed_at: When the message was signed, in milliseconds since 1970; 0 when nothing is proven.
        fault: Why nothing is proven, for a log line; empty when something is.
        also: Further names of the signer.
        key_id: The id of the key that has signed the message; empty when nothing is proven.
        serves: The tools that the signer may offer; None means every tool.
    """

    signer: str | None = None
    signed_at: int = 0
    fault: str = ""
    also: frozenset[str] = frozenset()
    key_id: str = ""
    serves: frozenset[str] | None = None

    def proves(self, name: str) -> bool:
        """Whether the signer may speak as ``name``.

        A signer may speak as itself, as each of its replicas (the signer ``weather`` as the server ``weather:1``), and
        under the further names that its trusted key has.
        """
        if name == self.signer:
            return True
        return not {name, name.partition(":")[0]}.isdisjoint({self.signer, *self.also})


class UnsignedMessage(Protocol):
    """A message that is signed when it leaves, together with others that leave at the same time."""

    properties: PublishProperties
    longest: int

    def sign(self) -> tuple[str, str]:
        """The user property with the signature, which has ``longest`` bytes in the packet at most."""
        ...


class MessageBatches(Protocol):
    """Signs messages of a connection together."""

    def add(
        self, topic: str, payload: bytes, properties: PublishProperties, readers: Collection[str]
    ) -> UnsignedMessage | None:
        """A message that is signed when it leaves; None when one of its readers could not check the signature."""
        ...


@runtime_checkable
class MessageIdentity(Protocol):
    """Signs the messages of a connection, and checks the signatures of those that arrive."""

    verify: Verify

    @property
    def name(self) -> str | None:
        """The name that the connection signs with; None when it does not sign."""
        ...

    @property
    def key_id(self) -> str | None:
        """The id of the key that the connection signs with; None when it does not sign."""
        ...

    def sign(self, topic: str, payload: bytes, properties: PublishProperties) -> PublishProperties:
        """The same properties with a signature."""
        ...

    def batches(self) -> MessageBatches | None:
        """What signs messages of one connection together; None when nothing does."""
        ...

    def reserve(self, properties: PublishProperties) -> int:
        """How many bytes the signature adds to the packet of a message that is signed alone, at most."""
        ...

    def check(self, message: InboundMessage) -> Proof:
        """What the signature of a message proves."""
        ...


Verify = Literal["off", "log", "require"]
"""What an endpoint does with a message whose sender is not proven; see :class:`mqtt_agent.identity.Identity`."""


@dataclass(frozen=True)
class Refusal:
    """Why a message must not be acted upon, although its sender waits for an answer.

    Attributes:
        reason: A text for people.
        code: A short code for programs, for the answer.
    """

    reason: str
    code: str


class MessageScreen(Protocol):
    """Decides which messages of a namespace reach the handlers, and notes what was received and sent."""

    def passes(self, message: InboundMessage) -> bool:
        """Whether the handlers get a message."""
        ...

    def received(self, message: InboundMessage) -> None:
        """Note a message after the handlers were called, or after it did not pass."""
        ...

    def sends(self, topic: str, payload: bytes, *, signed: bool) -> None:
        """Note a message before it is sent.

        Args:
            topic: The topic.
            payload: The bytes of the message.
            signed: Whether the message gets a signature, if the connection has a key.

        Raises:
            AuditFailed: The message must not be sent, because it cannot be noted.
        """
        ...


@runtime_checkable
class MessageAudit(Protocol):
    """Keeps a line about each message; for example a :class:`mqtt_agent.identity.Audit`."""

    payloads: bool

    def write(self, line: dict[str, Any]) -> None:
        """Write one line.

        Args:
            line: The values by their names.

        Raises:
            AuditFailed: The line cannot be written, and the audit is required.
        """
        ...


UNPROVEN: Proof = Proof(fault="no key is set that could prove the sender")


class Acknowledgement(Protocol):
    """Tells the connection how far the work on a received message is."""

    def acknowledge(self) -> None:
        """See :meth:`InboundMessage.acknowledge`."""

    def work_started(self) -> None:
        """See :meth:`InboundMessage.work_started`."""

    def hold(self) -> None:
        """See :meth:`InboundMessage.hold`."""


class InboundMessage:
    """A message from the broker.

    Attributes:
        topic: The topic that the message was published to.
        payload: The bytes of the message.
        qos: 0, 1 or 2.
        retain: Whether this is a retained message, which the broker sent because of a new subscription.
        duplicate: Whether the broker says that it has sent the message before.
        response_topic: The MQTT 5 Response Topic, if any.
        correlation_data: The MQTT 5 Correlation Data, if any.
        content_type: The MQTT 5 Content Type, if any.
        message_expiry: Seconds left before the message expires, if it does.
        user_properties: Pairs of strings.
        identity: Checks the signature; None when the connection has no identity.
        refusal: Why the message must not be acted upon, as far as the screen or the handler have refused it; else None.
        on_refused: Called when the message is refused after the audit has a line about it; None before.
        acknowledgement: Sends the PUBACK. None at QoS 0, and after :meth:`acknowledge`.
    """

    # Most messages have few of these. So the constructor sets only what it is given.
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    message_expiry: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    identity: MessageIdentity | None = None
    refusal: Refusal | None = None
    on_refused: Callable[[InboundMessage], None] | None = None
    acknowledgement: Acknowledgement | None = None
    _proof: Proof | None = None

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        *,
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
        if response_topic is not None:
            self.response_topic = response_topic
        if correlation_data is not None:
            self.correlation_data = correlation_data
        if message_expiry is not None:
            self.message_expiry = message_expiry
        if user_properties:
            self.user_properties = user_properties
        if acknowledgement is not None:
            self.acknowledgement = acknowledgement

    @property
    def proof(self) -> Proof:
        """What the signature of the message proves. The signature is checked once, when this is read first."""
        if self._proof is None:
            self._proof = UNPROVEN if self.identity is None else self.identity.check(self)
        return self._proof

    def proves(self, name: str) -> bool:
        """Whether the signature of the message proves that ``name`` has sent it."""
        identity = self.identity
        return identity is not None and identity.verify != "off" and self.proof.proves(name)

    @property
    def must_be_proven(self) -> bool:
        """Whether the connection acts only upon messages whose senders a signature proves."""
        return self.identity is not None and self.identity.verify == "require"

    def may_be_signed_for(self, reader: str | None) -> bool:
        """Whether the answer to the message may have this endpoint's signature.

        Where proof is asked for, only a proven reader gets signed answers. Otherwise a stranger could choose the id and
        the receiver of an answer, and somebody else would believe the signature.

        Args:
            reader: Who gets the answer; None when this is not known.
        """
        return not self.must_be_proven or (reader is not None and self.proves(reader))

    @property
    def signer(self) -> str | None:
        """The name of whoever signed the message; None when no trusted key proves it."""
        return self.proof.signer

    def refuse(self, reason: str, code: str = "") -> None:
        """Note that the message is not acted upon. A handler may find this out after it has returned.

        Args:
            reason: Why, as text for people.
            code: A short code for programs.
        """
        self.refusal = Refusal(reason, code)
        if self.on_refused is not None:
            on_refused, self.on_refused = self.on_refused, None
            on_refused(self)

    def acknowledge(self) -> None:
        """Acknowledge the message to the broker, because the work on it is done.

        Any code on the connection's event loop may call this, also more than once. When the network connection that
        the message arrived on has ended, nothing is sent. The broker then delivers the message again after the
        reconnect, so the receiver must recognize repeated messages.
        """
        acknowledgement, self.acknowledgement = self.acknowledgement, None
        if acknowledgement is not None:
            acknowledgement.acknowledge()

    def work_started(self) -> None:
        """Note that long work on the message has begun.

        From now on, the message may be acknowledged early when too many messages stay unacknowledged.
        """
        if self.acknowledgement is not None:
            self.acknowledgement.work_started()

    def hold(self) -> None:
        """Note that the message is about to be stored. Only :meth:`acknowledge` acknowledges it after this.

        Only the handler may call this, before it returns, and only for short work: some brokers wait for each
        acknowledgement before they send the next message.
        """
        if self.acknowledgement is not None:
            self.acknowledgement.hold()

    def __repr__(self) -> str:
        return f"<InboundMessage {self.topic} {len(self.payload)} bytes qos={self.qos}>"
