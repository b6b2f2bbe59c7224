"""A marker message that a connection sends to itself: when it returns, everything queued before it has arrived."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mqtt_agent.aio.waiting import within
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage

__all__ = ["MARKER_PREFIX", "Marker"]

logger: logging.Logger = logger_of(__name__)

MARKER_PREFIX: str = "barrier-"
"""The first characters of the id in a marker message that other clients can see."""
_SURELY_WITHIN = 5.0  # seconds


class Marker:
    """Sends marker messages to a topic that the connection is subscribed to, and waits for them to return.

    A broker delivers the messages to one subscriber in order. So when a marker has returned, every message that the
    broker had queued for the subscriber before the marker has arrived too.

    The first marker also proves that the broker lets the connection read the topic. Some brokers, such as Mosquitto
    with an ``acl_file``, accept each subscription, and then deliver nothing. A marker that does not return is told in
    a warning, once.

    Args:
        connection: The connection that sends.
        topic: The topic. The owner subscribes to it, and passes each message to :meth:`recognize`.
        make_payload: Returns the payload of a marker. Each call returns a different payload.
        topic_filter: The topic filter by which the owner gets the markers; None means ``topic``.

    Attributes:
        topic: The topic of the markers.
        filters: The topic filter by which the owner gets the markers, in a list.
    """

    def __init__(
        self, connection: Connection, topic: str, make_payload: Callable[[], bytes], topic_filter: str | None = None
    ) -> None:
        self.topic: str = topic
        self.filters: list[str] = [topic_filter or topic]
        self._connection = connection
        self._make_payload = make_payload
        self._awaited: dict[bytes, asyncio.Event] = {}
        self._settled = False  # whether a marker has returned, or the warning was logged

    def recognize(self, message: InboundMessage) -> bool:
        """Whether a message is a marker that :meth:`round_trip` waits for."""
        returned = self._awaited.get(message.payload) if self._awaited else None
        if returned is not None:
            returned.set()
        return returned is not None

    async def round_trip(self, timeout: float) -> bool:
        """Send a marker, and wait until it returns.

        Args:
            timeout: Seconds to wait.

        Returns:
            False when the marker did not return in time.

        Raises:
            TransportError: The connection ended, or the broker does not let the client publish to the topic.
        """
        payload = self._make_payload()
        returned = self._awaited[payload] = asyncio.Event()
        epoch = self._connection.epoch
        try:
            await self._connection.publish(self.topic, payload)
            await within(returned.wait(), timeout)
        except asyncio.TimeoutError:
            if timeout >= _SURELY_WITHIN and epoch == self._connection.epoch and self._connection.connected:
                self._tell_unreadable(timeout)
            return False
        finally:
            del self._awaited[payload]
        self._settled = True
        return True

    def _tell_unreadable(self, timeout: float) -> None:
        if self._settled:
            return
        self._settled = True
        logger.warning(
            "%s does not get its own messages on %s within %g s, although %s has accepted the subscription: probably "
            "the broker's access rules do not let this client read its topics, and then no call, task or answer "
            'arrives; allow it, see "What the broker must allow" in docs/wire-format.md',
            *(self._connection.client_id, self.topic, timeout, self._connection.url),
        )
