"""An MQTT broker without a network: thousands of real endpoints connect to it in one process.

The endpoints run their own code down to the :class:`Link`, which is the only part that is replaced. The broker does
what Mosquitto does with subscriptions, retained messages, sessions and share groups. It has no Last Wills, and no
message expires. No packet is written, but each message has the size that its packet would have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from mqtt_agent import Connection
from mqtt_agent.errors import ConnectionLost, TransportError
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.capabilities import Capabilities
from mqtt_agent.transport.dialer import Dialer
from mqtt_agent.transport.packets import find_packet, read_publish
from mqtt_agent.transport.packing import PackedPublish
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS

V = TypeVar("V")

_MAX_QUEUED = 1000
"""Messages that wait for a client that is away, as in Mosquitto's default settings."""


class TopicTree(Generic[V]):
    """Values by topic or by topic filter."""

    def __init__(self) -> None:
        self._levels: dict[str, TopicTree[V]] = {}
        self.values: dict[Any, V] = {}

    def at(self, name: str) -> TopicTree[V]:
        """The place of a topic or topic filter."""
        place = self
        for level in name.split("/"):
            place = place._levels.setdefault(level, TopicTree())
        return place

    def filters_of(self, topic: str) -> Iterator[TopicTree[V]]:
        """The places of the filters that match a topic."""
        places = [self]
        for level in topic.split("/"):
            yield from (each._levels["#"] for each in places if "#" in each._levels)
            places = [each._levels[name] for each in places for name in (level, "+") if name in each._levels]
        yield from places

    def topics_of(self, topic_filter: str) -> Iterator[TopicTree[V]]:
        """The places of the topics that a filter matches."""
        places = [self]
        for level in topic_filter.split("/"):
            if level == "#":
                yield from (below for each in places for below in each._all())
                return
            if level == "+":
                places = [below for each in places for below in each._levels.values()]
            else:
                places = [each._levels[level] for each in places if level in each._levels]
        yield from places

    def _all(self) -> Iterator[TopicTree[V]]:
        yield self
        for below in self._levels.values():
            yield from below._all()


@dataclass(eq=False)
class Session:
    """What the broker knows of one client. ``link`` is None while the client is away."""

    client_id: str
    filters: dict[str, int] = field(default_factory=dict[str, int])
    link: SimulatedLink | None = None
    waiting: deque[InboundMessage] = field(default_factory=lambda: deque[InboundMessage](maxlen=_MAX_QUEUED))


@dataclass(frozen=True)
class Subscribed:
    """The options of one subscription of one session."""

    session: Session
    qos: int
    no_local: bool


class SimulatedBroker:
    """Delivers messages between the connections that :meth:`connection` makes."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._filters: TopicTree[Subscribed] = TopicTree()
        self._groups: TopicTree[deque[Subscribed]] = TopicTree()
        """The share groups: at each filter, the members by the group's name."""
        self._retained: TopicTree[InboundMessage] = TopicTree()

    def connection(self, client_id: str, **settings: Any) -> Connection:
        """A connection to this broker, with the settings of :class:`Connection`."""
        connection = Connection("mqtt://simulated", client_id=client_id, **settings)
        dialer = connection._dialer
        dialer.open = partial(self._open, dialer)  # type: ignore[method-assign]
        return connection

    async def _open(
        self, dialer: Dialer, on_message: Callable[[InboundMessage], None], on_lost: Callable[[TransportError], None]
    ) -> SimulatedLink:
        dialer.epoch += 1
        session = self._sessions.get(dialer.client_id)
        present = session is not None
        if session is None:
            session = self._sessions[dialer.client_id] = Session(dialer.client_id)
        session.link = link = SimulatedLink(self, session, present, on_message, on_lost)
        while session.waiting:
            link.deliver(session.waiting.popleft())
        return link

    def leave(self, session: Session, *, end_session: bool) -> None:
        """A client disconnects."""
        session.link = None
        if end_session:
            for topic_filter in list(session.filters):
                self.unsubscribe(session, topic_filter)
            self._sessions.pop(session.client_id, None)

    def subscribe(self, session: Session, topic_filter: str, qos: int, retain_handling: int, no_local: bool) -> None:
        """Make a subscription, and deliver the retained messages if they are wanted."""
        subscribed = Subscribed(session, qos, no_local)
        if topic_filter.startswith("$share/"):
            if topic_filter not in session.filters:
                _, group, plain = topic_filter.split("/", 2)
                self._groups.at(plain).values.setdefault(group, deque()).append(subscribed)
        else:
            self._filters.at(topic_filter).values[session] = subscribed
            if retain_handling == 0 and session.link is not None:
                for place in self._retained.topics_of(topic_filter):
                    for message in place.values.values():
                        session.link.deliver(_copy(message, min(qos, message.qos), True))
        session.filters[topic_filter] = qos

    def unsubscribe(self, session: Session, topic_filter: str) -> None:
        """Remove a subscription."""
        if session.filters.pop(topic_filter, None) is None:
            return
        if topic_filter.startswith("$share/"):
            _, group, plain = topic_filter.split("/", 2)
            members = self._groups.at(plain).values
            members[group] = deque(each for each in members[group] if each.session is not session)
        else:
            self._filters.at(topic_filter).values.pop(session, None)

    def publish(self, session: Session, packed: PackedPublish) -> int:
        """Deliver a message, and return the reason code for the PUBACK."""
        data = packed.with_id(1)
        body, end = find_packet(data, 0)
        message, _ = read_publish(data[0], data, body, end)
        if packed.retain:
            kept = self._retained.at(message.topic).values
            kept.clear()
            if message.payload:
                kept[None] = message
        found = False
        for place in self._filters.filters_of(message.topic):
            for subscribed in place.values.values():
                if not (subscribed.no_local and subscribed.session is session):
                    self._give(subscribed, message)
                    found = True
        for place in self._groups.filters_of(message.topic):
            for members in place.values.values():
                if members:
                    members.rotate(-1)
                    self._give(next((each for each in members if each.session.link), members[0]), message)
                    found = True
        return 0 if found else NO_MATCHING_SUBSCRIBERS

    def _give(self, subscribed: Subscribed, message: InboundMessage) -> None:
        session, qos = subscribed.session, min(subscribed.qos, message.qos)
        if session.link is not None:
            session.link.deliver(_copy(message, qos, False))
        elif qos > 0:
            session.waiting.append(_copy(message, qos, False))


