"""How the pump reads when a broker sends many packets at once."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
import pytest
from mqtt_agent.transport import pump
from mqtt_agent.transport.pump import Pump
from mqtt_agent.transport.socket import BufferedSocket
from support import soon, until

PUBLISH = 0x30
PACKET = bytes([PUBLISH, 1, 0])


@pytest.mark.parametrize("count", [8, pump._AT_ONCE, pump._AT_ONCE + 1, 3 * pump._AT_ONCE])
async def test_many_packets_are_read_in_parts_and_none_is_left_when_the_broker_closes(count: int) -> None:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setblocking(False)
    sock, turn = BufferedSocket(here), 0
    turns: list[int] = []
    more = {count // 2 + 1, count, count + 7}
    ended = asyncio.Event()

    def loop_read() -> int:
        ended.set()
        return paho.MQTT_ERR_CONN_LOST

    def handle(head: int, data: bytes, at: int, end: int) -> None:
        turns.append(turn)
        if len(turns) in more:
            there.sendall(PACKET * count)  # more arrives meanwhile

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        if not ended.is_set():
            loop.call_soon(next_turn)

    nothing: Any = lambda *_: None  # noqa: E731
    client: Any = SimpleNamespace(
        queued=[], socket=lambda: sock, loop_read=loop_read, loop_misc=nothing, heard=nothing, loop_write=nothing
    )
    settings: Any = SimpleNamespace(url="mqtt://broker", keep_alive=60)
    pumping = Pump(client, settings, {PUBLISH: handle}, nothing)
    there.sendall(PACKET * count)
    pumping.start()
    next_turn()
    await until(lambda: len(turns) == count * (1 + len(more)))
    there.close()
    await until(ended.is_set)
    pumping.close()
    assert max(turns.count(each) for each in turns) <= pump._AT_ONCE


class FloodingSocket:
    """A socket whose peer sends as fast as anybody reads."""

    most = 5000
    """The flood ends after so many reads, for code that would read it for ever."""

    def __init__(self) -> None:
        self._readable, self._full = socket.socketpair()
        self._full.send(b"x")
        self.reads = self.reads_in_this_turn = self.most_in_one_turn = 0
        self.closed = False

    def recv(self, buffer_size: int, /) -> bytes:
        if self.reads == 0:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self.reads += 1
        self.reads_in_this_turn += 1
        self.most_in_one_turn = max(self.most_in_one_turn, self.reads_in_this_turn)
        return bytes(buffer_size) if self.reads < self.most else b""

    def _next_turn(self) -> None:
        self.reads_in_this_turn = 0
        if not self.closed:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def send(self, buffer: Any, /) -> int:
        return len(buffer)

    def close(self) -> None:
        self.closed = True
        self._readable.close()
        self._full.close()

    def fileno(self) -> int:
        return self._readable.fileno()

    def setblocking(self, flag: bool, /) -> None: ...


async def test_a_broker_that_floods_while_the_connection_closes_neither_holds_the_event_loop_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pump, "_LINGER", 0.02)
    raw = FloodingSocket()
    sock = BufferedSocket(raw)
    nothing: Any = lambda *_: None  # noqa: E731
    client: Any = SimpleNamespace(
        queued=[], socket=lambda: sock, loop_read=nothing, loop_misc=nothing, heard=nothing, loop_write=nothing
    )
    settings: Any = SimpleNamespace(url="mqtt://broker", keep_alive=60)
    pumping = Pump(client, settings, {}, nothing)
    pumping.start()
    pumping.close(linger=True)
    await soon(pumping.wait_closed())
    assert raw.closed
    assert raw.reads < raw.most, "the end came with the end of the flood"
    assert raw.most_in_one_turn <= 8
