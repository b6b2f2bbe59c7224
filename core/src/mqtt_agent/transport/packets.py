"""Encodes and decodes the MQTT 5 packets that are frequent: PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE and others.

paho-mqtt can do this too, but needs about 500 Python calls for each PUBLISH packet. It still handles the packets that
are sent once per connection, such as CONNECT.
"""

from __future__ import annotations

import struct

from mqtt_agent.transport.message import InboundMessage, PublishProperties

__all__ = [
    "PUBACK",
    "PUBLISH",
    "SUBACK",
    "UNSUBACK",
    "Unreadable",
    "find_packet",
    "pack_disconnect",
    "pack_puback",
    "pack_publish",
    "pack_pubrec",
    "pack_subscribe",
    "pack_unsubscribe",
    "read_publish",
    "read_suback",
]

PUBLISH, PUBACK, SUBACK, UNSUBACK = 0x30, 0x40, 0x90, 0xB0
_MAX_LENGTH = 268_435_455  # MQTT's limit for the bytes after the length field

_CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION_DATA, _MESSAGE_EXPIRY, _USER = 0x03, 0x08, 0x09, 0x02, 0x26
_JSON = b"\x01\x01\x03\x00\x10application/json"  # Payload Format Indicator 1, Content Type
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_FIXED_SIZES = {0x01: 1, 0x23: 2}  # Payload Format Indicator, Topic Alias


class Unreadable(Exception):
    """A PUBLISH packet that violates MQTT, although its topic and packet identifier can be read.

    Args:
        topic: The topic of the message.
        mid: The packet identifier; 0 at QoS 0.
        reason: What is wrong.
    """

    def __init__(self, topic: str, mid: int, reason: str) -> None:
        super().__init__(reason)
        self.topic: str = topic
        self.mid: int = mid


def pack_puback(mid: int) -> bytes:
    """The bytes of a PUBACK packet with reason code 0."""
    return b"\x40\x02" + _U16.pack(mid)


def pack_disconnect(*, end_session: bool) -> bytes:
    """The bytes of a DISCONNECT packet; ``end_session`` adds a Session Expiry Interval of 0."""
    return b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00" if end_session else b"\xe0\x00"


def pack_pubrec(mid: int) -> bytes:
    """The bytes of a PUBREC packet with reason code 0."""
    return b"\x50\x02" + _U16.pack(mid)


def pack_publish(topic: str, payload: bytes, qos: int, retain: bool, mid: int, properties: PublishProperties) -> bytes:
    """The bytes of a PUBLISH packet.

    Args:
        topic: The topic.
        payload: The bytes of the message.
        qos: 0 or 1.
        retain: Whether the broker keeps the message for later subscribers.
        mid: The packet identifier; ignored at QoS 0.
        properties: The MQTT properties.

    Raises:
        ValueError: The topic is empty or has a wildcard, a text is longer than 65,535 bytes or is not valid Unicode, or
            the packet is too large for MQTT.
    """
    if not topic or "+" in topic or "#" in topic:
        raise ValueError(f"{topic!r:.80} is not a topic to publish to: it is empty or has a wildcard")
    packed = _pack_properties(properties)
    head = _string(topic)
    if qos:
        head += _U16.pack(mid)
    head += _length(len(packed)) + packed
    size = len(head) + len(payload)
    if size > _MAX_LENGTH:
        raise ValueError(f"{size} bytes are more than an MQTT packet can hold")
    return b"".join((bytes((PUBLISH | qos << 1 | retain,)), _length(size), head, payload))


def pack_subscribe(mid: int, topic_filter: str, qos: int, retain_handling: int) -> bytes:
    """The bytes of a SUBSCRIBE packet for one topic filter.

    Args:
        mid: The packet identifier.
        topic_filter: The topic filter.
        qos: The highest QoS wanted.
        retain_handling: MQTT's Retain Handling: 0, 1 or 2.

    Raises:
        ValueError: The topic filter is empty, or has a wildcard where MQTT does not allow one.
    """
    levels = topic_filter.split("/")
    if not topic_filter or "#" in levels[:-1] or any(len(each) > 1 and ("+" in each or "#" in each) for each in levels):
        raise ValueError(
            f"{topic_filter!r:.80} is not a topic filter: it is empty or has a wildcard in the wrong place"
        )
    body = _U16.pack(mid) + b"\x00" + _string(topic_filter) + bytes((retain_handling << 4 | qos,))
    return b"\x82" + _length(len(body)) + body


def pack_unsubscribe(mid: int, topic_filter: str) -> bytes:
    """The bytes of an UNSUBSCRIBE packet for one topic filter.

    Raises:
        ValueError: The topic filter is longer than 65,535 bytes or is not valid Unicode.
    """
    body = _U16.pack(mid) + b"\x00" + _string(topic_filter)
    return b"\xa2" + _length(len(body)) + body


