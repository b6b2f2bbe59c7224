"""Our packet code compared with paho-mqtt's: each reads the packets that the other writes."""

from __future__ import annotations

import itertools
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.transport.message import PublishProperties
from mqtt_agent.transport.packets import Unreadable, find_packet, read_publish, read_suback
from mqtt_agent.transport.packing import pack_publish, pack_subscribe, pack_unsubscribe
from mqtt_agent.transport.socket import BufferedSocket
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers
from paho.mqtt.subscribeoptions import SubscribeOptions

# Like the standard, paho-mqtt accepts no NUL, no byte order mark and no surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff"), max_size=40)
# We do not write control characters and non-characters either, because brokers close the connection for them.
written_texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\ufeff"), max_size=40)
topics = texts.filter(lambda text: text and not set(text) & {"+", "#"})
written_topics = written_texts.filter(lambda text: text and not set(text) & {"+", "#"})


def properties_with(
    texts: st.SearchStrategy[str], topics: st.SearchStrategy[str]
) -> st.SearchStrategy[PublishProperties]:
    return st.builds(
        PublishProperties,
        response_topic=st.none() | topics,
        correlation_data=st.none() | st.binary(max_size=40),
        content_type=st.none() | texts | st.just("application/json"),
        message_expiry=st.none() | st.integers(0, 2**32 - 1),
        user_properties=st.lists(st.tuples(texts, texts), max_size=4).map(tuple),
    )


publish_properties = properties_with(texts, texts)
written_properties = properties_with(written_texts, written_topics)
payloads = st.binary(max_size=300)


def split(packet: bytes) -> tuple[int, int, int]:
    body, end = find_packet(packet, 0)
    assert end == len(packet)
    return packet[0], body, end


def paho_properties(properties: PublishProperties, payload: bytes = b"") -> Properties:
    packed: Any = Properties(PacketTypes.PUBLISH)
    if properties.content_type is not None:
        packed.ContentType = properties.content_type
        if payload.isascii() and b"\x7f" not in payload:
            packed.PayloadFormatIndicator = 1
    if properties.response_topic is not None:
        packed.ResponseTopic = properties.response_topic
    if properties.correlation_data is not None:
        packed.CorrelationData = properties.correlation_data
    if properties.message_expiry is not None:
        packed.MessageExpiryInterval = properties.message_expiry
    if properties.user_properties:
        packed.UserProperty = list(properties.user_properties)
    return packed


@given(written_topics, payloads, st.sampled_from([0, 1]), st.booleans(), st.integers(1, 65535), written_properties)
def test_paho_reads_what_we_write(
    topic: str, payload: bytes, qos: int, retain: bool, mid: int, properties: PublishProperties
) -> None:
    packed = pack_publish(topic, payload, qos, retain, properties)
    packet = packed.with_id(mid)
    assert len(packet) == packed.size
    head, at, _ = split(packet)
    assert head == 0x30 | qos << 1 | retain
    size = int.from_bytes(packet[at : at + 2], "big")
    assert packet[at + 2 : at + 2 + size] == topic.encode()
    at += 2 + size
    if qos:
        assert int.from_bytes(packet[at : at + 2], "big") == mid
        at += 2
    read: Any = Properties(PacketTypes.PUBLISH)
    _, length = read.unpack(packet[at:])
    assert read.json() == paho_properties(properties, payload).json()
    assert packet[at + length :] == payload


@given(topics, payloads, st.sampled_from([0, 1, 2]), st.booleans(), st.booleans(), publish_properties)
def test_we_read_what_paho_writes(
    topic: str, payload: bytes, qos: int, retain: bool, duplicate: bool, properties: PublishProperties
) -> None:
    body = len(topic.encode()).to_bytes(2, "big") + topic.encode() + (b"\x12\x34" if qos else b"")
    body += paho_properties(properties).pack() + payload
    packet = bytes([0x30 | duplicate << 3 | qos << 1 | retain]) + VariableByteIntegers.encode(len(body)) + body
    message, mid = read_publish(packet[0], packet, *split(packet)[1:])
    assert (message.topic, message.payload, message.qos, message.retain) == (topic, payload, qos, retain)
    assert (message.duplicate, mid) == (duplicate, 0x1234 if qos else 0)
    assert message.response_topic == properties.response_topic
    assert message.correlation_data == properties.correlation_data
    assert message.message_expiry == properties.message_expiry
    assert message.user_properties == properties.user_properties


