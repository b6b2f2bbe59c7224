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
from support import until

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
