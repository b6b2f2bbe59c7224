"""Encodes and decodes messages: the base model, JSON bytes, times."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, ClassVar, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mqtt_agent.errors import WireError

__all__ = [
    "CONTENT_TYPE",
    "DEFAULT_MAX_PAYLOAD",
    "Message",
    "decode",
    "encode",
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


class Message(BaseModel):
    """The base model of all messages. Each message is a JSON object.

    Unknown fields are ignored on reading. Fields that are None are left out on writing.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="ignore", protected_namespaces=(), frozen=False, populate_by_name=True
    )


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The UTF-8 JSON of ``message``, without the fields that are None.

    NaN and infinities become null, because JSON has no such numbers.

    Raises:
        WireError: A value in the message has no JSON form.
    """
    try:
        return message.__pydantic_serializer__.to_json(message, exclude_none=True, by_alias=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"{type(message).__name__} has a value that JSON cannot carry: {error}") from error


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
        raise WireError(f"{model.__name__}: {len(payload)} bytes are more than the limit of {max_bytes}")
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


def to_json(value: Any) -> Any:
    """Convert a value to plain JSON: dict, list, str, int, float, bool or None.

    Pydantic models, dataclasses, dates, enums, sets, and bytes that are UTF-8 can be converted.

    Raises:
        WireError: The value has no JSON form.
    """
    try:
        return pydantic_core.to_jsonable_python(value, inf_nan_mode="null")
    except (ValueError, TypeError, RecursionError) as error:
        raise WireError(f"a {type(value).__name__} has no JSON form: {error}") from error


def utc_now() -> str:
    """The present time as ISO 8601 UTC with milliseconds and ``Z`` (ref)."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
