"""Counts instead of times: a proxy that counts the MQTT packets of a connection, and a profiler that counts calls."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from mqtt_agent.identity import Identity, PrivateKey, TrustedKeys
from mqtt_agent.transport import InboundMessage, Proof, PublishProperties
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


_HANDLE = asyncio.Handle.__init__.__code__


@dataclass
class Calls:
    """The number of Python functions that were called or resumed.

    Attributes:
        count: The number.
        handles: How many of them made a handle: something that the event loop is to call, soon or at a time.
    """

    count: int = 0
    handles: int = 0

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.count += 1
            self.handles += frame.f_code is _HANDLE


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


@dataclass
class Instructions:
    """The number of Python's bytecode instructions that were executed."""

    count: int = 0

    def trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += event == "opcode"
        return self.trace


@contextlib.contextmanager
def counted_instructions() -> Iterator[Instructions]:
    """Count the bytecode instructions of the functions that this thread enters or resumes from now on."""
    instructions = Instructions()
    before = sys.gettrace()
    sys.settrace(instructions.trace)
    try:
        yield instructions
    finally:
        sys.settrace(before)


class CountingIdentity(Identity):
    """Counts the signatures that it makes, and the messages whose signatures it checks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._count: Counter[str] = Counter()

    @property
    def count(self) -> Counter[str]:
        """How many messages were ``signed``, and how many ``checked``, until now."""
        return self._count.copy()

    def _begin(self, topic: str, payload: bytes, properties: PublishProperties) -> Any:
        self._count["signed"] += 1  # alone or in a batch
        return super()._begin(topic, payload, properties)

    def check(self, message: InboundMessage) -> Proof:
        self._count["checked"] += 1
        return super().check(message)


def identities(*names: str) -> tuple[CountingIdentity, ...]:
    """One identity for each name. They trust each other, and require proof."""
    keys = [PrivateKey.new(name) for name in names]
    return tuple(CountingIdentity(key, TrustedKeys(each.public for each in keys), verify="require") for key in keys)
