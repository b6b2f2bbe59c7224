"""Payloads that are not valid messages."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

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
"""Payloads that are not JSON objects, each with the pattern of its reader's error message.

The empty payload is not in this list, because it is valid for a card.
"""


@st.composite
def mutated(draw: st.DrawFn, templates: list[dict[str, Any]], values: st.SearchStrategy[Any]) -> bytes:
    """A valid message in which fields have another type, are added or are missing, or in which bytes are changed."""
    fields = sorted({field for template in templates for field in template})
    message = dict(draw(st.sampled_from(templates)))
    for field in draw(st.lists(st.sampled_from(fields), max_size=2)):
        if draw(st.booleans()):
            message[field] = draw(values)
        else:
            message.pop(field, None)
    payload = bytearray(json.dumps(message).encode())
    for position in draw(st.lists(st.integers(0, len(payload) - 1), max_size=2)):
        payload[position] = draw(st.integers(0, 255))
    return bytes(payload[: draw(st.integers(0, len(payload)))] if draw(st.booleans()) else payload)


def fuzzed(templates: list[dict[str, Any]], values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Nearly valid messages, random bytes, and JSON that is not a message."""
    anything = values.map(lambda value: json.dumps(value).encode())
    return mutated(templates, values) | st.binary(max_size=40) | anything
