"""Decodes the MQTT 5 packets that a broker sends, apart from PINGRESP and PUBREL. ``packing`` encodes packets.

paho-mqtt can do this too, but needs about 500 Python calls for each PUBLISH packet, and refuses a CONNACK or DISCONNECT
packet as a whole when one of its properties is odd.
"""

from __future__ import annotations

from typing import NamedTuple

from mqtt_agent.transport.message import InboundMessage

__all__ = [
    "CONNACK",
    "DISCONNECT",
    "JSON_PROPERTIES",
    "PUBACK",
    "PUBLISH",
    "SUBACK",
    "UNSUBACK",
    "ConnAck",
    "Unreadable",
    "find_packet",
    "read_connack",
    "read_disconnect",
    "read_publish",
    "read_suback",
]

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, DISCONNECT = 0x20, 0x30, 0x40, 0x90, 0xB0, 0xE0

JSON_PROPERTIES: bytes = b"\x01\x01\x03\x00\x10application/json"
"""Payload Format Indicator 1 and the Content Type of JSON, as in nearly every PUBLISH packet."""
_CORRELATION_DATA, _MESSAGE_EXPIRY, _USER = 0x09, 0x02, 0x26
_NAMED = {0x03: "content_type", 0x08: "response_topic"}
"""The attributes of a message that are texts, by their properties."""
_FIXED_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
"""The sizes of MQTT 5's numeric properties, in bytes. Properties that a packet does not need are passed over.

Some brokers forward a Last Will with its Will Delay Interval (0x18), which no PUBLISH may have."""
_TEXTS = frozenset((0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F))  # texts and bytes that a PUBLISH does not need


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


class ConnAck(NamedTuple):
    """A CONNACK packet.

    Attributes:
        session_present: Whether the broker still had the client's session.
        code: The reason code. The return codes of MQTT 3.1.1 are translated.
        properties: The properties, by their identifiers. A property that occurs twice has its last value.
    """

    session_present: bool
    code: int
    properties: dict[int, int | bytes]

    @property
    def said(self) -> str:
        """The broker's Reason String, else its Server Reference, else nothing."""
        return _text(self.properties)


_MQTT3_CODES = {0: 0x84, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""By the return code of MQTT 3.1.1: the reason code. A broker that accepts with 0 does not speak MQTT 5 either."""


def read_connack(data: bytes, at: int, end: int) -> ConnAck:
    """Decode a CONNACK packet, also of a broker that does not speak MQTT 5.

    Args:
        data: Bytes that contain the packet.
        at: The index at which the packet's body begins.
        end: The index after the packet's last byte.

    Raises:
        ValueError: The packet is cut short.
    """
    if end < at + 2:
        raise ValueError("a CONNACK that is cut short")
    present, code = data[at] & 0x01 == 1, data[at + 1]
    if end == at + 2:  # in MQTT 5, the length of the properties follows
        return ConnAck(present, _MQTT3_CODES.get(code, code), {})
    return ConnAck(present, code, _read_all_properties(data, at + 2, end))


def read_disconnect(data: bytes, at: int, end: int) -> tuple[int, str]:
    """Decode a DISCONNECT packet.

    Args:
        data: Bytes that contain the packet.
        at: The index at which the packet's body begins.
        end: The index after the packet's last byte.

    Returns:
        The reason code, and the Reason String or Server Reference, if any.
    """
    code = data[at] if end > at else 0
    return code, _text(_read_all_properties(data, at + 1, end)) if end > at + 1 else ""


def _text(properties: dict[int, int | bytes]) -> str:
    said = properties.get(0x1F) or properties.get(0x1C)
    return said.decode(errors="replace") if isinstance(said, bytes) else ""


def _read_all_properties(data: bytes, at: int, end: int) -> dict[int, int | bytes]:
    """The properties of a packet, up to the first that cannot be read."""
    at, after = find_packet(data, at - 1)  # the length of the properties is encoded like the length of a packet
    found: dict[int, int | bytes] = {}
    while 0 < at < min(after, end):
        kind = data[at]
        size = _FIXED_SIZES.get(kind)
        if size is not None:
            found[kind] = int.from_bytes(data[at + 1 : at + 1 + size], "big")
            at += 1 + size
        elif kind in _TEXTS or kind == _USER:
            size = int.from_bytes(data[at + 1 : at + 3], "big")
            found[kind] = data[at + 3 : at + 3 + size]
            at += 3 + size
            if kind == _USER:
                at += 2 + int.from_bytes(data[at : at + 2], "big")
        else:
            break
    return found


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
    known = len(data)
    if at + 2 < known:  # most lengths have one or two bytes
        first, second = data[at + 1], data[at + 2]
        if first < 0x80:
            return at + 2, at + 2 + first
        if second < 0x80:
            return at + 3, at + 3 + (first & 0x7F | second << 7)
    size, shift = 0, 0
    for pos in range(at + 1, min(at + 5, known)):
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
    mid_at = begin + (data[at] << 8 | data[at + 1]) if end >= begin else end + 1
    at = mid_at + 2 if qos else mid_at
    if at > end or qos == 3:
        raise ValueError("a PUBLISH that is cut short")
    mid = data[mid_at] << 8 | data[mid_at + 1] if qos else 0
    topic = data[begin:mid_at]
    try:
        if at < end and data[at] < 0x80:  # nearly always, the length of the properties has one byte
            pos = at + 1
            after = pos + data[at]
        elif at + 1 < end and data[at + 1] < 0x80:  # with a signature, it has two
            pos = at + 2
            after = pos + (data[at] & 0x7F | data[at + 1] << 7)
        else:
            pos, after = find_packet(data, at - 1)  # the length is encoded like the length of a packet
        if not pos or after > end:
            raise ValueError("its properties are cut short")
        message = InboundMessage(topic.decode(), data[after:end], qos, bool(head & 0x01), bool(head & 0x08))
        if pos < after:
            _read_properties(message, data, pos, after)
    except (ValueError, IndexError) as error:
        raise Unreadable(topic.decode(errors="replace"), mid, str(error)) from error
    return message, mid


def _read_properties(message: InboundMessage, data: bytes, at: int, end: int) -> None:
    user: list[tuple[str, str]] = []
    if data.startswith(JSON_PROPERTIES, at, end):  # most messages begin with these two properties
        message.content_type = "application/json"
        at += len(JSON_PROPERTIES)
    while at < end:
        kind = data[at]
        at += 1
        if kind == _CORRELATION_DATA:
            message.correlation_data = data[at + 2 : (at := at + 2 + (data[at] << 8 | data[at + 1]))]
        elif kind == _MESSAGE_EXPIRY:
            message.message_expiry = int.from_bytes(data[at : (at := at + 4)], "big")
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        elif kind == 0x0B:  # Subscription Identifier
            at = find_packet(data, at - 1)[0] or end + 1  # encoded like a length field
        else:
            value = data[at + 2 : (at := at + 2 + (data[at] << 8 | data[at + 1]))]
            if kind in _NAMED:
                setattr(message, _NAMED[kind], value.decode())
            elif kind == _USER:
                name = value.decode()
                value = data[at + 2 : (at := at + 2 + (data[at] << 8 | data[at + 1]))]
                user.append((name, value.decode()))  # a packet has room for 200,000 of them
            elif kind not in _TEXTS:
                raise ValueError(f"MQTT has no property 0x{kind:02x}")
    if at != end:
        raise ValueError("a property is cut short")
    if user:
        message.user_properties = tuple(user)
