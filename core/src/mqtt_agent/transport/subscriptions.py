"""Finds the handlers of a received message: the topic filters of one connection, and their handlers."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from mqtt_agent.errors import TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport.message import InboundMessage

__all__ = ["Handler", "Subscription", "Subscriptions"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")
Handler = Callable[[InboundMessage], None]
"""A function that handles received messages."""
_MAX_KEPT = 10_000
_MAX_TOPICS = 1000


@dataclass
class Subscription:
    """The subscription to one topic filter.

    Attributes:
        topic_filter: The topic filter. A shared one begins with ``$share/``.
        qos: The highest QoS wanted.
        retain_handling: MQTT's Retain Handling: 0 to get retained messages, 2 not to get them.
        snapshot: Whether the retained messages are wanted on subscribing.
        manual: Whether the handlers acknowledge each message themselves.
        handlers: Called for each message, one after the other, on the event loop.
        confirmed: Whether the subscription is known to be in the broker's session.
        requested: The link over which a SUBSCRIBE was sent, with no UNSUBSCRIBE after the SUBSCRIBE; None otherwise.
        left: Whether the broker was told to send no more messages. Messages that the broker had queued still arrive.
        exclusive: The owner, when only one connection at a time may have the subscription at a broker without shared
            subscriptions. None for all other subscriptions.
        held: Whether the subscription is exclusive, and this connection has not taken it.
        kept: Messages that arrived while the subscription was held, the latest 10,000.
        guarded: Whether the subscription is made only after the owner has admitted it, anew for each session.
        admitted: Whether the owner has admitted a guarded subscription in the present session.
        no_local: Whether the client's own messages are not wanted.
        on_refused: Called with the error when the broker refuses the subscription. None raises the error.
    """

    topic_filter: str
    qos: int
    retain_handling: int
    snapshot: bool
    manual: bool
    handlers: list[Handler] = field(default_factory=list[Handler])
    confirmed: bool = False
    requested: object = None
    left: bool = False
    exclusive: str | None = None
    held: bool = False
    kept: deque[InboundMessage] = field(default_factory=lambda: deque[InboundMessage](maxlen=_MAX_KEPT))
    guarded: bool = False
    admitted: bool = False
    no_local: bool = False
    on_refused: Callable[[TransportError], None] | None = None

    @property
    def waits(self) -> bool:
        """Whether no SUBSCRIBE may be sent now: the subscription is guarded, and its owner has not admitted it yet."""
        return self.guarded and not self.admitted

    @property
    def shared(self) -> bool:
        """Whether this is a shared subscription."""
        return self.topic_filter.startswith("$share/")

    @property
    def plain_filter(self) -> str:
        """The topic filter without ``$share/group/``."""
        return self.topic_filter.split("/", 2)[2] if self.shared else self.topic_filter

    def handle(self, message: InboundMessage) -> None:
        """Call the handlers with a message."""
        for handler in tuple(self.handlers):
            try:
                handler(message)
            except Exception:  # an error in one handler must not stop the others, nor the connection
                logger.exception("a message handler for %s raised an exception", self.topic_filter)


_Patterns = list[tuple[re.Pattern[str], Subscription]]


class Subscriptions:
    """The subscriptions of one connection, by topic filter.

    An endpoint may have thousands of filters with a wildcard. So only the filters that have the last level, or all
    levels except the last, in common with a message's topic are compared with the topic.
    """

    def __init__(self) -> None:
        self._by_filter: dict[str, Subscription] = {}
        self._exact: dict[str, list[Subscription]] = {}
        self._by_parent: dict[str, list[Subscription]] = {}
        """Filters with one wildcard, ``+`` as the last level, by the levels before it."""
        self._by_last_level: dict[str, _Patterns] = {}
        """Filters with a wildcard before the last level."""
        self._patterns: _Patterns = []
        """All other filters with a wildcard."""
        self._matching: dict[str, tuple[Subscription, ...]] = {}
        """The subscriptions that match a topic, for the topics of the latest messages."""

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._by_filter.values()))

    def get(self, topic_filter: str) -> Subscription | None:
        """The subscription with exactly this topic filter."""
        return self._by_filter.get(topic_filter)

    def add(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self._by_filter[subscription.topic_filter] = subscription
        self._matching.clear()
        plain = subscription.plain_filter
        parent, _, last = plain.rpartition("/")
        if "+" not in plain and "#" not in plain:
            self._exact.setdefault(plain, []).append(subscription)
        elif last not in ("+", "#"):
            self._by_last_level.setdefault(last, []).append((_pattern(plain), subscription))
        elif last == "+" and "+" not in parent:
            self._by_parent.setdefault(parent, []).append(subscription)
        else:
            self._patterns.append((_pattern(plain), subscription))

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        self._by_filter.pop(subscription.topic_filter, None)
        self._matching.clear()
        plain = subscription.plain_filter
        parent, _, last = plain.rpartition("/")
        self._patterns = [entry for entry in self._patterns if entry[1] is not subscription]
        for by_key, key in ((self._exact, plain), (self._by_parent, parent)):
            _keep(by_key, key, [entry for entry in by_key.get(key, ()) if entry is not subscription])
        left = [entry for entry in self._by_last_level.get(last, ()) if entry[1] is not subscription]
        _keep(self._by_last_level, last, left)

    def dispatch(self, message: InboundMessage) -> None:
        """Call every handler whose filter matches. Acknowledge the message, unless a handler does that itself."""
        matching = self._matching.get(message.topic)
        if matching is None:
            matching = self._find(message.topic)
        manual = False
        for subscription in matching:
            if subscription.held:
                subscription.kept.append(message)
                continue
            if subscription.manual:
                manual = True
            subscription.handle(message)
        if not manual:
            message.acknowledge()

    def _find(self, topic: str) -> tuple[Subscription, ...]:
        matching = [*self._exact.get(topic, ())]
        parent, _, last = topic.rpartition("/")
        matching += self._by_parent.get(parent, ())
        for patterns in (self._by_last_level.get(last), self._patterns):
            for pattern, entry in patterns or ():
                if pattern.fullmatch(topic):
                    matching.append(entry)
        if len(self._matching) >= _MAX_TOPICS:  # peers choose topics, such as those of events
            self._matching.clear()
        found = self._matching[topic] = tuple(matching)
        return found


def _keep(by_key: dict[str, list[T]], key: str, entries: list[T]) -> None:
    if entries:
        by_key[key] = entries
    else:
        by_key.pop(key, None)


def _pattern(topic_filter: str) -> re.Pattern[str]:
    parts: list[str] = []
    for level in topic_filter.split("/"):
        if level == "#":
            parent = "".join(parts)
            return re.compile(f"{parent[:-1]}(/.*)?" if parent else ".*", re.DOTALL)
        parts.append(("[^/]*" if level == "+" else re.escape(level)) + "/")
    return re.compile("".join(parts)[:-1], re.DOTALL)
