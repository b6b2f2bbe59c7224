"""A TCP proxy that records the MQTT packets of one client, in both directions, in the order in which they pass."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt_agent.transport.packets import PUBACK, PUBLISH, find_packet, read_publish
from proxy import Proxy
from support import until


def split_packets(data: bytes) -> tuple[list[bytes], bytes]:
    """Split bytes into complete MQTT packets. Returns the packets, and the bytes of a packet that is not complete."""
    packets: list[bytes] = []
    at = 0
    while at < len(data):
        _, end = find_packet(data, at)
        if not end or end > len(data):
            break
        packets.append(data[at:end])
        at = end
    return packets, data[at:]


@dataclass(frozen=True, eq=False)
class Packet:
    """A packet that has passed.

    ``kind`` is the first byte without its flags. ``mid`` is the packet identifier of a PUBLISH or PUBACK, else 0.
    ``topic`` and ``payload`` are those of a PUBLISH.
    """

    up: bool
    kind: int
    mid: int = 0
    topic: str = ""
    payload: bytes = b""


class PacketProxy(Proxy):
    """Forwards one client's connection to its broker, and records the packets.

    ``passed`` contains the packets of both directions, and the texts that the test has noted between them.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.passed: list[Packet | str] = []
        self._rest = {True: b"", False: b""}
        self._connection = 0

    def on_bytes(self, data: bytes, *, up: bool) -> None:
        if self._connection != self.connections:  # the connection before may have ended within a packet
            self._connection, self._rest = self.connections, {True: b"", False: b""}
        packets, self._rest[up] = split_packets(self._rest[up] + data)
        self.passed.extend(_read(packet, up) for packet in packets)

    def note(self, text: str) -> None:
        """Record that something happens now."""
        self.passed.append(text)

    def published(self, topic: str, *, up: bool) -> list[Packet]:
        """The PUBLISH packets to a topic that have passed in this direction."""
        return [p for p in self._packets() if p.kind == PUBLISH and p.up == up and p.topic == topic]

    async def publish(self, topic: str, *, up: bool, count: int = 1) -> Packet:
        """Wait until PUBLISH packet number ``count`` to a topic passes in this direction."""
        await until(lambda: len(self.published(topic, up=up)) >= count)
        return self.published(topic, up=up)[count - 1]

    def puback(self, publish: Packet) -> Packet | None:
        """The PUBACK that answers a PUBLISH packet; None while it has not passed."""
        later = self.passed[self.passed.index(publish) :]
        pubacks = (p for p in later if isinstance(p, Packet) and p.kind == PUBACK)
        return next((p for p in pubacks if p.up != publish.up and p.mid == publish.mid), None)

    async def acknowledged(self, publish: Packet) -> Packet:
        """Wait for the PUBACK that answers a PUBLISH packet."""
        await until(lambda: self.puback(publish))
        puback = self.puback(publish)
        assert puback is not None
        return puback

    def in_order(self, *events: Packet | str) -> bool:
        """Whether these packets and notes have passed in this order."""
        places = [self.passed.index(event) for event in events]
        return places == sorted(places)

    def _packets(self) -> list[Packet]:
        return [packet for packet in self.passed if isinstance(packet, Packet)]


def _read(packet: bytes, up: bool) -> Packet:
    kind = packet[0] & 0xF0
    body, end = find_packet(packet, 0)
    if kind == PUBLISH:
        message, mid = read_publish(packet[0], packet, body, end)
        return Packet(up, kind, mid, message.topic, message.payload)
    return Packet(up, kind, packet[body] << 8 | packet[body + 1] if kind == PUBACK else 0)
