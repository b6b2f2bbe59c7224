"""A small MQTT 5 broker inside the test, with the behaviours that only some real brokers have, each as an option."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from brokers import free_port
from brokers.rough import through
from mqtt_agent.transport.packets import find_packet
from packets import split_packets
from typing_extensions import Self

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ, _DISCONNECT = 0x10, 0x30, 0x40, 0x80, 0xA0, 0xC0, 0xE0
_EXPIRY, _SESSION_EXPIRY, _WILL_DELAY = 0x02, 0x11, 0x18
_SIZES = {0x01: 1, 0x02: 4, 0x11: 4, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x27: 4}


@dataclass
class Script:
    """What the broker does differently from a perfect one.

    Attributes:
        connack: The reason code and the properties of each CONNACK.
        most_messages: How many messages may wait for one client; further messages are dropped after PUBACK 0.
        most_bytes: How many bytes may wait for one client; further messages are dropped after PUBACK 0.
        window: How many unacknowledged messages a client gets.
        will_properties: Properties that a published will gets in addition, such as its Will Delay Interval.
        session_outlives_will: Seconds for which a dead session still takes its share of the messages, after the will.
        granted: The highest QoS of a subscription.
        suback: Returns the reason code for a topic filter, or None for success.
        puback: Returns the reason code for a topic, or None for success.
        longest_life: Seconds after which a retained message is dropped.
        tells_life: Whether each message gets a Message Expiry Interval because of ``longest_life``.
        most_user_properties: A message with more user properties ends the connection.
        retains_wills: Whether a Last Will that asks for it is retained, or only published.
        wills, sessions, groups, retained: Whether the broker has these.
        matching: Whether a PUBACK says 0x10 when nobody is subscribed.
        skips_dead: Whether a share group gives messages only to members that are connected.
    """

    connack: tuple[int, bytes] = (0, b"")
    most_messages: int | None = None
    most_bytes: int | None = None
    window: int = 20
    will_properties: bytes = b""
    session_outlives_will: float = 0.0
    granted: int = 1
    suback: Callable[[str], int | None] = lambda topic_filter: None
    puback: Callable[[str], int | None] = lambda topic: None
    longest_life: float | None = None
    tells_life: bool = False
    most_user_properties: int | None = None
    retains_wills: bool = True
    wills: bool = True
    sessions: bool = True
    groups: bool = True
    retained: bool = True
    matching: bool = True
    skips_dead: bool = False


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes


@dataclass(eq=False)
class Session:
    """One client's session. ``writer`` is None while the client is away."""

    client_id: str
    filters: dict[str, int] = field(default_factory=dict[str, int])
    queue: deque[Message] = field(default_factory=lambda: deque[Message]())
    unacknowledged: dict[int, Message] = field(default_factory=dict[int, Message])
    writer: asyncio.StreamWriter | None = None
    expiry: int = 0
    will: Message | None = None
    will_delay: int = 0
    mids: Any = field(default_factory=lambda: itertools.cycle(range(1, 65536)))
    timers: list[asyncio.TimerHandle] = field(default_factory=list[asyncio.TimerHandle])