def _copy(message: InboundMessage, qos: int, retain: bool) -> InboundMessage:
    copy = InboundMessage(
        message.topic,
        message.payload,
        qos=qos,
        retain=retain,
        response_topic=message.response_topic,
        correlation_data=message.correlation_data,
        message_expiry=message.message_expiry,
        user_properties=message.user_properties,
    )
    copy.content_type = message.content_type
    return copy


class SimulatedLink:
    """Stands in for :class:`mqtt_agent.transport.link.Link`. All that the broker sends arrives in its order, later."""

    closed_quietly = False
    unanswered: tuple[asyncio.Future[int], ...] = ()

    def __init__(
        self,
        broker: SimulatedBroker,
        session: Session,
        present: bool,
        on_message: Callable[[InboundMessage], None],
        on_lost: Callable[[TransportError], None],
    ) -> None:
        self.limits = Capabilities(session_present=present)
        self._broker = broker
        self._session = session
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._arriving: deque[Callable[[], object]] = deque()
        self._open = True

    def deliver(self, message: InboundMessage) -> None:
        """Let a message arrive."""
        self._later(partial(self._on_message, message))

    def _later(self, arrive: Callable[[], object]) -> None:
        if not self._arriving:
            self._loop.call_soon(self._arrive)
        self._arriving.append(arrive)

    def _arrive(self) -> None:
        for _ in range(len(self._arriving)):
            if self._open:
                self._arriving[0]()
            self._arriving.popleft()
        if self._arriving:
            self._loop.call_soon(self._arrive)

    def publish(self, packed: PackedPublish, on_puback: Callable[[int], None] | None = None) -> int:
        code = self._broker.publish(self._session, packed)
        if on_puback is not None:
            self._later(partial(on_puback, code))
        return 1

    async def subscribe(self, topic_filter: str, qos: int, *, retain_handling: int, no_local: bool = False) -> int:
        answered: asyncio.Future[int] = self._loop.create_future()
        self._later(partial(_answer, answered, qos))  # the SUBACK arrives before the retained messages
        self._broker.subscribe(self._session, topic_filter, qos, retain_handling, no_local)
        return await answered

    async def unsubscribe(self, topic_filter: str) -> int:
        answered: asyncio.Future[int] = self._loop.create_future()
        self._broker.unsubscribe(self._session, topic_filter)
        self._later(partial(_answer, answered, 0))
        return await answered

    async def wait_writable(self) -> None:
        pass

    async def wait_closed(self) -> None:
        pass

    def skip_identifiers(self) -> None:
        pass

    def disconnect(self, *, end_session: bool) -> None:
        if self._open:
            self._open = False
            self._broker.leave(self._session, end_session=end_session)
            self._on_lost(ConnectionLost("this client closed the connection"))

    def abort(self, reason: TransportError | None = None) -> None:
        self.disconnect(end_session=False)


def _answer(answered: asyncio.Future[int], code: int) -> None:
    if not answered.done():
        answered.set_result(code)
