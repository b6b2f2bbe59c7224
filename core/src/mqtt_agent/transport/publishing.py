"""The half of a connection that publishes: with and without a wait for the broker, signed, and noted in the audit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from mqtt_agent.errors import PayloadTooLarge
from mqtt_agent.transport.lifetime import Lifetime
from mqtt_agent.transport.message import MessageAudit, MessageBatches, MessageIdentity, MessageScreen, PublishProperties
from mqtt_agent.transport.outbox import Outbox
from mqtt_agent.transport.reasons import check_reason_code

__all__ = ["Publishing"]

_NO_PROPERTIES = PublishProperties()


class Publishing:
    """The methods with which a :class:`~mqtt_agent.transport.Connection` publishes.

    Attributes:
        identity: Signs the messages; None when nothing does.
        audit: Keeps a line about each message; None when nothing does.
        screens: What notes the messages for ``audit``, by namespace.
    """

    identity: MessageIdentity | None
    audit: MessageAudit | None
    screens: dict[str, MessageScreen]
    _batches: MessageBatches | None
    _lifetime: Lifetime
    _outbox: Outbox

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: PublishProperties = _NO_PROPERTIES,
        readers: Collection[str] = (),
    ) -> int:
        """Publish a message. At QoS 1, wait until the broker has confirmed it, across reconnects where necessary.

        Args:
            topic: The topic.
            payload: The bytes to send.
            qos: 0 or 1. At QoS 0 the message is dropped while there is no connection.
            retain: Whether the broker keeps the message for later subscribers.
            properties: The MQTT properties.
            readers: See :meth:`publish_soon`.

        Returns:
            The reason code of the PUBACK: 0, or 0x10 when the broker says that nobody is subscribed. At QoS 0 always 0.

        Raises:
            TopicNotAuthorized: The broker forbids the topic.
            PublishRefused: The broker refused the message for another reason.
            WireError: MQTT cannot carry the message: a wildcard or a control character in the topic, a property of
                more than 65,535 bytes, or a time of more than 2^32-1 s.
            PayloadTooLarge: The message is larger than the broker's Maximum Packet Size.
            QueueFull: Too many messages wait already.
            ConnectionLost: The connection was stopped before the confirmation arrived.
            AuditFailed: The audit that the connection requires cannot be written.
            TransportError: The message expired before the broker could take it.
        """
        if qos == 0:
            if self.audit is not None:
                self._note(topic, payload)
            if self.identity is not None:
                properties = self.identity.sign(topic, payload, properties)
            packed = self._outbox.pack(topic, payload, 0, retain, properties)
            link = self._lifetime.reconnector.link
            if link is not None:
                link.publish(packed)
                await link.wait_writable()
            return 0
        confirmed = self.publish_soon(topic, payload, retain=retain, properties=properties, readers=readers)
        return check_reason_code(await confirmed, topic)

    def publish_soon(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: PublishProperties = _NO_PROPERTIES,
        repeatable: bool = True,
        on_trouble: Callable[[asyncio.Future[int]], None] | None = None,
        on_confirmed: Callable[[asyncio.Future[int]], None] | None = None,
        readers: Collection[str] = (),
        signed: bool = True,
    ) -> asyncio.Future[int]:
        """Publish a message at QoS 1 without waiting for the broker.

        Args:
            topic: The topic.
            payload: The bytes to send.
            retain: Whether the broker keeps the message for later subscribers.
            properties: The MQTT properties.
            repeatable: Whether the message is sent again when the connection is lost before the broker has confirmed
                the message. A repeatable message may arrive twice. For any other message, the future raises
                :class:`ConnectionLost` in this case.
            on_trouble: Called with the future when it has an error, or a reason code other than 0. A callback of the
                future itself would be called for every message, and cost more.
            on_confirmed: Called with the future at once when the broker has confirmed or refused the message, and soon
                after the message has failed. A callback of the future would be called one turn of the event loop
                later, and cost more. It must not block. It is not called when the future was canceled.
            readers: The names of all endpoints that act upon the message, if they are known. When all of them check
                signatures of batches, the message is signed together with others that leave at the same time.
            signed: Whether the message is signed, if the connection has a key; see
                :meth:`InboundMessage.may_be_signed_for`.

        Returns:
            A future with the reason code of the PUBACK, even if the broker refuses. Cancel the future to give the
            message up: then it is not sent again after a reconnect.

        Raises:
            WireError, PayloadTooLarge, QueueFull, TransportError: As for :meth:`publish`.
        """
        self._lifetime.check_usable()
        if self.audit is not None:
            self._note(topic, payload, signed=signed)
        if self.identity is not None and signed:
            if readers and self._batches is not None:
                unsigned = self._batches.add(topic, payload, properties, readers)
                if unsigned is not None:
                    with contextlib.suppress(PayloadTooLarge):  # the signature of a single message is shorter
                        return self._outbox.add(
                            *(topic, payload, retain, unsigned.properties, repeatable),
                            *(on_trouble, on_confirmed, unsigned),
                        )
            properties = self.identity.sign(topic, payload, properties)
        return self._outbox.add(topic, payload, retain, properties, repeatable, on_trouble, on_confirmed)

    def check_publish(self, topic: str, payload: bytes, properties: PublishProperties = _NO_PROPERTIES) -> None:
        """Raise the errors that :meth:`publish` would raise immediately, without publishing.

        Call it before work that a failing :meth:`publish` would have to undo.

        Args:
            topic: The topic.
            payload: The bytes to send.
            properties: The MQTT properties, which count for the size of the message.

        Raises:
            WireError, PayloadTooLarge: As for :meth:`publish`.
            TransportError: The connection has not been started, or has failed permanently.
        """
        self._lifetime.check_usable()
        more = 0 if self.identity is None else self.identity.reserve(properties)
        self._outbox.check(topic, payload, properties, more)

    def _note(self, topic: str, payload: bytes, *, signed: bool = True) -> None:
        for namespace, screen in self.screens.items():
            if topic.startswith(f"{namespace}/"):
                screen.sends(topic, payload, signed=signed)