class ScriptedBroker:
    """Speaks as much MQTT 5 as the endpoints need.

    ``dropped`` counts the messages that were dropped for a client. ``connects`` counts the connections of each client.
    ``published`` contains each message that arrived.
    """

    def __init__(self, **script: Any) -> None:
        self.script = Script(**script)
        self.port = free_port()
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Message] = {}
        self.dropped: Counter[str] = Counter()
        self.connects: Counter[str] = Counter()
        self.published: list[Message] = []
        self.subscribed: list[str] = []
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return through(f"mqtt://127.0.0.1:{self.port}")

    def change(self, **script: Any) -> None:
        """Behave differently from now on."""
        self.script = replace(self.script, **script)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *error: Any) -> None:
        assert self._server is not None
        self._server.close()
        for session in self.sessions.values():
            for timer in session.timers:
                timer.cancel()
            self.drop(session.client_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def session(self, client_id: str) -> Session:
        """The session of the client whose id begins with these characters."""
        return next(session for name, session in self.sessions.items() if name.startswith(client_id))

    def drop(self, client_id: str) -> None:
        """Reset the connection of a client."""
        writer = self.sessions[client_id].writer
        if writer is not None:
            writer.transport.abort()

    # Connections

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:  # the broker ends; Python 3.11 logs an error when this handler ends as canceled
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session: Session | None = None
        rest, orderly = b"", False
        with contextlib.suppress(OSError, _EndOfConnection):
            while data := await reader.read(65536):
                packets, rest = split_packets(rest + data)
                for packet in packets:
                    kind, at = packet[0] & 0xF0, find_packet(packet, 0)[0]
                    if kind == _CONNECT:
                        session = self._connect(packet, at, writer)
                    elif kind == _DISCONNECT:
                        orderly = True
                        if session is not None and len(packet) > at + 2 and packet[at] in (0, 4):
                            session.expiry = _property(packet, at + 1, _SESSION_EXPIRY) or 0
                    elif session is not None:
                        self._packet(session, packet, kind, at)
                await writer.drain()
        writer.transport.abort()
        if session is not None and session.writer is writer:
            self._gone(session, orderly)

    def _connect(self, packet: bytes, at: int, writer: asyncio.StreamWriter) -> Session | None:
        flags, expiry, at = packet[at + 7], _property(packet, at + 10, _SESSION_EXPIRY), _after(packet, at + 10)
        name, at = _string(packet, at)
        client_id = name.decode()
        self.connects[client_id] += 1
        code, properties = self.script.connack
        if code:
            writer.write(_packet(0x20, bytes([0, code]) + _with_length(properties)))
            raise _EndOfConnection
        known = self.sessions.get(client_id)
        present = known is not None and not flags & 0x02 and self.script.sessions
        session = known if present and known is not None else Session(client_id)
        for timer in known.timers if known is not None else ():
            timer.cancel()
        if known is not None and known.writer is not None:
            known.writer.write(_packet(0xE0, b"\x8e\x00"))
            known.writer.close()
        self.sessions[client_id] = session
        session.timers.clear()
        session.writer, session.expiry = writer, expiry or 0
        session.will = None
        if flags & 0x04 and self.script.wills:
            session.will_delay, kept = _property(packet, at, _WILL_DELAY) or 0, _without_delay(packet, at)
            topic, after = _string(packet, _after(packet, at))
            payload, _ = _string(packet, after)
            properties = kept + self.script.will_properties
            retain = bool(flags & 0x20) and self.script.retains_wills
            session.will = Message(topic.decode(), payload, 1, retain, properties)
        writer.write(_packet(0x20, bytes([present, 0]) + _with_length(self.script.connack[1])))
        again = [*session.unacknowledged.values(), *session.queue]
        session.unacknowledged.clear()
        session.queue = deque(again)
        self._pump(session)
        return session

    def _gone(self, session: Session, orderly: bool) -> None:
        session.writer = None
        loop = asyncio.get_running_loop()
        lives = session.expiry if self.script.sessions else 0
        will = None if orderly else session.will
        will_at = min(session.will_delay, lives)
        # A perfect broker publishes the will at the latest when the session ends.
        if will is not None:
            if session.will_delay > lives:
                will_at = lives + self.script.session_outlives_will
            session.timers.append(loop.call_later(will_at, self.publish, will))
        extra = self.script.session_outlives_will if not orderly else 0
        session.timers.append(loop.call_later(lives + extra, self._end_session, session))

    def _end_session(self, session: Session) -> None:
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]

    # Packets

    def _packet(self, session: Session, packet: bytes, kind: int, at: int) -> None:
        assert session.writer is not None
        if kind == _PUBLISH:
            self._on_publish(session, packet, at)
        elif kind == _PUBACK:
            session.unacknowledged.pop(packet[at] << 8 | packet[at + 1], None)
            self._pump(session)
        elif kind == _SUBSCRIBE:
            mid, at = packet[at : at + 2], _after(packet, at + 2)
            topic_filter, at = _string(packet, at)
            self._on_subscribe(session, mid, topic_filter.decode(), packet[at])
        elif kind == _UNSUBSCRIBE:
            mid, at = packet[at : at + 2], _after(packet, at + 2)
            session.filters.pop(_string(packet, at)[0].decode(), None)
            session.writer.write(_packet(0xB0, mid + b"\x00\x00"))
        elif kind == _PINGREQ:
            session.writer.write(b"\xd0\x00")

    def _on_subscribe(self, session: Session, mid: bytes, topic_filter: str, options: int) -> None:
        assert session.writer is not None
        self.subscribed.append(topic_filter)
        code = self.script.suback(topic_filter)
        if code is not None:
            session.writer.write(_packet(0x90, mid + b"\x00" + bytes([code])))
            return
        qos = min(options & 0x03, self.script.granted)
        session.filters[topic_filter] = qos
        session.writer.write(_packet(0x90, mid + b"\x00" + bytes([qos])))
        if options >> 4 & 0x03 == 0 and not topic_filter.startswith("$share/"):
            for message in list(self.retained.values()):
                if _matches(topic_filter, message.topic):
                    self._give(session, replace(message, qos=min(qos, message.qos), retain=True))

    def _on_publish(self, session: Session, packet: bytes, at: int) -> None:
        assert session.writer is not None
        qos = packet[0] >> 1 & 0x03
        topic, at = _string(packet, at)
        mid = packet[at : at + 2] if qos else b""
        at += len(mid)
        properties, payload = _body(packet, at), packet[_after(packet, at) :]
        most = self.script.most_user_properties
        if most is not None and _count_user(properties) > most:
            raise _EndOfConnection
        code = self.script.puback(topic.decode())
        received = 0
        if code is None:
            message = Message(topic.decode(), payload, qos, bool(packet[0] & 0x01), properties)
            self.published.append(message)
            received = self.publish(message)
        if qos:
            if code is None and not received and self.script.matching:
                code = 0x10
            session.writer.write(_packet(0x40, mid + bytes([code]) + b"\x00" if code else mid))

    # Messages

    def publish(self, message: Message) -> int:
        """Give a message to its subscribers; return how many there are."""
        life = self.script.longest_life
        if life is not None and self.script.tells_life and not _has(message.properties, _EXPIRY):
            message = replace(message, properties=message.properties + b"\x02" + struct.pack(">I", round(life)))
        if message.retain and self.script.retained:
            self._retain(message)
        receivers = 0
        groups: dict[str, list[Session]] = {}
        for session in list(self.sessions.values()):
            for topic_filter, qos in session.filters.items():
                if self.script.groups and topic_filter.startswith("$share/"):
                    if _matches(topic_filter.split("/", 2)[2], message.topic):
                        groups.setdefault(topic_filter, []).append(session)
                elif _matches(topic_filter, message.topic):
                    receivers += 1
                    self._give(session, replace(message, qos=min(qos, message.qos), retain=False))
        for members in groups.values():
            receivers += 1
            if self.script.skips_dead:
                members = [each for each in members if each.writer is not None] or members
            self._give(members[next(self._turn) % len(members)], replace(message, retain=False))
        return receivers

    def _retain(self, message: Message) -> None:
        if not message.payload:
            self.retained.pop(message.topic, None)
            return
        life = self.script.longest_life
        if life is not None:
            asyncio.get_running_loop().call_later(life, self._expire, message)
        self.retained[message.topic] = message

    def _expire(self, message: Message) -> None:
        if self.retained.get(message.topic) is message:
            del self.retained[message.topic]

    def _give(self, session: Session, message: Message) -> None:
        if message.qos == 0:
            if session.writer is not None:
                session.writer.write(_publish(message, b""))
            return
        waiting = [*session.queue, *session.unacknowledged.values()]
        most, size = self.script.most_messages, self.script.most_bytes
        if (most is not None and len(waiting) >= most) or (
            size is not None and sum(len(each.payload) for each in [*waiting, message]) > size
        ):
            self.dropped[session.client_id] += 1
            return
        session.queue.append(message)
        self._pump(session)

    def _pump(self, session: Session) -> None:
        while session.queue and session.writer is not None and len(session.unacknowledged) < self.script.window:
            message = session.queue.popleft()
            mid = next(session.mids)
            session.unacknowledged[mid] = message
            session.writer.write(_publish(message, struct.pack(">H", mid)))


