"""Input schemas as language models and LangChain take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NO_ARGUMENTS", "speakable"]

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_MAX_DEPTH = 40


def speakable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema in a form that LangChain and the model providers can read.

    - Without ``properties``, LangChain's ``.args`` fails, and so do some providers: there are none, then.
    - ``true`` and ``false`` as schemas of a property are written as objects.
    - A reference to the schema itself, or one so deep that nobody can write it out, becomes "anything".

    What the arguments must be is checked by the server against its own schema, never against this one.
    """
    plain = _walk(dict(schema), schema, ())
    if not isinstance(plain.get("properties"), dict):
        plain["properties"] = {}
    plain["type"] = "object"
    return plain


def _walk(node: Any, root: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if len(above) > _MAX_DEPTH:
        return {}
    if isinstance(node, list):
        return [_walk(each, root, above) for each in node]
    if not isinstance(node, Mapping):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in above:
            rest = {key: value for key, value in node.items() if key in ("description", "title")}
            return {**rest, "type": "object"} if reference == "#" or reference.startswith("#/") else rest
        target = _find(reference, root)
        rest = {key: value for key, value in node.items() if key != "$ref"}
        if not isinstance(target, Mapping):
            return _walk(rest, root, above)
        return _walk({**target, **rest}, root, (*above, reference))
    walked: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("$defs", "definitions", "$schema", "$id", "$anchor"):
            continue
        if key in ("properties", "patternProperties") and isinstance(value, Mapping):
            walked[key] = {name: _schema(each, root, (*above, "")) for name, each in value.items()}
        elif key in ("const", "default", "enum", "examples", "required"):
            walked[key] = value
        else:
            walked[key] = _walk(value, root, (*above, ""))
    return walked


def _schema(node: Any, root: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, bool):
        return {} if node else {"not": {}}
    return _walk(node, root, above)


def _find(reference: str, root: Mapping[str, Any]) -> Any:
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    node: Any = root
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node
