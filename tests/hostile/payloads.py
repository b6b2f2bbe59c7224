"""Payloads that are no message, by what they are, each with the pattern of what the reader says about it."""

from __future__ import annotations

MEGABYTE = 1024 * 1024

NO_JSON_OBJECT: dict[str, tuple[bytes, str]] = {
    "binary": (b"\x00\x01\x02\xfe", "JSON|UTF-8"),
    "text": (b"hello", "JSON"),
    "cut short": (b"{", "JSON"),
    "two objects": (b"{}{}", "JSON"),
    "null": (b"null", "object"),
    "a list": (b"[]", "object"),
    "a string": (b'"call"', "object"),
    "a number": (b"17", "object"),
    "100,000 brackets": (b"[" * 100_000, "JSON"),
    "50,000 braces": (b'{"a":' * 50_000, "JSON"),
    "NaN": (b'{"call_id": "x", "client": "peer", "arguments": {"a": NaN}}', "expected value"),
    "Infinity": (b'{"call_id": "x", "client": "peer", "arguments": {"a": -Infinity}}', "invalid number"),
    "a number of 5,000 digits": (b'{"call_id": ' + b"1" * 5000 + b"}", "JSON|number"),
    "invalid UTF-8": (b'{"call_id": "\xff\xfe", "client": "peer"}', "JSON|UTF-8|unicode"),
    "a lone surrogate": (b'{"call_id": "\\ud800", "client": "peer"}', "JSON|surrogate"),
    "a byte order mark": (b'\xef\xbb\xbf{"call_id": "x"}', "JSON"),
    "UTF-16": ('{"call_id": "x"}'.encode("utf-16"), "JSON|UTF-8"),
}
"""No JSON object, whatever message is expected. The empty payload is not here: to a card it means something."""
