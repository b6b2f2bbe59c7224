"""Signatures of MQTT messages: one user property proves who wrote a message, on any broker."""

from __future__ import annotations

import binascii
import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

from mqtt_agent.identity.merkle import MAX_BATCH, MAX_PATH, Inclusion

__all__ = [
    "SIGNATURE_PROPERTY",
    "SIGNED_PROPERTIES",
    "Signature",
    "batch_text",
    "decode_base64",
    "encode_base64",
    "find_signature",
    "longest_of_batch",
    "longest_single",
    "new_nonce",
    "packed_size",
    "signed_bytes",
    "single_text",
]

SIGNATURE_PROPERTY: str = "mqtt-agent-sig"
"""The name of the MQTT user property that carries a signature (ours)."""

SIGNED_PROPERTIES: frozenset[str] = frozenset({"traceparent", "tracestate", "baggage"})
"""The user properties that a signature covers, because receivers act on them (ours)."""

_DOMAIN = "16:mqtt-agent-sig 1"
_READS_BATCHES = "2."  # no nonce of a program that knows only version 1 begins so: base64url has no dot
_MISSING = "-"
_sha256 = hashlib.sha256
# the constructor of a NamedTuple takes twice as long, and each message needs two of them
_made = cast("Callable[..., Any]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
_LENIENT = "surrogatepass"  # a peer may send any text, and no text may raise an error
_NONCE_BYTES, _VALUE_BYTES = 12, 64
_MOST_DIGITS = 15
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")
_LONGEST_TIME = 10**13 - 1  # in milliseconds since 1970: the year 2286, and no message expires later than in 136 years
_PACKED = 9  # the type of a property, two lengths, and the growth of the packet's own lengths
_BLANK_NONCE = _READS_BATCHES + 16 * "A"  # 12 bytes in base64
_LONGEST_VALUE = (4 * _VALUE_BYTES + 2) // 3
_LONGEST_PATH = (4 * MAX_PATH + 2) // 3


class Signature(NamedTuple):
    """The value of the user property :data:`SIGNATURE_PROPERTY`.

    Of a single message, it is ``1;signer;signed_at;expires_at;nonce;value``. Of a message in a batch, it is
    ``2;signer;signed_at;expires_at;nonce;size;number;path;value``.

    Attributes:
        signer: The name of whoever signed the message.
        signed_at: When the message was signed, in milliseconds since 1970.
        expires_at: When the message is too old to be believed, in milliseconds since 1970; 0 means never.
        nonce: A random text, so that no two signatures are the same. Its beginning says whether the signer checks
            signatures of batches.
        value: The Ed25519 signature, 64 bytes.
        inclusion: The proof that the message is one of a batch; None for a single message.
    """

    signer: str
    signed_at: int
    expires_at: int
    nonce: str
    value: bytes = b""
    inclusion: Inclusion | None = None

    @property
    def reads_batches(self) -> bool:
        """Whether the signer checks signatures of batches."""
        return self.nonce.startswith(_READS_BATCHES)

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read the value of the user property.

        Raises:
            ValueError: The text is not a signature of these versions.
        """
        version, inclusion = text[:2], None
        try:
            if version == "1;":
                signer, signed_at, expires_at, nonce, value = text.rsplit(";", 4)
                numbers = signed_at + expires_at
            elif version == "2;":
                signer, signed_at, expires_at, nonce, size, number, path, value = text.rsplit(";", 7)
                numbers = signed_at + expires_at + size + number
                if len(path) > _LONGEST_PATH or len(numbers) > 2 * (_MOST_DIGITS + 2):
                    raise ValueError("its path or a number is too long")
                inclusion = _made(Inclusion, (int(size), int(number), decode_base64(path)))
            else:
                raise ValueError("its version is not known")
            if not (numbers.isascii() and numbers.isdigit()):
                raise ValueError("a number is not one")
            if len(signed_at) > _MOST_DIGITS or len(expires_at) > _MOST_DIGITS:
                raise ValueError("a time is too long")
            if len(value) > _LONGEST_VALUE:
                raise ValueError("its value is too long")
            value = _decode_value(value)
            return _made(cls, (signer[2:], int(signed_at), int(expires_at), nonce, value, inclusion))
        except ValueError as error:
            raise ValueError(f"{text!r:.60} is not a signature: {error}") from error


def new_nonce() -> str:
    """A random text that also says that its signer checks signatures of batches."""
    return _READS_BATCHES + encode_base64(os.urandom(_NONCE_BYTES))


def signed_bytes(
    signer: str,
    signed_at: str,
    expires_at: str,
    nonce: str,
    topic: str,
    payload: bytes,
    response_topic: str | None,
    correlation_data: bytes | None,
    content_type: str | None,
    user_properties: Iterable[tuple[str, str]],
) -> bytes:
    """The bytes to sign: each part with its length before it, and the payload as its SHA-256.

    No part can be moved into another one, because each part has its length. A missing part is not an empty part.
    The QoS, the retain flag and the Message Expiry Interval are not covered, because brokers change them.

    Args:
        signer: See :class:`Signature`, as for the next three arguments. The times are decimal numbers.
        signed_at: When the message was signed.
        expires_at: When the message is too old.
        nonce: The random text.
        topic: The topic.
        payload: The bytes of the message.
        response_topic: The Response Topic, if any.
        correlation_data: The Correlation Data, if any.
        content_type: The Content Type, if any.
        user_properties: All user properties. Only those of :data:`SIGNED_PROPERTIES` are covered.
    """
    # Each message is signed and checked, and one text is made faster than many parts.
    begin = (
        f"{_DOMAIN}{len(signer)}:{signer}{len(signed_at)}:{signed_at}{len(expires_at)}:{expires_at}"
        f"{len(nonce)}:{nonce}{len(topic)}:{topic}"
    )
    begin += _MISSING if response_topic is None else f"{len(response_topic)}:{response_topic}"
    if begin.isascii():  # then each text has as many bytes as characters
        beginning = begin.encode()
    else:
        texts = (signer, signed_at, expires_at, nonce, topic, *(() if response_topic is None else (response_topic,)))
        beginning = _DOMAIN.encode() + b"".join(map(_text, texts)) + (b"" if response_topic is not None else b"-")
    signed = b"%b%b%b32:%b" % (
        beginning,
        b"-" if correlation_data is None else b"%d:%b" % (len(correlation_data), correlation_data),
        b"-" if content_type is None else _text(content_type),
        _sha256(payload).digest(),
    )
    covered = [pair for pair in user_properties if pair[0] in SIGNED_PROPERTIES]
    return signed if not covered else signed + b"".join(_text(text) for pair in sorted(covered) for text in pair)


def single_text(stamps: str, value: bytes) -> str:
    """The text of the signature of a single message. See :func:`batch_text`."""
    return f"1;{stamps};{encode_base64(value)}"


def longest_single(signer: str, *, expires: bool) -> int:
    """The bytes that the signature of a single message adds to its packet at most.

    Args:
        signer: The name of the signer.
        expires: Whether the message expires.
    """
    stamps = f"{signer};{_LONGEST_TIME};{_LONGEST_TIME if expires else 0};{_BLANK_NONCE}"
    return packed_size(SIGNATURE_PROPERTY, single_text(stamps, bytes(_VALUE_BYTES)))


def longest_of_batch(signer: str) -> int:
    """The bytes that the signature of a message in a batch adds to its packet at most."""
    stamps, value = f"{signer};{_LONGEST_TIME};{_LONGEST_TIME};{_BLANK_NONCE}", encode_base64(bytes(_VALUE_BYTES))
    return packed_size(SIGNATURE_PROPERTY, batch_text(stamps, MAX_BATCH, MAX_BATCH - 1, bytes(MAX_PATH), value))


def packed_size(name: str, value: str) -> int:
    """The bytes that a user property adds to a packet at most: also its type, and the growth of all lengths."""
    return len(name.encode()) + len(value.encode(errors=_LENIENT)) + _PACKED


def batch_text(stamps: str, size: int, number: int, path: bytes, value: str) -> str:
    """The text of the signature of a message in a batch.

    Args:
        stamps: The signer, the two times and the nonce, as in the text.
        size: How many messages the batch has.
        number: The number of the message.
        path: The path of the message.
        value: The signature in base64url, which all messages of the batch have.
    """
    return f"2;{stamps};{size};{number};{encode_base64(path)};{value}"


def find_signature(user_properties: Iterable[tuple[str, str]]) -> str | None:
    """The text of a message's signature; None when the message has none.

    Raises:
        ValueError: The message has more than one signature.
    """
    found = None
    for name, value in user_properties:
        if name == SIGNATURE_PROPERTY:
            if found is not None:
                raise ValueError("the message has more than one signature")
            found = value
    return found


def decode_base64(text: str) -> bytes:
    """Read base64url without padding, and refuse every other spelling of the same bytes.

    Raises:
        ValueError: The text is not base64url.
    """
    try:
        encoded = text.encode()
        data = binascii.a2b_base64(encoded.translate(_FROM_URL) + b"=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text!r:.40} is not base64url") from error
    # The decoder ignores characters that are not base64.
    if binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL) != encoded:
        raise ValueError(f"{text!r:.40} is not base64url")
    return data


def encode_base64(data: bytes) -> str:
    """base64url without padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL).decode()


@functools.lru_cache(128)
def _decode_value(text: str) -> bytes:
    """Read the value of a signature. The messages of a batch have the same one."""
    return decode_base64(text)


@functools.lru_cache(256)
def _text(text: str) -> bytes:
    part = text.encode(errors=_LENIENT)
    return b"%d:%b" % (len(part), part)
