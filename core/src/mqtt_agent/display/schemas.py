"""The arguments of a tool's JSON Schema, in words for people."""

from __future__ import annotations

import itertools
from typing import Any, cast

__all__ = ["arguments"]

_MOST_ARGUMENTS = 30


def arguments(schema: Any) -> list[tuple[str, str, bool, str]]:
    """Describe the arguments that a JSON Schema names.

    Args:
        schema: A schema from the network, which may be any JSON value.

    Returns:
        For each argument its name, its type in words, whether it is required, and its description with the default. At
        most 30 arguments.
    """
    schema = _mapping(schema)
    required: Any = schema.get("required")
    found: list[tuple[str, str, bool, str]] = []
    for name, each in itertools.islice(_mapping(schema.get("properties")).items(), _MOST_ARGUMENTS):
        must = isinstance(required, list) and name in required
        described = _mapping(each)
        default = f"default {described['default']!r}" if "default" in described else ""
        words = [str(word) for word in (described.get("description"), default) if word]
        found.append((name, _type(described), must, "; ".join(words)))
    return found


def _type(schema: dict[str, Any], depth: int = 0) -> str:
    kind: Any = schema.get("type")
    if isinstance(schema.get("enum"), list):
        return " | ".join(repr(each) for each in schema["enum"][:10])
    if isinstance(kind, str):
        items = _mapping(schema.get("items"))
        return f"{kind} of {_type(items, depth + 1)}" if kind == "array" and items and depth < 3 else kind
    if isinstance(kind, list):
        return " | ".join(str(each) for each in cast("list[object]", kind))
    if isinstance(schema.get("anyOf"), list) and depth < 3:
        return " | ".join(_type(_mapping(each), depth + 1) for each in schema["anyOf"][:10])
    return str(schema["$ref"]).rsplit("/", 1)[-1] if "$ref" in schema else "any"


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
