"""An MQTT 5 client without any MQTT library: it can send invalid packets, and survives invalid packets."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from support import DEADLINE, soon, until

Text = str | bytes

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_KEEP_ALIVE = 300  # seconds: longer than any test, so the client never has to ping
_MESSAGE_EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION, _USER = 0x02, 0x03, 0x08, 0x09, 0x26


class HungUp(ConnectionError):
    """The broker did not accept the sent packet, and ended the connection."""


class Seen(NamedTuple):
    """A message that the broker delivered."""

    topic: str
    payload: bytes
    correlation: bytes | None
    retain: bool


def properties(
    *,
    response_topic: Text | None = None,
    correlation: bytes | None = None,
    content_type: Text | None = None,
    user: Iterable[tuple[Text, Text]] = (),
    expiry: int | None = None,
) -> bytes:
    """Properties of a PUBLISH. Nothing is checked; text may be bytes that are not UTF-8."""
    packed = b""
    if response_topic is not None:
        packed += bytes([_RESPONSE_TOPIC]) + _string(response_topic)
    if correlation is not None:
        packed += bytes([_CORRELATION]) + _string(correlation)
    if content_type is not None:
        packed += bytes([_CONTENT_TYPE]) + _string(content_type)
    if expiry is not None:
        packed += bytes([_MESSAGE_EXPIRY]) + struct.pack(">I", expiry)
    return packed + b"".join(bytes([_USER]) + _string(key) + _string(value) for key, value in user)


class Peer:
    """A connected client. ``seen`` contains every received message, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen: list[Seen] = []
        self.hung_up = False
        self.on_message: Callable[[Seen], None] | None = None
        self._reader = reader
        self._writer = writer
        self._answers: dict[int, asyncio.Future[int]] = {}
        self._mid = 0
        self._barriers = 0
        self._connected: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, port: int, client_id: str, *, login: bool = True) -> Peer:
        """Connect with a session that ends with the connection.

        Args:
            port: The broker's port.
            client_id: The client id.
            login: Whether to give a user name, which some brokers require and others must know.
        """
        peer = cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**25))
        flags = bytes([5, 0xC2 if login else 0x02])
        body = _string("MQTT") + flags + struct.pack(">H", _KEEP_ALIVE) + b"\x00" + _string(client_id)
        peer._write(_CONNECT, body + (_string("tests") + _string("tests") if login else b""))
        assert await soon(peer._connected) == 0
        return peer

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe at QoS 0, and receive the retained messages."""
        mid = self._next_mid()
        self._write(_SUBSCRIBE, struct.pack(">H", mid) + b"\x00" + _string(topic_filter) + b"\x00")
        assert await soon(self._answers[mid]) == 0

    def send(
        self, topic: Text, payload: bytes, packed: bytes = b"", *, retain: bool = False, duplicate: bool = False
    ) -> asyncio.Future[int]:
        """Publish at QoS 1; the future ends with the broker's PUBACK, or with :class:`HungUp`."""
        mid = self._next_mid()
        head = _PUBLISH | 2 | int(retain) | (8 if duplicate else 0)
        self._write(head, _string(topic) + struct.pack(">H", mid) + _varint(len(packed)) + packed + payload)
        return self._answers[mid]

    async def publish(
        self, topic: Text, payload: bytes, packed: bytes = b"", *, retain: bool = False, duplicate: bool = False
    ) -> None:
        """Publish at QoS 1, and wait for the broker's acknowledgement.

        Raises:
            HungUp: The broker ended the connection instead.
        """
        await soon(self.send(topic, payload, packed, retain=retain, duplicate=duplicate))

    async def barrier(self, topic: str) -> None:
        """Wait until every message that the broker had queued has arrived; ``topic`` must be subscribed to."""
        self._barriers += 1
        mark = f"barrier {self._barriers} of {id(self)}".encode()
        await self.publish(topic, mark)
        await until(lambda: any(message.payload == mark for message in reversed(self.seen)), DEADLINE)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])
        for answer in self._answers.values():
            answer.cancel()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _next_mid(self) -> int:
        if self.hung_up:
            raise HungUp
        self._mid = self._mid % 65535 + 1
        self._answers[self._mid] = asyncio.get_running_loop().create_future()
        return self._mid

    def _write(self, head: int, body: bytes) -> None:
        self._writer.write(bytes([head]) + _varint(len(body)) + body)

    async def _read(self) -> None:
        try:
            while True:
                head = (await self._reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await self._reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                self._take(head, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            self.hung_up = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(HungUp())
                    answer.exception()

    def _take(self, head: int, body: bytes) -> None:
        kind = head & 0xF0
        if kind == _CONNACK:
            self._connected.set_result(body[1])
        elif kind == _PUBACK:
            self._answer(body, body[2] if len(body) > 2 else 0)
        elif kind == _SUBACK & 0xF0:
            self._answer(body, body[-1])
        elif kind == _PUBLISH:
            message = _read_publish(head, body)
            self.seen.append(message)
            if self.on_message is not None:
                self.on_message(message)

    def _answer(self, body: bytes, code: int) -> None:
        answer = self._answers.pop(int.from_bytes(body[:2], "big"), None)
        if answer is not None and not answer.done():
            answer.set_result(code)


def _string(value: Text) -> bytes:
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def _varint(value: int) -> bytes:
    packed = bytearray()
    while True:
        value, low = divmod(value, 128)
        packed.append(low | (0x80 if value else 0))
        if not value:
            return bytes(packed)


def _read_publish(head: int, body: bytes) -> Seen:
    end = 2 + int.from_bytes(body[:2], "big")
    topic = body[2:end].decode("utf-8", "replace")
    assert not head & 0x06, "subscribed at QoS 0"
    length, shift = 0, 0
    while True:
        byte = body[end]
        end += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return Seen(topic, body[end + length :], _correlation(body[end : end + length]), bool(head & 1))


def _correlation(packed: bytes) -> bytes | None:
    at = 0
    while at < len(packed):
        kind, at = packed[at], at + 1
        if kind == 0x01:
            at += 1
        elif kind == _MESSAGE_EXPIRY:
            at += 4
        elif kind == 0x23:
            at += 2
        elif kind == 0x0B:
            while packed[at] >= 0x80:
                at += 1
            at += 1
        else:
            for _ in range(2 if kind == _USER else 1):
                size = int.from_bytes(packed[at : at + 2], "big")
                if kind == _CORRELATION:
                    return packed[at + 2 : at + 2 + size]
                at += 2 + size
    return None
