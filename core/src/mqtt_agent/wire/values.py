"""Finds the place in a value that JSON cannot carry, and repairs texts. It runs only after a fast encoder has failed.

One rule holds for every value that leaves this process. A lone surrogate, which is no character, is replaced by
U+FFFD, and a warning names the place. NaN, infinity, a value that is nested too deeply, and a value without JSON form
are errors of the code that made the value, and the error names the place.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import json
import logging
import math
import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any, cast

import pydantic_core
from pydantic import BaseModel

from mqtt_agent.errors import WireError
from mqtt_agent.logs import logger_of

__all__ = ["DIGEST_SIZE", "MAX_DEPTH", "fingerprint", "mended", "mended_text", "plain_form"]

logger: logging.Logger = logger_of(__name__)

MAX_DEPTH: int = 200
"""How many levels of arrays and objects a message may have."""
_MAX_BITS = 14_000  # an integer of about 4,200 digits: readers refuse longer ones
_LONGEST_PATH = 120
_SURROGATES = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[^\W\d]\w*")


def plain_form(value: Any) -> Any:
    """What stands in JSON for a value that pydantic does not know: NumPy's numbers and arrays, ranges, views of dicts.

    Raises:
        ValueError: There is no such form.
    """
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if kind is range or isinstance(value, (KeysView, ValuesView, ItemsView)):
        return list(cast("Iterable[Any]", value))
    raise pydantic_core.PydanticSerializationError(f"Unable to serialize unknown type: {kind}")


def mended_text(text: str) -> str:
    """Replace each lone surrogate by U+FFFD. Two surrogates that make up a pair become their character."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any, name: str, owner: str, depth: int = MAX_DEPTH) -> Any:
    """Convert a value to plain JSON in which every text can be encoded.

    Args:
        value: Any value. An iterator is refused, because the fast encoder has read its values before it failed.
        name: What the value is, as the first part of each path, for example ``result``. With an empty name, a
            path begins with the first key.
        owner: Who made the value, for the warning.
        depth: How many levels the value may have.

    Raises:
        WireError: JSON cannot carry the value. The error names the place.
    """
    mender = _Mender(depth)
    plain = mender.convert(value, name, depth)
    if mender.replaced:
        places = ", ".join(mender.replaced[:3]) + (", ..." if len(mender.replaced) > 3 else "")
        logger.warning("%s: a lone surrogate, which is no character, is sent as U+FFFD: %s", owner or "a value", places)
    return plain


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


DIGEST_SIZE: int = 16
"""The length of a :func:`fingerprint`, in bytes."""


def fingerprint(value: Any) -> bytes:
    """A digest of plain JSON, to compare values without keeping them. The order of keys does not matter."""
    return hashlib.blake2b(_canonical(value).encode(), digest_size=DIGEST_SIZE).digest()


class _Mender:
    def __init__(self, depth: int) -> None:
        self.replaced: list[str] = []
        self._depth = depth
        self._searched: set[int] = set()  # the values that have no iterator
        self._open: set[int] = set()  # the containers around the present value, to find a value that contains itself

    def convert(self, value: Any, path: str, levels: int) -> Any:
        kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is str:
            return self._text(value, path)
        if value is None or kind is bool:
            return value
        if kind is int:
            if value.bit_length() > _MAX_BITS:
                raise WireError(f"{_short(path)} is an integer with more digits than a JSON reader accepts")
            return value
        if kind is float:
            return _number(value, path)
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            return self._container(value, path, levels)
        if isinstance(value, enum.Enum):
            return self.convert(value.value, path, levels)
        if isinstance(value, str):
            return self._text(str.__str__(value), path)
        return self._other(value, path, levels)

    def _text(self, text: str, path: str) -> str:
        if _SURROGATES.search(text) is None:
            return text
        mended = mended_text(text)
        if "\ufffd" in mended:
            self.replaced.append(_short(path))
        return mended

    def _container(self, value: Any, path: str, levels: int, identity: int = 0) -> Any:
        here = identity or id(value)
        if here in self._open:
            raise WireError(f"{_short(path)} contains itself, which JSON cannot carry")
        if levels == 0:
            raise WireError(f"{_short(path)} is nested deeper than {self._depth} levels, and no reader accepts that")
        self._open.add(here)
        try:
            if isinstance(value, dict):
                items = cast("dict[Any, Any]", value).items()
                return {
                    self._key(key, path): self.convert(item, _below(path, str(key)), levels - 1) for key, item in items
                }
            numbered = enumerate(cast("Iterable[Any]", value))
            return [self.convert(item, f"{path}[{number}]", levels - 1) for number, item in numbered]
        finally:
            self._open.discard(here)

    def _key(self, key: Any, path: str) -> str:
        while isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, str):
            key = str.__str__(key)
        else:
            try:
                plain: dict[str, Any] = pydantic_core.to_jsonable_python(
                    {key: None}, inf_nan_mode="constants", fallback=plain_form
                )
            except (ValueError, TypeError) as error:
                raise WireError(f"{_short(path)} has a key of type {type(key).__name__}: {error}") from error
            (key,) = plain
        return self._text(key, f"a key of {path}" if path else "a key")

    def _other(self, value: Any, path: str, levels: int) -> Any:
        self._refuse_iterators(value, path)
        try:
            plain = pydantic_core.to_jsonable_python(value, inf_nan_mode="constants", fallback=plain_form)
        except (ValueError, TypeError, RecursionError) as error:
            if (fields := _fields(value)) is not None:
                mended = self._container(fields, path, levels, id(value))  # names the field that has no JSON form
                if not hasattr(value, "__pydantic_serializer__"):  # a plain dataclass is written as its fields
                    return mended
            text = f"{_short(path)} has the type {type(value).__name__}, which has no JSON form"
            raise WireError(f"{text}: {_mend(value, error)}") from error
        return self.convert(plain, path, levels)

    def _refuse_iterators(self, value: Any, path: str) -> None:
        """Raise an error for an iterator in a value: its values have been read, so it would become an empty list."""
        if isinstance(value, Iterator):
            what = f"{_short(path)} is an iterator, which can be read only once, and JSON cannot carry a value in it"
            raise WireError(f"{what} or beside it: use a list instead, and the error names the place")
        here = id(value)
        if here in self._searched:
            return
        fields = cast("dict[Any, Any]", value) if isinstance(value, dict) else _fields(value)
        if fields is not None:
            below = [(_below(path, str(key)), item) for key, item in fields.items()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            below = [(f"{path}[{number}]", item) for number, item in enumerate(cast("Iterable[Any]", value))]
        else:
            return
        self._searched.add(here)
        for place, item in below:
            self._refuse_iterators(item, place)


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of a model or of a dataclass. None for any other value."""
    if isinstance(value, BaseModel):
        return dict(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _number(value: float, path: str) -> float:
    if math.isfinite(value):
        return value
    name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    raise WireError(f"{_short(path)} is {name}; JSON has no such number")


def _below(path: str, key: str) -> str:
    if _NAME.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{key!r:.40}]"


def _short(path: str) -> str:
    path = path or "the value"
    return path if len(path) <= _LONGEST_PATH else f"{path[: _LONGEST_PATH - 3]}..."


def _mend(value: Any, error: Exception) -> str:
    """What to do about a value that has no JSON form."""
    if inspect.isawaitable(value):
        return "write 'await' before the call that made it"
    if isinstance(error, pydantic_core.PydanticSerializationError):
        return "use text, numbers, lists, dicts, a dataclass or a pydantic model"
    return str(error)