@pytest.mark.rule("HOST-11")
@given(st.integers(0x30, 0x3F), st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(head: int, body: bytes) -> None:
    try:
        message, _ = read_publish(head, body, 0, len(body))
    except (Unreadable, ValueError):
        return
    assert body.endswith(message.payload)


@given(st.integers(0x30, 0x3F), st.binary(max_size=20), topics, st.binary(max_size=60))
def test_nothing_beyond_the_packet_is_read(head: int, before: bytes, topic: str, rest: bytes) -> None:
    body = len(topic.encode()).to_bytes(2, "big") + topic.encode() + rest

    def read(data: bytes, at: int) -> Any:
        try:
            message, mid = read_publish(head, data, at, at + len(body))
        except (Unreadable, ValueError) as error:
            return type(error)
        return vars(message), mid

    alone = read(body, 0)
    assert read(before + body + b"\x00" * 300, len(before)) == alone
    assert read(before + body + b"\xff" * 300, len(before)) == alone


def test_other_properties_of_a_publish_are_passed_over() -> None:
    odd: Any = Properties(PacketTypes.PUBLISH)
    odd.SubscriptionIdentifier = 300
    odd.TopicAlias = 7
    odd.PayloadFormatIndicator = 1
    odd.CorrelationData = b"x"
    body = b"\x00\x01t" + odd.pack() + b"payload"
    message, _ = read_publish(0x30, body, 0, len(body))
    assert (message.payload, message.correlation_data) == (b"payload", b"x")


def paho_client(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[bytes]]:
    client: Any = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    packets: list[bytes] = []
    monkeypatch.setattr(client, "_packet_queue", lambda command, packet, *rest: packets.append(bytes(packet)))
    return client, packets


@pytest.mark.parametrize("length", [1, 40, 300])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("retain_handling", [0, 2])
def test_subscribing_is_written_as_paho_does(
    length: int, qos: int, retain_handling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, packets = paho_client(monkeypatch)
    topic_filter = "é" * length + "/+/#"
    options = SubscribeOptions(qos=qos, retainHandling=retain_handling)
    mid = client._send_subscribe(False, [(topic_filter.encode(), options)])[1]
    assert packets.pop() == pack_subscribe(mid, topic_filter, qos, retain_handling)
    mid = client._send_unsubscribe(False, [topic_filter.encode()])[1]
    assert packets.pop() == pack_unsubscribe(mid, topic_filter)


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+/b", "b/c#", "++", "#/"])
def test_what_is_no_filter_is_not_subscribed_to(topic_filter: str) -> None:
    with pytest.raises(ValueError, match="is not a topic filter"):
        pack_subscribe(1, topic_filter, 1, 0)


@given(st.binary(max_size=20), st.integers(1, 65535), texts, st.lists(st.integers(0, 255), max_size=3))
def test_the_answer_to_subscribing_is_read(before: bytes, mid: int, reason: str, codes: list[int]) -> None:
    properties: Any = Properties(PacketTypes.SUBACK)
    properties.ReasonString = reason
    body = mid.to_bytes(2, "big") + properties.pack() + bytes(codes)
    data = before + body + b"what follows"
    assert read_suback(data, len(before), len(before) + len(body)) == (mid, codes[0] if codes else 0)
    for cut in range(len(body) - len(codes)):
        with pytest.raises(ValueError, match="cut short"):
            read_suback(data, len(before), len(before) + cut)


@pytest.mark.parametrize("topic", ["", "a/+", "#"])
def test_a_filter_is_no_topic(topic: str) -> None:
    with pytest.raises(ValueError, match="is not a topic to publish to"):
        pack_publish(topic, b"", 0, False, PublishProperties())


def test_texts_have_a_limit() -> None:
    with pytest.raises(ValueError, match="70,000 bytes"):
        pack_publish("t", b"", 0, False, PublishProperties(correlation_data=b"x" * 70_000))


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=8), st.data())
def test_packets_are_found_however_the_stream_is_cut(payloads: list[bytes], data: st.DataObject) -> None:
    packets = [pack_publish("t", payload, 0, False, PublishProperties()).with_id(0) for payload in payloads]
    stream = b"".join(packets)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream)), max_size=6)) | {0, len(stream)})
    ours, theirs = socket.socketpair()
    with ours, theirs:  # also when hypothesis gives up in the middle
        ours.setblocking(False)
        sock = BufferedSocket(ours)
        found: list[bytes] = []
        for begin, end in itertools.pairwise(cuts):
            theirs.send(stream[begin:end])
            sock.fill()
            while (packet := sock.next_packet()) is not None:
                head, body, at = packet
                if data.draw(st.booleans()):
                    sock.position = at
                else:  # as paho-mqtt reads
                    sock.hand_over(at)
                    assert sock.recv(1) == bytes([head])
                    while sock.recv(1)[0] >= 0x80:
                        pass
                    rest = b""
                    while len(rest) < at - body:
                        rest += sock.recv(7)
                    with pytest.raises(BlockingIOError):
                        sock.recv(1)
                message, _ = read_publish(head, sock.data, body, at)
                found.append(message.payload)
        assert found == payloads
        theirs.close()
        sock.fill()
        assert sock.ended
        assert sock.recv(1) == b""
        sock.close()


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\x01"])
def test_a_length_of_more_than_four_bytes_is_none(length: bytes) -> None:
    with pytest.raises(ValueError, match="length"):
        find_packet(b"\x30" + length, 0)


def test_a_packet_with_many_user_properties_is_read_in_no_time() -> None:
    count = 100_000
    packed = pack_publish("a", b"{}", 0, False, PublishProperties(user_properties=(("a", "b"),) * count))
    packet, began = packed.with_id(0), time.perf_counter()
    message, _ = read_publish(packet[0], packet, *find_packet(packet, 0))
    assert len(message.user_properties) == count
    assert time.perf_counter() - began < 2


def test_a_payload_that_looks_like_properties_is_a_payload() -> None:
    looks = b"\x03\x00\x10application/json"
    packet = b"\x30" + bytes((3 + 1 + 2 + len(looks),)) + b"\x00\x01a" + b"\x02\x01\x01" + looks
    message, _ = read_publish(packet[0], packet, *find_packet(packet, 0))
    assert (message.payload, message.content_type) == (looks, None)