class _EndOfConnection(Exception):
    """The broker closes the connection."""


def _publish(message: Message, mid: bytes) -> bytes:
    topic = message.topic.encode()
    head = 0x30 | message.qos << 1 | message.retain
    body = struct.pack(">H", len(topic)) + topic + mid + _with_length(message.properties) + message.payload
    return _packet(head, body)


def _packet(head: int, body: bytes) -> bytes:
    return bytes([head]) + _with_length(body)


def _with_length(body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while size >= 128:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + body


def _string(packet: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + (packet[at] << 8 | packet[at + 1])
    return packet[at + 2 : end], end


def _body(packet: bytes, at: int) -> bytes:
    """The properties whose length is at this index."""
    begin, end = find_packet(packet, at - 1)
    return packet[begin:end]


def _after(packet: bytes, at: int) -> int:
    return find_packet(packet, at - 1)[1]


def _split(properties: bytes) -> Iterable[bytes]:
    """Each property, with its first byte."""
    at = 0
    while at < len(properties):
        kind = properties[at]
        if kind in _SIZES:
            end = at + 1 + _SIZES[kind]
        else:
            _, end = _string(properties, at + 1)
            if kind == 0x26:
                _, end = _string(properties, end)
        yield properties[at:end]
        at = end


def _property(packet: bytes, at: int, kind: int) -> int | None:
    for each in _split(_body(packet, at)):
        if each[0] == kind:
            return int.from_bytes(each[1:], "big")
    return None


def _has(properties: bytes, kind: int) -> bool:
    return any(each[0] == kind for each in _split(properties))


def _without_delay(packet: bytes, at: int) -> bytes:
    """The properties of a will that belong into its PUBLISH."""
    return b"".join(each for each in _split(_body(packet, at)) if each[0] != _WILL_DELAY)


def _count_user(properties: bytes) -> int:
    return sum(each[0] == 0x26 for each in _split(properties))


def _matches(topic_filter: str, topic: str) -> bool:
    parts = [("[^/]*" if level == "+" else re.escape(level)) for level in topic_filter.split("/")]
    if parts[-1] == re.escape("#"):
        return re.fullmatch("/".join(parts[:-1]) + "(/.*)?", topic) is not None
    return re.fullmatch("/".join(parts), topic) is not None
