"""Counts instead of times: a proxy that counts the MQTT packets of a connection, and a profiler that counts calls."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from packets import split_packets
from proxy import Proxy

_NAMES = {
    1: "CONNECT",
    2: "CONNACK",
    3: "PUBLISH",
    4: "PUBACK",
    8: "SUBSCRIBE",
    9: "SUBACK",
    10: "UNSUBSCRIBE",
    11: "UNSUBACK",
    12: "PINGREQ",
    13: "PINGRESP",
    14: "DISCONNECT",
}


@dataclass
class Flow:
    """The packets of one connection in one direction."""

    packets: list[str] = field(default_factory=list)
    bytes: int = 0
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        self.bytes += len(data)
        packets, self._rest = split_packets(self._rest + data)
        self.packets.extend(_NAMES[packet[0] >> 4] for packet in packets)

    def forget(self) -> None:
        """Reset the counters."""
        self.packets.clear()
        self.bytes = 0


class CountingProxy(Proxy):
    """Counts the packets that one client sends and receives."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.sent, self.received = Flow(), Flow()

    def forget(self) -> None:
        self.sent.forget()
        self.received.forget()

    def on_bytes(self, data: bytes, *, up: bool) -> None:
        (self.sent if up else self.received).take(data)


@dataclass
class Calls:
    """The number of Python functions that were called or resumed."""

    count: int = 0

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        self.count += event == "call"


@contextlib.contextmanager
def counted_calls() -> Iterator[Calls]:
    """Count the calls in this thread."""
    calls = Calls()
    before = sys.getprofile()
    sys.setprofile(calls.profile)
    try:
        yield calls
    finally:
        sys.setprofile(before)
