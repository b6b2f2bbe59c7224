"""Which topics an endpoint uses: sender-bound topics, plain topics, or both."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mqtt_agent.endpoints.markers import Marker
from mqtt_agent.errors import TopicNotAuthorized, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Bound, InboundMessage

__all__ = ["BoundMarker", "Dialect"]

logger: logging.Logger = logger_of(__name__)


class Dialect:
    """Which topics an endpoint uses.

    A sender-bound topic names its writer, so that a broker can check who speaks. With ``"prefer"``, an endpoint uses
    them as long as the broker allows them. A broker whose access rules know only the plain topics does not.

    Args:
        setting: The setting of the endpoint.
        endpoint: The id of the endpoint, for the log.

    Attributes:
        bound: Whether the endpoint uses sender-bound topics.
        plain: Whether the endpoint uses plain topics.
        required: Whether the endpoint may use no plain topic.
    """

    def __init__(self, setting: Bound, endpoint: str) -> None:
        self.bound: bool = setting != "off"
        self.plain: bool = setting != "require"
        self.required: bool = setting == "require"
        self._endpoint = endpoint

    @property
    def on_refused(self) -> Callable[[TransportError], None] | None:
        """What to do when the broker refuses a subscription to sender-bound topics. None raises the error."""
        return None if self.required else self.give_up

    def give_up(self, why: object) -> None:
        """Use only plain topics from now on, because the broker does not allow the sender-bound ones."""
        if self.bound:
            self.bound = False
            logger.info("%s uses plain topics, because it cannot use sender-bound topics: %s", self._endpoint, why)


class BoundMarker:
    """A marker message on a sender-bound topic, or on a plain topic when the broker does not allow the other.

    The first marker also finds out whether the broker delivers messages on sender-bound topics: some brokers accept a
    subscription that their access rules forbid.

    Args:
        bound: The marker on the sender-bound topic.
        plain: The marker on the plain topic.
        dialect: The topics that the endpoint uses.
    """

    def __init__(self, bound: Marker, plain: Marker, dialect: Dialect) -> None:
        self._bound = bound
        self._plain = plain
        self._dialect = dialect
        self._works = False

    @property
    def filters(self) -> list[str]:
        """The topic filters of the markers."""
        dialect = self._dialect
        return [*(self._plain.filters if dialect.plain else ()), *(self._bound.filters if dialect.bound else ())]

    def recognize(self, message: InboundMessage) -> bool:
        """Whether a message is a marker that :meth:`round_trip` waits for."""
        return self._bound.recognize(message) or self._plain.recognize(message)

    async def round_trip(self, timeout: float) -> bool:
        """Send a marker, and wait until it returns; see :meth:`Marker.round_trip`."""
        dialect = self._dialect
        if dialect.bound:
            why: object = "a message of the endpoint to itself did not return"
            try:
                if await self._bound.round_trip(timeout):
                    self._works = True
                    return True
                if self._works or dialect.required:
                    return False
            except TopicNotAuthorized as error:
                if dialect.required:
                    raise
                why = error
            dialect.give_up(why)
        return await self._plain.round_trip(timeout)