def read_suback(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Decode a SUBACK or UNSUBACK packet.

    Args:
        data: Bytes that contain the packet.
        at: The index at which the packet's body begins.
        end: The index after the packet's last byte.

    Returns:
        The packet identifier, and the first reason code; 0 when there is no reason code.

    Raises:
        ValueError: The packet is cut short.
    """
    if end < at + 3:
        raise ValueError("a SUBACK that is cut short")
    _, after = find_packet(data, at + 1)  # the length of the properties is encoded like the length of a packet
    if not after or after > end:
        raise ValueError("the properties of a SUBACK are cut short")
    return data[at] << 8 | data[at + 1], data[after] if after < end else 0


def _pack_properties(properties: PublishProperties) -> bytes:
    packed = b""
    if properties.content_type == "application/json":
        packed = _JSON
    elif properties.content_type is not None:
        packed = b"\x01\x01\x03" + _string(properties.content_type)
    if properties.response_topic is not None:
        packed += b"\x08" + _string(properties.response_topic)
    if properties.correlation_data is not None:
        packed += b"\x09" + _binary(properties.correlation_data)
    if properties.message_expiry is not None:
        packed += b"\x02" + _U32.pack(properties.message_expiry)
    for name, value in properties.user_properties:
        packed += b"\x26" + _string(name) + _string(value)
    return packed


def _string(text: str) -> bytes:
    return _binary(text.encode())


def _binary(data: bytes) -> bytes:
    if len(data) > 65535:
        raise ValueError(f"{len(data)} bytes are more than a topic or a property of MQTT can hold")
    return _U16.pack(len(data)) + data


def _length(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    packed = bytearray()
    while value >= 128:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def find_packet(data: bytes, at: int) -> tuple[int, int]:
    """Find the body of a packet by decoding its length field.

    Args:
        data: The received bytes.
        at: The index of the packet's first byte.

    Returns:
        The index at which the body begins, and the index after its last byte, which may be beyond ``data``. Both are 0
        when the length field has not arrived completely.

    Raises:
        ValueError: The length field has more than four bytes.
    """
    size, shift = 0, 0
    for pos in range(at + 1, min(at + 5, len(data))):
        byte = data[pos]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return pos + 1, pos + 1 + size
        shift += 7
    if shift == 28:
        raise ValueError("a length of more than four bytes")
    return 0, 0


def read_publish(head: int, data: bytes, at: int, end: int) -> tuple[InboundMessage, int]:
    """Decode a PUBLISH packet.

    Args:
        head: The first byte of the packet.
        data: Bytes that contain the packet.
        at: The index at which the packet's body begins.
        end: The index after the packet's last byte.

    Returns:
        The message, and its packet identifier; 0 at QoS 0.

    Raises:
        Unreadable: The topic and the packet identifier are complete, and the rest is invalid. The message can be
            acknowledged and ignored.
        ValueError: The packet ends before its packet identifier is complete, or its QoS is 3.
    """
    qos = head >> 1 & 0x03
    begin = at + 2
    at = begin + (data[at] << 8 | data[at + 1]) if end >= begin else end + 1
    mid_at = at
    if qos:
        at += 2
    if at > end or qos == 3:
        raise ValueError("a PUBLISH that is cut short")
    mid = data[mid_at] << 8 | data[mid_at + 1] if qos else 0
    topic_bytes = data[begin:mid_at]
    try:
        topic = topic_bytes.decode()
        pos, after = find_packet(data, at - 1)  # the length of the properties is encoded like the length of a packet
        if not pos or after > end:
            raise ValueError("its properties are cut short")
        message = InboundMessage(topic, data[after:end], qos=qos, retain=head & 0x01 == 1, duplicate=head & 0x08 == 8)
        if pos < after:
            _read_properties(message, data, pos, after)
    except (ValueError, IndexError) as error:
        raise Unreadable(topic_bytes.decode(errors="replace"), mid, str(error)) from error
    return message, mid


def _read_properties(message: InboundMessage, data: bytes, at: int, end: int) -> None:
    user: list[tuple[str, str]] = []
    while at < end:
        kind = data[at]
        at += 1
        size = _FIXED_SIZES.get(kind)
        if size is not None:
            at += size
        elif kind == _MESSAGE_EXPIRY:
            message.message_expiry = int.from_bytes(data[at : at + 4], "big")
            at += 4
        elif kind == 0x0B:  # Subscription Identifier
            at = find_packet(data, at - 1)[0] or end + 1  # encoded like a length field
        else:
            value = data[at + 2 : (at := at + 2 + (data[at] << 8 | data[at + 1]))]
            if kind == _RESPONSE_TOPIC:
                message.response_topic = value.decode()
            elif kind == _CORRELATION_DATA:
                message.correlation_data = value
            elif kind == _USER:
                name = value.decode()
                value = data[at + 2 : (at := at + 2 + (data[at] << 8 | data[at + 1]))]
                user.append((name, value.decode()))
            elif kind != _CONTENT_TYPE:
                raise ValueError(f"a PUBLISH cannot have property 0x{kind:02x}")
    if at != end:
        raise ValueError("a property is cut short")
    message.user_properties = tuple(user)
