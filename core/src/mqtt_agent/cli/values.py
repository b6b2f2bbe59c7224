"""Makes the arguments of a tool from words of the command line, such as ``city=Oslo`` and ``days:=3``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mqtt_agent.cli.settings import UsageError

__all__ = ["arguments_from", "json_from"]


def arguments_from(words: Sequence[str], given: str | None, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call.

    ``name=text`` gives a value of the type that the tool's schema names. ``name=@file`` takes the text from a file.
    ``name:=json`` gives any JSON value. A name that is given several times makes a list.

    Args:
        words: The words of the command line.
        given: Arguments as a JSON object, ``-`` to read the object from the standard input, or ``@file``. The words
            come on top.
        schema: The JSON Schema of the tool's arguments.

    Raises:
        UsageError: A word or the JSON cannot be understood, or a file cannot be read.
    """
    arguments: dict[str, Any] = {}
    if given is not None:
        value = json_from(given, "--arguments")
        if not isinstance(value, dict):
            raise UsageError('--arguments must be a JSON object, such as \'{"city": "Oslo"}\'')
        arguments.update(cast("dict[str, Any]", value))
    several: dict[str, list[Any]] = {}
    for word in words:
        name, value = _one(word, schema)
        several.setdefault(name, []).append(value)
    for name, values in several.items():
        is_list = "array" in _types(_property(schema, name))
        single = len(values) == 1 and (not is_list or isinstance(values[0], list))
        arguments[name] = values[0] if single else values
    return arguments


def json_from(text: str, what: str, more: str = "") -> Any:
    """Read JSON that the user wrote, ``-`` for the standard input, or ``@file`` for a file.

    Args:
        text: What the user wrote.
        what: What the JSON is for.
        more: What to add when it is no JSON.

    Raises:
        UsageError: The text is no JSON, or the file cannot be read.
    """
    if text.startswith("@"):
        text = _text_of(text[1:], what)
    text = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{what} is no JSON: {error}{more}") from error


def _one(word: str, schema: Mapping[str, Any]) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or name in ("", ":"):
        names = list(cast("dict[str, Any]", schema.get("properties") or {}))
        takes = f"; the tool takes {', '.join(names):.300}" if names else ""
        raise UsageError(f"{word!r} is no argument: write name=value, or name:=json for any JSON value{takes}")
    if name.endswith(":"):
        return name[:-1], json_from(text, name[:-1], f"; for a text, write {name[:-1]}={text:.40}")
    if text.startswith("@"):
        text = _text_of(text[1:], name, f"; write {name}:='\"...\"' for a text")
    return name, _converted(text, _types(_property(schema, name)))


def _text_of(name: str, what: str, more: str = "") -> str:
    path = Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{what}: the file {path} cannot be read: {why}{more}") from error


def _converted(text: str, types: set[str]) -> Any:
    """The value that a text means for a JSON Schema type. A text that does not fit stays, and the tool refuses it."""
    if "string" in types:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _property(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    return cast("dict[str, Any]", properties).get(name) if isinstance(properties, dict) else None


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema names, also in ``anyOf`` and ``oneOf``."""
    if not isinstance(schema, dict):
        return set()
    described = cast("dict[str, Any]", schema)
    kind: Any = described.get("type")
    kinds: list[Any] = cast("list[Any]", kind) if isinstance(kind, list) else [kind]
    found: set[str] = {each for each in kinds if isinstance(each, str)}
    for key in ("anyOf", "oneOf"):
        parts: Any = described.get(key)
        if isinstance(parts, list):
            found = found.union(*(_types(each) for each in cast("list[Any]", parts)))
    values: Any = described.get("enum")
    if isinstance(values, list) and any(isinstance(each, str) for each in cast("list[Any]", values)):
        found.add("string")
    return found
