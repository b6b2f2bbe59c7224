"""Identifiers: which names may become a level of an MQTT topic, and fresh ids for calls and tasks."""

from __future__ import annotations

import os
import re
import time

from mqtt_agent.errors import InvalidIdentifier

__all__ = [
    "FORBIDDEN_CHARACTERS",
    "MAX_IDENTIFIER_BYTES",
    "is_identifier",
    "new_call_id",
    "new_task_id",
    "normalize_namespace",
    "validate_identifier",
]

MAX_IDENTIFIER_BYTES: int = 255
"""The longest identifier, in bytes of UTF-8 (ours)."""

_NON_CHARACTERS = "".join(f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(17))
FORBIDDEN_CHARACTERS: str = f"\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NON_CHARACTERS}"
"""The characters for which a broker may close the connection, for a set in a regular expression.

They are control characters, surrogates and Unicode's non-characters.
"""
# In addition: MQTT's wildcards, the separator of levels, and the byte order mark.
_FORBIDDEN = re.compile(f"[/+#\ufeff{FORBIDDEN_CHARACTERS}]")
_PLAIN = re.compile(r"[A-Za-z0-9_.:@=~-]{1,255}")


def is_identifier(value: object) -> bool:
    """Whether ``value`` may be one topic level. :func:`validate_identifier` has the rules."""
    if not isinstance(value, str):
        return False
    if _PLAIN.fullmatch(value):
        return True
    return bool(value) and value[0] != "$" and not _FORBIDDEN.search(value) and len(value.encode()) <= 255


def validate_identifier(value: object, what: str = "identifier") -> str:
    """Return ``value`` when it may be one topic level, else raise an error.

    An identifier has no ``/``, ``+`` or ``#`` (spec). It has no control character, is not empty, does not begin with
    ``$``, and has at most 255 bytes of UTF-8 (ours).

    Args:
        value: A value from a user or a peer.
        what: What the value is, for the error message, for example ``"tool name"``.

    Raises:
        InvalidIdentifier: The value breaks one of these rules.
    """
    if not is_identifier(value):
        raise InvalidIdentifier(_explained(value, what))
    assert isinstance(value, str)
    return value


def _explained(value: object, what: str) -> str:
    """Says why a value is not an identifier, and suggests a similar value that is one."""
    legal = ""
    if not isinstance(value, str):
        fault = f"is not a text but {type(value).__name__}"
    else:
        legal = _FORBIDDEN.sub("-", value).strip("-$ ").encode()[:MAX_IDENTIFIER_BYTES].decode(errors="ignore")
        found = " ".join(ascii(each) for each in sorted(set(_FORBIDDEN.findall(value)))[:10])
        if found:
            fault = f"contains {found}"
        elif value.startswith("$"):
            fault = "begins with '$'"
        else:
            fault = f"has {len(value.encode())} bytes"
    suggestion = f", such as {legal!r}" if is_identifier(legal) and len(legal) < 60 else ""
    return (
        f"{what} {value!r:.80} cannot be a topic level, because it {fault}: use 1 to {MAX_IDENTIFIER_BYTES} bytes "
        f"without '/', '+', '#' or control characters, and no leading '$'{suggestion}"
    )


def normalize_namespace(namespace: str) -> str:
    """Return the topic prefix for ``namespace``, with leading and trailing ``/`` trimmed (spec).

    Raises:
        InvalidIdentifier: A level of the namespace cannot be a topic level.
    """
    trimmed = namespace.strip("/")
    for level in trimmed.split("/"):
        validate_identifier(level, "namespace level")
    return trimmed


def new_call_id() -> str:
    """A fresh id for a call: 32 hexadecimal digits."""
    return _random()


def new_task_id() -> str:
    """A fresh id for a task: the 32 hexadecimal digits of a UUID of version 7 (RFC 9562).

    Such ids begin with the time. So a store adds new tasks side by side to its index, and not all over it.
    """
    digits = _random()
    # Version 7 has the time in milliseconds, then the version, random digits, the variant, and random digits again.
    return f"{time.time_ns() // 1_000_000:012x}7{digits[13:16]}{_VARIANT[digits[16]]}{digits[17:]}"


_VARIANT = {digit: "89ab"[number % 4] for number, digit in enumerate("0123456789abcdef")}
_unused: list[str] = []
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_unused.clear)  # else two processes would give the same ids


def _random() -> str:
    # Each system call releases the GIL, and then waits for the thread of the store. So many ids are made at once.
    try:
        return _unused.pop()
    except IndexError:
        data = os.urandom(16 * 256)
        _unused.extend(data[at : at + 16].hex() for at in range(0, len(data), 16))
        return os.urandom(16).hex()
