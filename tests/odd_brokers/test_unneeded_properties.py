"""Messages with properties that do not belong there are read all the same."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent import ToolClient, ToolServer
from mqtt_agent.transport.packets import Unreadable, read_publish
from proxy import Proxy
from scripted import ScriptedBroker
from support import becomes

FOREIGN = {
    "four bytes": [0x11, 0x18, 0x27],
    "two bytes": [0x13, 0x21, 0x22],
    "one byte": [0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A],
    "text": [0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F],
}
SIZES = {"four bytes": 4, "two bytes": 2, "one byte": 1}


@given(st.sampled_from([(size, kind) for size, kinds in FOREIGN.items() for kind in kinds]), st.binary(max_size=20))
def test_a_property_of_another_packet_is_passed_over(foreign: tuple[str, int], text: bytes) -> None:
    size, kind = foreign
    value = bytes(SIZES[size]) if size in SIZES else struct.pack(">H", len(text)) + text
    properties = bytes([kind]) + value + b"\x09\x00\x01x"
    body = b"\x00\x01t" + bytes([len(properties)]) + properties + b"payload"
    message, _ = read_publish(0x30, body, 0, len(body))
    assert (message.payload, message.correlation_data) == (b"payload", b"x")


@pytest.mark.parametrize("kind", [0x00, 0x04, 0x14, 0x2B, 0xFF])
def test_a_property_of_unknown_length_makes_a_message_unreadable(kind: int) -> None:
    body = b"\x00\x01t" + b"\x02" + bytes([kind, 0]) + b"payload"
    with pytest.raises(Unreadable):
        read_publish(0x30, body, 0, len(body))


async def test_a_killed_server_is_offline_although_its_will_has_a_will_delay(namespace: str) -> None:
    script = {"will_properties": b"\x18" + struct.pack(">I", 1)}
    async with ScriptedBroker(**script) as broker, Proxy(broker.url) as near_server:
        server = ToolServer("weather", broker=near_server.url, namespace=namespace, will_delay=1)
        server.add_tool("forecast", lambda: None)
        async with server, ToolClient("caller", broker=broker.url, namespace=namespace) as client:
            await becomes(client.list_servers)
            await near_server.cut()

            async def nobody() -> bool:
                return not await client.list_servers()

            await becomes(nobody)
