"""Input schemas in a form that language models and agent frameworks accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["NO_ARGUMENTS", "speakable", "takes_null"]

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_MAX_DEPTH = 40
_MAX_NODES = 2_000
_DROPPED = ("$defs", "definitions", "$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment")
_REFERENCE = "$ref"
"""Agent frameworks take each key of this name for a reference, also in a value, or as the name of a property."""
_REFERENCES = (_REFERENCE, "$dynamicRef", "$recursiveRef")
_PLAIN = ("const", "default", "enum", "examples")


def speakable(schema: Mapping[str, Any], *, max_depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """Rewrite a schema in a form that agent frameworks and model providers can read.

    - A schema without ``properties`` gets empty ``properties``, because some frameworks fail without them.
    - ``true`` and ``false`` as schemas of a property are written as objects.
    - Each reference is replaced by the schema that it names. When that schema contains the reference, only the type,
      title and description are kept. Parts that are nested too deep, or make the schema too large, accept anything.
    - A default, an example or a listed value that contains the key ``$ref``, and a property of this name, are left out:
      LangChain and CrewAI would take the key for a reference, and fail or open its address.

    The server checks the arguments against its own schema, never against this one.

    Args:
        schema: The schema.
        max_depth: How many levels the result may have; each reference counts as a level.
    """
    plain = _Writer(schema, max_depth).walk(dict(schema), ())
    if not isinstance(plain.get("properties"), dict):
        plain["properties"] = {}
    plain["type"] = "object"
    return plain


def takes_null(schema: Any) -> bool:
    """Whether null can be a value for a schema, as far as its type, its listed values and its parts tell.

    References are not followed; see :func:`speakable`.
    """
    if not isinstance(schema, Mapping):
        return schema is True
    node = cast("Mapping[str, Any]", schema)
    kinds = node.get("type")
    if kinds is not None and "null" not in ([kinds] if isinstance(kinds, str) else kinds):
        return False
    if "enum" in node and None not in node["enum"]:
        return False
    if node.get("const") is not None:
        return False
    choices, every = node.get("anyOf") or node.get("oneOf"), node.get("allOf")
    if isinstance(choices, list) and not any(map(takes_null, cast("list[Any]", choices))):
        return False
    return not isinstance(every, list) or all(map(takes_null, cast("list[Any]", every)))


class _Writer:
    """Replaces the references of a schema by the schemas that they name, up to a depth and a size.

    Args:
        root: The schema.
        max_depth: How many levels the result may have.
    """

    def __init__(self, root: Mapping[str, Any], max_depth: int) -> None:
        self._root = root
        self._max_depth = max_depth
        self._left = _MAX_NODES

    def walk(self, node: Any, above: tuple[str, ...]) -> Any:
        """Rewrite a part of the schema. ``above`` has an entry for each level and each reference above this part."""
        if isinstance(node, list):
            return [self.walk(each, above) for each in cast("list[Any]", node)]
        return self._object(cast("Mapping[str, Any]", node), above) if isinstance(node, Mapping) else node

    def _object(self, node: Mapping[str, Any], above: tuple[str, ...]) -> Any:
        self._left -= 1
        if len(above) > self._max_depth or self._left < 0:
            return {}
        reference = next((node[key] for key in _REFERENCES if isinstance(node.get(key), str)), None)
        if reference is not None:
            return self._referred(node, reference, above)
        walked: dict[str, Any] = {}
        for key, value in node.items():
            if key in _DROPPED or key == _REFERENCE:
                continue
            if key in ("properties", "patternProperties") and isinstance(value, Mapping):
                properties = cast("Mapping[str, Any]", value)
                walked[key] = {
                    name: self._property(each, (*above, "")) for name, each in properties.items() if name != _REFERENCE
                }
            elif key == "required" and isinstance(value, list):
                walked[key] = [name for name in cast("list[Any]", value) if name != _REFERENCE]
            elif key in _PLAIN:
                if not _has_reference(value):
                    walked[key] = value
            else:
                walked[key] = self.walk(value, (*above, ""))
        return walked

    def _referred(self, node: Mapping[str, Any], reference: str, above: tuple[str, ...]) -> Any:
        rest = {key: value for key, value in node.items() if key not in _REFERENCES}
        found = _find(reference, self._root)
        target: Mapping[str, Any] = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
        if reference in above:
            words = {key: value for key, value in rest.items() if key in ("description", "title")}
            return {**words, "type": target["type"]} if target.get("type") else words
        return self.walk({**target, **rest}, (*above, reference))

    def _property(self, node: Any, above: tuple[str, ...]) -> Any:
        if isinstance(node, bool):
            return {} if node else {"not": {}}
        return self.walk(node, above)


def _has_reference(value: Any) -> bool:
    """Whether a value has the key ``$ref`` at any depth."""
    waiting: list[Any] = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if _REFERENCE in node:
                return True
            waiting.extend(cast("Mapping[str, Any]", node).values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))
    return False


def _find(reference: str, root: Mapping[str, Any]) -> Any:
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return _anchored(reference[1:], root) if reference.startswith("#") else None
    node: Any = root
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and part in node:
            node = cast("Mapping[str, Any]", node)[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(cast("list[Any]", node)):
            node = cast("list[Any]", node)[int(part)]
        else:
            return None
    return node


def _anchored(name: str, root: Mapping[str, Any]) -> Any:
    """The part of a schema that has an anchor of this name."""
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            found = cast("Mapping[str, Any]", node)
            if name in (found.get("$anchor"), found.get("$dynamicAnchor")):
                return found
            waiting.extend(found.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))
    return None
