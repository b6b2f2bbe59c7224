"""Encodes and decodes messages: the base model, JSON bytes, times."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import datetime, timezone
from typing import Any, ClassVar, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mqtt_agent.errors import WireError
from mqtt_agent.wire.values import MAX_DEPTH, mended, plain_form

__all__ = [
    "CONTENT_TYPE",
    "DEFAULT_MAX_PAYLOAD",
    "MAX_CARD_PAYLOAD",
    "Message",
    "checked_card",
    "checked_json",
    "decode",
    "encode",
    "footprint",
    "parse_time",
    "read_time",
    "to_json",
    "utc_now",
]

CONTENT_TYPE: str = "application/json"
"""The MQTT 5 Content Type of every message."""
_TIME = TypeAdapter(datetime)
_STARTS_WITH_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

DEFAULT_MAX_PAYLOAD: int = 1024 * 1024
"""The largest payload to read, in bytes, when no setting says otherwise."""

MAX_CARD_PAYLOAD: int = 256 * 1024
"""The largest card to read, in bytes."""


class Message(BaseModel):
    """The base model of all messages. Each message is a JSON object.

    Unknown fields are ignored on reading. Fields that are None are left out on writing.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="ignore", protected_namespaces=(), frozen=False, populate_by_name=True, ser_json_inf_nan="constants"
    )

    def as_json(self) -> dict[str, Any]:
        """The message as plain JSON values, without the fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


M = TypeVar("M", bound=Message)


def encode(message: Message, owner: str = "") -> bytes:
    """The UTF-8 JSON of ``message``, without the fields that are None.

    A lone surrogate in a text becomes U+FFFD, and a warning is logged.

    Args:
        message: The message.
        owner: Who made the values in the message, for the warning; by default, the kind of the message.

    Raises:
        WireError: A value in the message has no JSON form, is NaN or infinite, or makes the message deeper than 200
            levels. The error names the place, for example ``result.rows[3].price``.
    """
    try:
        payload = message.__pydantic_serializer__.to_json(message, exclude_none=True, by_alias=True)
        deep = len(payload) > 2 * MAX_DEPTH and _may_be_too_deep(payload)
        if not (deep or b"NaN" in payload or b"Infinity" in payload):
            return payload
        pydantic_core.from_json(payload, allow_inf_nan=False)  # accepts the words and brackets in a text
        return payload
    except (ValueError, TypeError, RecursionError):
        fields = dict(message)
        with contextlib.suppress(ValueError, RecursionError):  # fails for a value that contains itself
            fields = message.model_dump(exclude_none=True, by_alias=True, warnings=False)
        return pydantic_core.to_json(mended(fields, "", owner or type(message).__name__))


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _may_be_too_deep(payload: bytes) -> bool:
    """Whether a payload may be nested deeper than 200 levels. This is much faster than parsing the payload."""
    if payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return False
    brackets = payload.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH // 2):  # each turn removes one or two levels
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return True


def too_large(what: str, size: int, most: int) -> str:
    """Why a payload is not read, and what to do.

    Args:
        what: The kind of the message.
        size: Its size in bytes.
        most: The largest size.
    """
    return (
        f"{what}: {size:,} bytes are more than the limit of {most:,}: send less, for example the address of the data; "
        "for calls, tasks and results, max_payload of the receiver sets the limit"
    )


def decode(model: type[M], payload: bytes | bytearray, max_bytes: int = DEFAULT_MAX_PAYLOAD) -> M:
    """Read one message.

    Args:
        model: The model that the message must fit.
        payload: The bytes from the broker, which may be anything.
        max_bytes: The largest payload to read, in bytes.

    Raises:
        WireError: The payload is too large, not UTF-8 JSON, nested deeper than 200 levels, not an object, or lacks a
            field that the message must have. No other exception leaves this function.
    """
    if len(payload) > max_bytes:
        raise WireError(too_large(model.__name__, len(payload), max_bytes))
    try:
        if b"NaN" in payload or b"Infinity" in payload:
            # model_validate_json accepts NaN and Infinity as numbers. from_json refuses them, except inside of strings.
            pydantic_core.from_json(bytes(payload), allow_inf_nan=False)
        return model.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = "/".join(str(part) for part in first["loc"])
        raise WireError(f"{model.__name__}: {where + ': ' if where else ''}{first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise WireError(f"{model.__name__}: {error}") from error


def footprint(payload: bytes | bytearray) -> int:
    """About how many bytes of memory a payload takes together with the values that are decoded from it.

    A payload of one byte per bracket takes about thirty times its own length. This is much faster than decoding.
    """
    return 2 * len(payload) + 64 * (payload.count(b"[") + payload.count(b"{")) + 24 * payload.count(b",")


def to_json(value: Any, name: str = "", owner: str = "") -> Any:
    """Convert a value to plain JSON: dict, list, str, int, float, bool or None.

    Pydantic models, dataclasses, dates, enums, sets, bytes that are UTF-8, and NumPy's numbers and arrays can be
    converted. NaN, infinity and lone surrogates may stay: :func:`encode` finds them. See :func:`checked_json` for a
    value that is not encoded at once.

    Args:
        value: The value.
        name: What the value is, as the first part of each path in an error, for example ``result``.
        owner: Who made the value, for the warning about a lone surrogate.

    Raises:
        WireError: The value has no JSON form. The error names the place.
    """
    try:
        return pydantic_core.to_jsonable_python(value, inf_nan_mode="constants", fallback=plain_form)
    except (ValueError, TypeError, RecursionError):
        return mended(value, name, owner)


_AROUND = 10
"""Levels that a message may have around a value."""
_OPEN, _CLOSED = b"[" * _AROUND, b"]" * _AROUND


def checked_json(value: Any, name: str = "", owner: str = "") -> Any:
    """Convert a value to plain JSON that every message and every store can hold. It is slower than :func:`to_json`.

    A lone surrogate in a text becomes U+FFFD, and a warning is logged.

    Args:
        value: The value.
        name: What the value is, as the first part of each path in an error, for example ``result``.
        owner: Who made the value, for the warning about a lone surrogate.

    Raises:
        WireError: The value has no JSON form, is NaN or infinite, or is nested deeper than 190 levels. The error names
            the place.
    """
    try:
        # A pydantic model writes NaN as null, but only as JSON. So the value is converted first, and then written.
        converted = pydantic_core.to_jsonable_python(value, fallback=plain_form)
    except (ValueError, TypeError, RecursionError):
        return mended(value, name, owner, MAX_DEPTH - _AROUND)
    try:
        payload = pydantic_core.to_json(converted, inf_nan_mode="constants")
        [[[[[[[[[[plain]]]]]]]]]] = pydantic_core.from_json(_OPEN + payload + _CLOSED, allow_inf_nan=False)
    except (ValueError, TypeError, RecursionError):
        # The value itself may have an iterator, which is empty now.
        return mended(converted, name, owner, MAX_DEPTH - _AROUND)
    return plain


def checked_card(card: M, owner: str) -> M:
    """Return a copy of a card that can be published.

    Check a card where its values are given: a card that cannot be published would stop the announcement of other
    cards too.

    Args:
        card: The card. Lone surrogates in its texts become U+FFFD.
        owner: What the card is, for the error and the warning.

    Raises:
        WireError: JSON cannot carry a value of the card, or the card is larger than 256 KiB.
    """
    payload = encode(card, owner)
    if len(payload) > MAX_CARD_PAYLOAD:
        what = f"{owner} has {len(payload):,} bytes, and readers take at most {MAX_CARD_PAYLOAD:,}"
        raise WireError(f"{what}: shorten the description, the schemas or the other data")
    return decode(type(card), payload)


def utc_now() -> str:
    """The present time as ISO 8601 UTC with milliseconds and ``Z`` (ref)."""
    global _second
    now = time.time()
    seconds = int(now)
    known, text = _second
    if known != seconds:  # each message has a time, and most are made in the same second as the one before
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = seconds, text
    return f"{text}.{int((now - seconds) * 1000):03d}Z"


_second: tuple[int, str] = (0, "1970-01-01T00:00:00")
"""The latest second for which :func:`utc_now` was called, and its text."""


def parse_time(text: str) -> datetime | None:
    """Read an ISO 8601 time such as ``2099-12-31T23:59:59Z``.

    Returns:
        The time, without a zone when the text has none. None when the text is no such time: digits alone are no time,
        because they may be a date, or seconds, or milliseconds.
    """
    if not _STARTS_WITH_DATE.match(text):
        return None
    try:
        return _TIME.validate_python(text)
    except ValueError:
        return None


def read_time(text: str) -> float | None:
    """Convert an ISO 8601 time to Unix seconds. A time without a zone is UTC. None when the text is not a time."""
    moment = parse_time(text)
    if moment is None:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except OverflowError:
        return None
