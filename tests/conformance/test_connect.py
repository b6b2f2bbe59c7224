"""The first bytes that our endpoints send, to a fake broker that records them and answers as the test wants."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, Connection, MemoryStore, ToolClient, ToolServer
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from support import soon, until

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE = 1, 3, 4, 8, 10
PLAIN, RUMQTTD, NO_SHARED = b"", b"\x22\x10\x00", b"\x2a\x00"


@dataclass
class Connect:
    """A parsed CONNECT packet."""

    level: int
    clean_start: bool
    will_qos: int
    will_retain: bool
    properties: dict[str, Any]
    client_id: str
    will_properties: dict[str, Any]
    will_topic: str
    will: dict[str, Any]


def text(body: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">H", body[:2])
    return body[2 : 2 + length], body[2 + length :]


def read_connect(body: bytes) -> Connect:
    protocol, body = text(body)
    assert protocol == b"MQTT"
    level, flags, body = body[0], body[1], body[4:]
    properties, will_properties = Properties(PacketTypes.CONNECT), Properties(PacketTypes.WILLMESSAGE)
    body = body[properties.unpack(body)[1] :]
    client_id, body = text(body)
    will_topic, will = b"", b"{}"
    if flags & 4:
        body = body[will_properties.unpack(body)[1] :]
        will_topic, body = text(body)
        will, body = text(body)
    return Connect(
        level,
        bool(flags & 2),
        flags >> 3 & 3,
        bool(flags & 32),
        vars(properties),
        client_id.decode(),
        vars(will_properties),
        will_topic.decode(),
        json.loads(will),
    )


class Notes:
    """A fake broker that accepts every client with the CONNACK that the test wants.

    The fake broker answers no other packet. With ``answers``, it accepts every packet, and returns each message to its
    sender.
    """

    def __init__(self) -> None:
        self.answers = False
        self.connack_properties = PLAIN
        self.session_present = False
        self.packets: list[tuple[int, bytes]] = []
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    def send(self, topic: str, message: dict[str, Any], *, mid: int, retain: bool) -> None:
        """Send a message at QoS 1 to the latest client."""
        body = struct.pack(">H", len(topic)) + topic.encode() + struct.pack(">HB", mid, 0)
        body += json.dumps(message).encode()
        self._writers[-1].write(bytes([0x32 | retain]) + VariableByteIntegers.encode(len(body)) + body)

    @property
    def connects(self) -> list[Connect]:
        return [read_connect(body) for kind, body in self.packets if kind == CONNECT]

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.packets]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readexactly(1))[0]
                length, shift = 0, 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = await reader.readexactly(length)
                self.packets.append((head >> 4, body))
                if self.answers:
                    writer.write(answer(head, body))
                if head >> 4 == CONNECT:
                    rest = bytes([self.session_present, 0, len(self.connack_properties)]) + self.connack_properties
                    writer.write(bytes([0x20, len(rest)]) + rest)
        writer.close()


def answer(head: int, body: bytes) -> bytes:
    """The answers of a broker with one client and a subscription to all topics."""
    kind = head >> 4
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        granted = body[-1] & 0x03 if kind == SUBSCRIBE else 0
        return bytes([kind + 1 << 4, 4]) + body[:2] + bytes([0, granted])
    if kind != PUBLISH or not head & 2:
        return b""
    topic, rest = text(body)
    body = struct.pack(">H", len(topic)) + topic + rest[2:]
    return b"\x40\x02" + rest[:2] + b"\x30" + VariableByteIntegers.encode(len(body)) + body


@pytest.fixture
async def notes() -> AsyncIterator[Notes]:
    broker = Notes()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    broker.url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield broker
    server.close()


async def begin(start: Callable[[], Awaitable[None]], happened: Callable[[], object]) -> None:
    """Start an endpoint until it has sent something; it cannot complete its start with the fake broker."""
    starting = asyncio.ensure_future(start())
    await until(happened)
    starting.cancel()
    await asyncio.wait([starting])


@pytest.mark.rule(
    "MQTT-1", "SESSION-1", "SESSION-2", "SESSION-8", "PRES-1", "PRES-2", "PRES-12", "SESSION-10", "SCARD-9"
)
async def test_a_server_connects_with_a_session_that_lasts_and_a_will_with_a_delay(notes: Notes) -> None:
    for replica in ("a", None):
        server = ToolServer("weather", broker=notes.url, namespace="ns", replica=replica, will_delay=7)
        server.add_tool("forecast", lambda: 1)
        seen = len(notes.connects)
        await begin(server.start, lambda seen=seen: len(notes.connects) > seen)
    named, unnamed = notes.connects
    assert (named.level, named.clean_start) == (5, False)
    assert named.properties["SessionExpiryInterval"] == 7
    assert named.client_id == "weather:a"
    assert (named.will_topic, named.will_qos, named.will_retain) == ("ns/mcp/servers/weather:a/card", 1, True)
    assert named.will_properties["WillDelayInterval"] == 7 + 30
    assert (named.will["server"], named.will["status"], named.will["tools"]) == ("weather:a", "offline", ["forecast"])
    assert named.will["unavailable"] == "the server has lost its connection, or has died"
    assert "MessageExpiryInterval" not in named.will_properties
    assert unnamed.will_properties["MessageExpiryInterval"] == 24 * 3600


@pytest.mark.rule("MQTT-1", "SESSION-1")
async def test_a_client_connects_with_a_session_that_lasts(notes: Notes) -> None:
    await begin(ToolClient("agent-a", broker=notes.url).start, lambda: notes.connects)
    [connect] = notes.connects
    assert (connect.level, connect.clean_start, connect.will_topic) == (5, False, "")
    assert connect.properties["SessionExpiryInterval"] == 60


@pytest.mark.rule("SESSION-3")
async def test_a_peer_subscribes_before_it_publishes_also_with_its_session_there(notes: Notes) -> None:
    notes.session_present = True
    server = ToolServer("weather", broker=notes.url)
    server.add_tool("forecast", lambda: 1)
    await begin(server.start, lambda: notes.kinds().count(SUBSCRIBE) == 6)
    assert PUBLISH not in notes.kinds()
    filters = {text(body[3:])[0].decode() for kind, body in notes.packets if kind == SUBSCRIBE}
    assert filters == {  # the calls follow when the server has claimed the tool's name
        "a2a/v1/mcp/tools/forecast/cancel",
        "a2a/v1/mcp/tools/forecast/cancel/+",
        "a2a/v1/mcp/tools/forecast/card",
        f"a2a/v1/mcp/servers/{server.server_id}/card",
        f"a2a/v1/mcp/servers/{server.server_id}/query",
        f"a2a/v1/mcp/servers/{server.server_id}/query/+",
    }


@pytest.mark.rule("SESSION-7")
async def test_members_of_share_groups_start_clean_on_rumqttd(notes: Notes) -> None:
    notes.connack_properties = RUMQTTD
    server = ToolServer("weather", broker=notes.url, replica="a")
    server.add_tool("forecast", lambda: 1)
    await begin(server.start, lambda: len(notes.connects) == 2)
    first, second = notes.connects
    assert (first.clean_start, second.clean_start) == (False, True)
    assert first.client_id != second.client_id
    client = ToolClient("agent-a", broker=notes.url)
    await begin(client.start, lambda: len(notes.connects) == 3)
    assert not notes.connects[-1].clean_start


@pytest.mark.rule("SHARE-3")
async def test_without_shared_subscriptions_a_server_subscribes_plainly_and_warns_once(
    notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    notes.connack_properties, notes.answers = NO_SHARED, True
    server = ToolServer("weather", broker=notes.url)
    server.add_tool("one", lambda: 1)
    server.add_tool("two", lambda: 2)
    with caplog.at_level(logging.WARNING):
        await soon(server.start())
        filters = [text(body[3:])[0].decode() for kind, body in notes.packets if kind == SUBSCRIBE]
        await soon(server.stop(), 20)
    assert filters.count("a2a/v1/mcp/tools/one/call") == filters.count("a2a/v1/mcp/tools/two/call") == 1
    assert not any("$share" in topic_filter for topic_filter in filters)
    assert ["no shared subscriptions" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.rule("CALL-16")
async def test_a_call_that_arrives_as_a_retained_message_is_acknowledged_and_not_run(notes: Notes) -> None:
    notes.answers = True
    server, runs = ToolServer("weather", broker=notes.url), list[int]()
    server.add_tool("run", lambda n: runs.append(n), input_schema={"type": "object", "properties": {"n": {}}})
    await soon(server.start())
    for mid, retain in ((1001, True), (1002, False)):
        call = {"call_id": f"c-{mid}", "client": "friend", "arguments": {"n": mid}}
        notes.send("a2a/v1/mcp/tools/run/call", call, mid=mid, retain=retain)
    await until(lambda: (PUBACK, struct.pack(">H", 1002)) in notes.packets)
    assert (PUBACK, struct.pack(">H", 1001)) in notes.packets
    assert runs == [1002]
    answers = [body for kind, body in notes.packets if kind == PUBLISH and b"clients/friend/responses" in body]
    assert [b"c-1002" in answer for answer in answers] == [True]
    await soon(server.stop(), 20)


@pytest.mark.rule("TASK-16")
async def test_a_task_that_arrives_as_a_retained_message_is_acknowledged_and_not_run(notes: Notes) -> None:
    notes.answers = True
    agent, runs = Agent("writer", broker=notes.url, store=MemoryStore()), list[str]()
    agent.on_task(lambda task: runs.append(task.id))
    await soon(agent.start())
    for mid, retain in ((1001, True), (1002, False)):
        task = {"task_id": f"t-{mid}", "from": "friend", "prompt": "go"}
        notes.send("a2a/v1/tasks/writer/inbox", task, mid=mid, retain=retain)
    await until(lambda: runs and (PUBACK, struct.pack(">H", 1002)) in notes.packets)
    assert (PUBACK, struct.pack(">H", 1001)) in notes.packets
    assert runs == ["t-1002"]
    await soon(agent.stop(), 20)


@pytest.mark.rule("SESSION-6")
async def test_a_peer_that_ends_in_good_order_ends_its_session(mosquitto: Mosquitto, namespace: str) -> None:
    where: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    server, client = ToolServer("weather", session_expiry=300, **where), ToolClient(session_expiry=300, **where)
    server.add_tool("forecast", lambda: 1)
    async with server, client:
        await soon(client.call("forecast"))
    for endpoint in (client, server):
        again = Connection(mosquitto.url, client_id=endpoint.connection.client_id)
        await soon(again.start())
        assert not again.session_present
        await soon(again.stop(end_session=True))
