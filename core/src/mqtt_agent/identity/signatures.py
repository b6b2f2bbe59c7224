"""Signatures of MQTT messages: one user property proves who wrote a message, on any broker."""

from __future__ import annotations

import binascii
import functools
import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from mqtt_agent.identity.merkle import MAX_BATCH, MAX_PATH, Inclusion

__all__ = [
    "SIGNATURE_PROPERTY",
    "SIGNED_PROPERTIES",
    "Signature",
    "SignedContent",
    "batch_text",
    "decode_base64",
    "encode_base64",
    "find_signature",
]

SIGNATURE_PROPERTY: str = "mqtt-agent-sig"
"""The name of the MQTT user property that carries a signature (ours)."""

SIGNED_PROPERTIES: frozenset[str] = frozenset({"traceparent", "tracestate", "baggage"})
"""The user properties that a signature covers, because receivers act on them (ours)."""

_DOMAIN = b"16:mqtt-agent-sig 1"
_READS_BATCHES = "2."  # no nonce of a program that knows only version 1 begins so: base64url has no dot
_MISSING = b"-"
_LENIENT = "surrogatepass"  # a peer may send any text, and no text may raise an error
_NONCE_BYTES, _VALUE_BYTES = 12, 64
_MOST_DIGITS = 15
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")
_LONGEST_VALUE = (4 * _VALUE_BYTES + 2) // 3
_LONGEST_PATH = (4 * MAX_PATH + 2) // 3


class SignedContent(NamedTuple):
    """The parts of an MQTT message that a signature covers.

    The QoS, the retain flag and the Message Expiry Interval are not covered, because brokers change them.

    Attributes:
        topic: The topic.
        payload: The bytes of the message.
        response_topic: The Response Topic, if any.
        correlation_data: The Correlation Data, if any.
        content_type: The Content Type, if any.
        user_properties: All user properties. Only those of :data:`SIGNED_PROPERTIES` are covered.
    """

    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation_data: bytes | None = None
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()

    def to_bytes(self, signature: Signature) -> bytes:
        """The bytes to sign: each part with its length before it, and the payload as its SHA-256.

        No part can be moved into another one, because each part has its length. A missing part is not an empty part.
        """
        # Each message is signed and checked, so the parts that messages have in common are kept.
        signer, signed_at, expires_at, nonce, _, _ = signature
        at, until = str(signed_at), str(expires_at)
        stamps = f"{len(at)}:{at}{len(until)}:{until}"
        if nonce.isascii():
            stamps = f"{stamps}{len(nonce)}:{nonce}".encode()
        else:
            stamps = stamps.encode() + _part(nonce.encode(errors=_LENIENT))
        content_type, reply_to, correlation = self.content_type, self.response_topic, self.correlation_data
        signed = b"".join(
            (
                _DOMAIN,
                _text(signer),
                stamps,
                _text(self.topic),
                _MISSING if reply_to is None else _text(reply_to),
                _MISSING if correlation is None else _part(correlation),
                _MISSING if content_type is None else _text(content_type),
                b"32:",
                hashlib.sha256(self.payload).digest(),
            )
        )
        covered = [pair for pair in self.user_properties if pair[0] in SIGNED_PROPERTIES]
        return signed + b"".join(_text(text) for pair in sorted(covered) for text in pair) if covered else signed


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

    @classmethod
    def begin(cls, signer: str, signed_at: int, expires_at: int) -> Signature:
        """A signature with a new nonce, and without its value yet."""
        return cls(signer, signed_at, expires_at, _READS_BATCHES + encode_base64(os.urandom(_NONCE_BYTES)))

    @classmethod
    def blank(cls, signer: str, signed_at: int, expires_at: int) -> Signature:
        """A signature that proves nothing, and is as long as the one of a single message."""
        nonce = _READS_BATCHES + encode_base64(bytes(_NONCE_BYTES))
        return cls(signer, signed_at, expires_at, nonce, bytes(_VALUE_BYTES))

    @classmethod
    def longest(cls, signer: str) -> int:
        """The bytes of the longest signature of a message in a batch."""
        inclusion = Inclusion(MAX_BATCH, MAX_BATCH - 1, bytes(MAX_PATH))
        text = str(cls.blank(signer, 0, 0).with_value(bytes(_VALUE_BYTES), inclusion))
        return len(text.encode(errors=_LENIENT)) + 2 * (_MOST_DIGITS - 1)

    def with_value(self, value: bytes, inclusion: Inclusion | None = None) -> Signature:
        """The same signature with its value."""
        return Signature(self.signer, self.signed_at, self.expires_at, self.nonce, value, inclusion)

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
                inclusion = Inclusion(int(size), int(number), decode_base64(path))
            else:
                raise ValueError("its version is not known")
            if not (numbers.isascii() and numbers.isdigit()) or max(len(signed_at), len(expires_at)) > _MOST_DIGITS:
                raise ValueError("a number is not one")
            if len(value) > _LONGEST_VALUE:
                raise ValueError("its value is too long")
            return cls(signer[2:], int(signed_at), int(expires_at), nonce, _decode_value(value), inclusion)
        except ValueError as error:
            raise ValueError(f"{text!r:.60} is not a signature: {error}") from error

    @property
    def stamps(self) -> str:
        """The parts of the text after the version that are the same for both versions."""
        return f"{self.signer};{self.signed_at};{self.expires_at};{self.nonce}"

    def __str__(self) -> str:
        stamps = self.stamps
        if self.inclusion is None:
            return f"1;{stamps};{encode_base64(self.value)}"
        size, number, path = self.inclusion
        return batch_text(stamps, size, number, path, encode_base64(self.value))


def batch_text(stamps: str, size: int, number: int, path: bytes, value: str) -> str:
    """The text of the signature of a message in a batch."""
    return f"2;{stamps};{size};{number};{encode_base64(path)};{value}"


def find_signature(user_properties: Iterable[tuple[str, str]]) -> str | None:
    """The text of a message's signature; None when the message has none.

    Raises:
        ValueError: The message has more than one signature.
    """
    found = [value for name, value in user_properties if name == SIGNATURE_PROPERTY]
    if len(found) > 1:
        raise ValueError(f"the message has {len(found)} signatures")
    return found[0] if found else None


def decode_base64(text: str) -> bytes:
    """Read base64url without padding, and refuse every other spelling of the same bytes.

    Raises:
        ValueError: The text is not base64url.
    """
    try:
        data = binascii.a2b_base64(text.encode().translate(_FROM_URL) + b"=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{text!r:.40} is not base64url") from error
    if encode_base64(data) != text:  # the decoder ignores characters that are not base64
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
    return _part(text.encode(errors=_LENIENT))


def _part(part: bytes) -> bytes:
    return b"%d:%b" % (len(part), part)
