"""One message on its way to the broker, from its sender until the broker has confirmed it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import Callable

from mqtt_agent.errors import PayloadTooLarge, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.message import PublishProperties, UnsignedMessage
from mqtt_agent.transport.packing import PackedPublish, pack_user_property
from mqtt_agent.transport.suspects import Key

__all__ = ["Publication"]

logger: logging.Logger = logger_of(__name__)


class Publication:
    """A message on its way to the broker.

    Attributes:
        topic: The topic.
        packed: The packet, without the signature that ``unsigned`` makes.
        properties: The MQTT properties in this packet.
        repeatable: Whether the message may be sent again over the next link.
        limits: The limits of the broker for which the message was packed; None before the first connection.
        confirmed: The reason code of the broker's PUBACK.
        expires: Loop time at which the message expires; infinite when it does not.
        unsigned: Signs the message when it leaves; None when the packet has its signature already, or gets none.
        watched: Whether the message leaves the queue at once when it is given up.
        refusals: How often the broker has refused the message for a reason that may pass.
    """

    __slots__ = (
        "_expiry",
        "_loop",
        "_on_confirmed",
        "_on_trouble",
        "_signature",
        "confirmed",
        "expires",
        "limits",
        "packed",
        "properties",
        "refusals",
        "repeatable",
        "topic",
        "unsigned",
        "watched",
    )

    def __init__(
        self,
        topic: str,
        packed: PackedPublish,
        properties: PublishProperties,
        repeatable: bool,
        limits: Capabilities | None,
        loop: asyncio.AbstractEventLoop,
        on_trouble: Callable[[asyncio.Future[int]], None] | None = None,
        on_confirmed: Callable[[asyncio.Future[int]], None] | None = None,
        unsigned: UnsignedMessage | None = None,
    ) -> None:
        self.topic: str = topic
        self.packed: PackedPublish = packed
        self.properties: PublishProperties = properties
        self.repeatable: bool = repeatable
        self.limits: Capabilities | None = limits
        self._loop = loop
        self._on_trouble = on_trouble
        self._on_confirmed = on_confirmed
        self.confirmed: asyncio.Future[int] = loop.create_future()
        self._expiry = properties.message_expiry
        self.expires: float = math.inf if self._expiry is None else loop.time() + self._expiry
        self.unsigned: UnsignedMessage | None = unsigned
        if unsigned is not None:
            self._signature: bytes = b""
        self.watched: bool = False
        self.refusals: int = 0

    @property
    def key(self) -> Key:
        """The topic and the payload, which are the same when a sender sends the message again."""
        return self.topic, self.packed.payload

    def signed(self, mid: int) -> bytes:
        """The packet as it leaves, with its signature.

        Args:
            mid: The packet identifier.
        """
        if self.unsigned is None:
            return self.packed.with_id(mid)
        if not self._signature:
            self._signature = pack_user_property(*self.unsigned.sign())
        return self.packed.with_id(mid, self._signature)

    def expire(self) -> None:
        """Let the message fail, because it has expired before it was sent."""
        what = f"its {self._expiry} s were over before the broker could take it"
        self.fail(TransportError(f"a message for {self.topic} expired: {what}"))

    def properties_now(self) -> PublishProperties:
        """The MQTT properties for a message that has waited and is about to be sent."""
        if self.expires == math.inf:
            return self.properties
        left = max(1, math.ceil(self.expires - self._loop.time()))
        if left == self.properties.message_expiry:
            return self.properties
        return dataclasses.replace(self.properties, message_expiry=left)

    def confirm(self, reason_code: int) -> None:
        """Note the reason code of the broker's PUBACK."""
        confirmed = self.confirmed
        if not confirmed.done():
            confirmed.set_result(reason_code)
            if self._on_confirmed is not None:
                self._tell(self._on_confirmed)
            if reason_code and self._on_trouble is not None:
                self._loop.call_soon(self._on_trouble, confirmed)

    def _tell(self, on_confirmed: Callable[[asyncio.Future[int]], None]) -> None:
        try:
            on_confirmed(self.confirmed)
        except Exception:  # an error of a sender must not end the connection
            logger.exception("what follows the confirmation of a message for %s raised an exception", self.topic)

    def fail(self, error: TransportError | PayloadTooLarge) -> None:
        """End the message with an error."""
        if not self.confirmed.done():
            self.confirmed.set_exception(error)
            self.confirmed.exception()  # marks the error as retrieved, so that asyncio does not log the error
            for listener in (self._on_confirmed, self._on_trouble):
                if listener is not None:
                    self._loop.call_soon(listener, self.confirmed)
