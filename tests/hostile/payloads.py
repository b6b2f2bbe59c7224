"""Payloads that are no message, with what the reader should say about each."""

from __future__ import annotations

import pytest

MEGABYTE = 1024 * 1024

NO_JSON_OBJECT = [
    pytest.param(b"", "EOF|empty|JSON", id="empty"),
    pytest.param(b"\x00\x01\x02\xfe", "JSON|UTF-8", id="binary"),
    pytest.param(b"hello", "JSON", id="text"),
    pytest.param(b"{", "JSON", id="cut short"),
    pytest.param(b"{}{}", "JSON", id="two objects"),
    pytest.param(b"null", "object", id="null"),
    pytest.param(b"[]", "object", id="list"),
    pytest.param(b'"call"', "object", id="string"),
    pytest.param(b"17", "object", id="number"),
    pytest.param(b"[" * 100_000, "JSON", id="100,000 brackets"),
    pytest.param(b'{"a":' * 100_000, "JSON", id="100,000 braces"),
    pytest.param(b'{"call_id": "\xff\xfe", "client": "peer"}', "JSON|UTF-8|unicode", id="invalid UTF-8"),
    pytest.param(b'{"call_id": "\\ud800", "client": "peer"}', "JSON|surrogate", id="lone surrogate"),
    pytest.param(b'\xef\xbb\xbf{"call_id": "x"}', "JSON", id="byte order mark"),
    pytest.param('{"call_id": "x"}'.encode("utf-16"), "JSON|UTF-8", id="UTF-16"),
]
"""For every message; the reasons are those of the JSON reader."""
