"""Encodes the frequent MQTT 5 packets, and refuses values that no packet can hold. ``packets`` decodes packets.

Brokers close the connection of a client that sends a packet that violates MQTT. The message would be sent again after
the reconnect, and no other message could be sent any more. So each message is packed before it is queued.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from typing import NamedTuple

from mqtt_agent.errors import WireError
from mqtt_agent.transport.message import PublishProperties
from mqtt_agent.transport.packets import JSON_PROPERTIES, PUBLISH
from mqtt_agent.wire.identifiers import FORBIDDEN_CHARACTERS

__all__ = [
    "MAX_SECONDS",
    "PackedPublish",
    "check_filter",
    "message_expiry",
    "pack_disconnect",
    "pack_puback",
    "pack_publish",
    "pack_pubrec",
    "pack_string",
    "pack_subscribe",
    "pack_topic",
    "pack_unsubscribe",
    "says_text",
    "surely_fits",
    "whole_seconds",
]

MAX_SECONDS: int = 2**32 - 1
"""The longest time that a packet can hold: about 136 years. A longer time is sent as no limit."""
_MAX_LENGTH = 268_435_455  # MQTT's limit for the bytes after the length field
_AROUND = 64  # more bytes than all other parts of a packet with JSON
_MAX_LEVELS = 201  # brokers such as Mosquitto close the connection for a topic with more levels
_FORBIDDEN = re.compile(f"[{FORBIDDEN_CHARACTERS}]")
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_FIRST_BYTES = [bytes((PUBLISH | flags,)) for flags in range(4)]  # by QoS 0 or 1, and by Retain


def pack_puback(mid: int) -> bytes:
    """The bytes of a PUBACK packet with reason code 0."""
    return b"\x40\x02" + _U16.pack(mid)


def pack_disconnect(*, end_session: bool) -> bytes:
    """The bytes of a DISCONNECT packet; ``end_session`` adds a Session Expiry Interval of 0."""
    return b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00" if end_session else b"\xe0\x00"


def pack_pubrec(mid: int) -> bytes:
    """The bytes of a PUBREC packet with reason code 0."""
    return b"\x50\x02" + _U16.pack(mid)


class PackedPublish(NamedTuple):
    """A PUBLISH packet in parts. The packet identifier is missing, because it belongs to one network connection.

    Attributes:
        head: The bytes before the packet identifier.
        properties: The bytes between the packet identifier and the payload.
        payload: The bytes of the message.
        qos: 0 or 1.
        retain: Whether the broker keeps the message for later subscribers.
        size: The size of the packet, in bytes.
    """

    head: bytes
    properties: bytes
    payload: bytes
    qos: int
    retain: bool
    size: int

    def with_id(self, mid: int, added: bytes = b"") -> bytes:
        """The bytes of the packet.

        Args:
            mid: The packet identifier; ignored at QoS 0.
            added: More user properties; see :func:`pack_user_property`.
        """
        head, before, packed_id = self.head, self.properties, _U16.pack(mid) if self.qos else b""
        if not added:
            return b"".join((head, packed_id, before, self.payload))
        skip, skip_head = 1, 2
        while before[skip - 1] >= 0x80:  # the properties begin with their length, and so does the packet
            skip += 1
        while head[skip_head - 1] >= 0x80:
            skip_head += 1
        length = _length(len(before) - skip + len(added))
        size = _length(self.size - skip_head + len(length) - skip + len(added))
        return b"".join(
            (head[:1], size, head[skip_head:], packed_id, length, before[skip:], added, self.payload),
        )


def pack_publish(topic: str, payload: bytes, qos: int, retain: bool, properties: PublishProperties) -> PackedPublish:
    """Pack a PUBLISH packet, apart from its packet identifier.

    Args:
        topic: The topic.
        payload: The bytes of the message.
        qos: 0 or 1.
        retain: Whether the broker keeps the message for later subscribers.
        properties: The MQTT properties.

    Raises:
        WireError: MQTT cannot carry the message: see :func:`pack_topic` and :func:`pack_string`, or a time is not
            between 0 and 2^32-1 seconds, or the packet is larger than MQTT's 256 MiB.
    """
    name, packed = pack_topic(topic, "the topic"), _pack_properties(properties, payload)
    packed = _length(len(packed)) + packed
    size = len(name) + 2 * qos + len(packed) + len(payload)
    if size > _MAX_LENGTH:
        what = f"{size:,} bytes for {topic!r:.80} are more than an MQTT packet can hold ({_MAX_LENGTH:,})"
        raise WireError(f"{what}: send less, for example the address of the data")
    head = _FIRST_BYTES[qos << 1 | retain] + _length(size) + name
    return PackedPublish(head, packed, payload, qos, retain, len(head) - len(name) + size)


def surely_fits(topic: str, payload: bytes, properties: PublishProperties, limit: int) -> bool:
    """Whether a PUBLISH packet can be packed and is not larger than a limit. False also when this is not clear.

    It costs much less than :func:`pack_publish`.

    Args:
        topic: The topic.
        payload: The bytes of the message.
        properties: The MQTT properties.
        limit: The largest size of the packet, in bytes.

    Raises:
        WireError: No message can be published to the topic or to the Response Topic; see :func:`pack_topic`.
    """
    if properties.user_properties or properties.message_expiry is not None:
        return False
    if properties.content_type not in (None, "application/json"):
        return False
    size = _AROUND + len(payload) + len(pack_topic(topic, "the topic"))
    if properties.response_topic is not None:
        size += len(pack_topic(properties.response_topic, "the Response Topic"))
    correlation = len(properties.correlation_data or b"")
    return correlation <= 0xFFFF and size + correlation <= min(limit, _MAX_LENGTH)


@functools.lru_cache(512)
def pack_topic(topic: str, what: str) -> bytes:
    """The bytes of a topic in a packet, with its length.

    Args:
        topic: The topic.
        what: What the topic is, for the error.

    Raises:
        WireError: No message can be published to the topic: it is empty, has a wildcard or more than 201 levels, or
            :func:`pack_string` refuses it.
    """
    if not topic or "+" in topic or "#" in topic:
        raise WireError(f"{what} {topic!r:.80} is not a topic to publish to: it is empty or has a wildcard")
    _check_levels(topic, what)
    return pack_string(topic, what)


def check_filter(topic_filter: str) -> None:
    """Refuse a topic filter to which no broker lets a client subscribe.

    Raises:
        WireError: The topic filter is empty, has a wildcard where MQTT does not allow one, is a shared subscription
            without a group or a filter, has more than 201 levels, or :func:`pack_string` refuses it.
    """
    levels = topic_filter.split("/")
    wrong = not topic_filter or "#" in levels[:-1]
    wrong = wrong or any(len(each) > 1 and ("+" in each or "#" in each) for each in levels)
    if levels[0] == "$share":
        wrong = wrong or len(levels) < 3 or levels[1] in ("", "+") or (len(levels) == 3 and not levels[2])
    if wrong:
        why = "it is empty, has a wildcard in the wrong place, or is an incomplete $share filter"
        raise WireError(f"{topic_filter!r:.80} is not a topic filter: {why}")
    _check_levels(topic_filter, "the topic filter")
    pack_string(topic_filter, "the topic filter")


def _check_levels(topic: str, what: str) -> None:
    if topic.count("/") >= _MAX_LEVELS:
        raise WireError(f"{what} {topic!r:.80} has more than {_MAX_LEVELS} levels: brokers disconnect a client for it")


def pack_subscribe(mid: int, topic_filter: str, qos: int, retain_handling: int, no_local: bool = False) -> bytes:
    """The bytes of a SUBSCRIBE packet for one topic filter.

    Args:
        mid: The packet identifier.
        topic_filter: The topic filter.
        qos: The highest QoS wanted.
        retain_handling: MQTT's Retain Handling: 0, 1 or 2.
        no_local: MQTT's No Local: whether the broker does not send a client its own messages.

    Raises:
        WireError: See :func:`check_filter`.
    """
    check_filter(topic_filter)
    options = bytes((retain_handling << 4 | no_local << 2 | qos,))
    body = _U16.pack(mid) + b"\x00" + pack_string(topic_filter, "the topic filter") + options
    return b"\x82" + _length(len(body)) + body


def pack_unsubscribe(mid: int, topic_filter: str) -> bytes:
    """The bytes of an UNSUBSCRIBE packet for one topic filter.

    Raises:
        WireError: See :func:`pack_string`.
    """
    body = _U16.pack(mid) + b"\x00" + pack_string(topic_filter, "the topic filter")
    return b"\xa2" + _length(len(body)) + body


def says_text(payload: bytes) -> bool:
    """Whether a message says that its payload is text (Payload Format Indicator 1).

    A broker may check that (MQTT 5, 3.3.2.3.2). FlashMQ also ends the sender's connection for well-formed text that has
    a control character or a Unicode non-character. The JSON of this project escapes all control characters below 0x20.
    """
    return payload.isascii() and b"\x7f" not in payload


def _pack_properties(properties: PublishProperties, payload: bytes) -> bytes:
    content_type, correlation = properties.content_type, properties.correlation_data
    if content_type == "application/json":
        packed = JSON_PROPERTIES if says_text(payload) else JSON_PROPERTIES[2:]
    elif content_type is not None:
        packed = b"\x03" + pack_string(content_type, "the Content Type")
        if content_type != "application/octet-stream" and says_text(payload):
            packed = b"\x01\x01" + packed
    else:
        packed = b""
    if properties.response_topic is not None:
        packed += b"\x08" + pack_topic(properties.response_topic, "the Response Topic")
    if correlation is not None:
        packed += b"\x09" + _pack_binary(correlation, "the Correlation Data")
    expiry = properties.message_expiry
    if expiry is not None:
        if not 0 <= expiry <= MAX_SECONDS:
            raise WireError(f"the Message Expiry Interval {expiry:,} is not between 0 and {MAX_SECONDS:,} s")
        packed += b"\x02" + _U32.pack(expiry)
    for name, value in properties.user_properties:
        packed += pack_user_property(name, value)
    return packed


def pack_user_property(name: str, value: str) -> bytes:
    """The bytes of a user property in a packet.

    Raises:
        WireError: See :func:`pack_string`.
    """
    return b"\x26" + _pack_name(name) + pack_string(value, "a user property")


@functools.lru_cache(64)
def _pack_name(name: str) -> bytes:
    return pack_string(name, "a user property")


def pack_string(text: str, what: str) -> bytes:
    """The bytes of a text in a packet, with its length.

    Args:
        text: The text.
        what: What the text is, for the error.

    Raises:
        WireError: The text is longer than 65,535 bytes, or has a character for which brokers close the connection.
    """
    if not (text.isascii() and text.isprintable()) and (wrong := _FORBIDDEN.search(text)):
        raise WireError(f"{what} has the character {wrong.group()!a}, for which brokers disconnect a client")
    return _pack_binary(text.encode(), what)


def whole_seconds(seconds: float, what: str) -> int:
    """Convert a time to whole seconds, rounded up. A time of 2^32-1 s or more becomes 2^32-1, which means no limit.

    Args:
        seconds: The time.
        what: What the time is, for the error.

    Raises:
        ValueError: The time is negative, or is not a number.
    """
    if not seconds >= 0:
        raise ValueError(f"{what} must be a number of seconds of at least 0, not {seconds!r}")
    return MAX_SECONDS if seconds >= MAX_SECONDS else math.ceil(seconds)


def message_expiry(seconds: float) -> int | None:
    """The Message Expiry Interval for a message that is useless after this time. None is no limit.

    Args:
        seconds: The time that is left. The interval is rounded up, and at least 1.
    """
    return None if seconds >= MAX_SECONDS else max(1, math.ceil(seconds))


def _pack_binary(data: bytes, what: str) -> bytes:
    if len(data) > 65535:
        raise WireError(f"{what} has {len(data):,} bytes, and MQTT can carry at most 65,535")
    return _U16.pack(len(data)) + data


@functools.lru_cache(4096)
def _length(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    if value < 16_384:
        return bytes((value & 0x7F | 0x80, value >> 7))
    packed = bytearray()
    while value >= 128:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)
    return bytes(packed)
