"""Input schemas in a form that language models and agent frameworks accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mqtt_agent.wire.references import REFERENCES, References
from mqtt_agent.wire.schemas import Checker

__all__ = ["NO_ARGUMENTS", "fits", "speakable", "takes_null", "without_nulls"]

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_MAX_DEPTH = 40
_MAX_NODES = 2_000
_MAX_VALUES, _MAX_TEXT = 50_000, 300_000
"""How many values, and how many characters, the result has about: more than any card has without references."""
_DROPPED = ("$defs", "definitions", "$schema", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$comment")
_REFERENCE = "$ref"
"""Agent frameworks take each key of this name for a reference, also in a value, or as the name of a property."""
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


def fits(value: Any, schema: Any) -> bool:
    """Whether a value fits a JSON Schema of a peer. Nothing fits a schema that is not valid."""
    try:
        return not Checker("the schema", schema).fault_of(value)
    except ValueError:
        return False


def without_nulls(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without each null that can only mean that an argument is left out, as language models often write.

    Args:
        schema: The input schema of the tool.
        arguments: The arguments as a model gave them.

    Returns:
        The arguments without each null whose property may be left out, and does not take null.
    """
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping) or all(each is not None for each in arguments.values()):
        return dict(arguments)
    known = cast("Mapping[str, Any]", properties)
    needed = cast("list[Any]", required) if isinstance(required, (list, tuple)) else []
    return {
        name: each
        for name, each in arguments.items()
        if each is not None or name not in known or name in needed or takes_null(known[name])
    }


class _Writer:
    """Replaces the references of a schema by the schemas that they name, up to a depth and a size.

    Args:
        root: The schema.
        max_depth: How many levels the result may have.
    """

    def __init__(self, root: Mapping[str, Any], max_depth: int) -> None:
        self._references = References(root)
        self._max_depth = max_depth
        self._left = _MAX_NODES
        self._values_left = _MAX_VALUES
        self._text_left = _MAX_TEXT
        self._plain: dict[int, tuple[bool, int, int]] = {}
        """By the id of a default, an example or listed values: whether it has a reference, its values and its text."""

    def walk(self, node: Any, above: tuple[str, ...]) -> Any:
        """Rewrite a part of the schema. ``above`` has an entry for each level and each reference above this part."""
        if isinstance(node, Mapping):
            return self._object(cast("Mapping[str, Any]", node), above)
        if isinstance(node, list):
            written: list[Any] = []
            for each in cast("list[Any]", node):
                if self._is_full:
                    break
                written.append(self.walk(each, above))
            return written
        self._count(1, len(node) if isinstance(node, str) else 0)
        return node

    @property
    def _is_full(self) -> bool:
        """Whether the rest accepts anything. A part that many references name is written as many times."""
        return self._left < 0 or self._values_left < 0 or self._text_left < 0

    def _count(self, values: int, text: int) -> None:
        self._values_left -= values
        self._text_left -= text

    def _object(self, node: Mapping[str, Any], above: tuple[str, ...]) -> Any:
        self._left -= 1
        if len(above) > self._max_depth or self._is_full:
            return {}
        reference = next((node[key] for key in REFERENCES if isinstance(node.get(key), str)), None)
        if reference is not None:
            return self._referred(node, reference, above)
        walked: dict[str, Any] = {}
        for key, value in node.items():
            if key in _DROPPED or key == _REFERENCE or self._is_full:
                continue
            if key in ("properties", "patternProperties") and isinstance(value, Mapping):
                properties = cast("Mapping[str, Any]", value)
                walked[key] = {
                    name: self._property(name, each, (*above, ""))
                    for name, each in properties.items()
                    if name != _REFERENCE
                }
            elif key == "required" and isinstance(value, list):
                walked[key] = [name for name in self.walk(value, above) if name != _REFERENCE]
            elif key in _PLAIN:
                if self._may_show(value):
                    walked[key] = value
            else:
                walked[key] = self.walk(value, (*above, ""))
        return walked

    def _may_show(self, value: Any) -> bool:
        """Whether a default, an example or listed values can be shown: they have no reference, and there is room."""
        if id(value) not in self._plain:
            self._plain[id(value)] = _weight(value)
        has_reference, values, text = self._plain[id(value)]
        if has_reference or values > self._values_left or text > self._text_left:
            return False
        self._count(values, text)
        return True

    def _referred(self, node: Mapping[str, Any], reference: str, above: tuple[str, ...]) -> Any:
        rest = {key: value for key, value in node.items() if key not in REFERENCES}
        found = self._references.find(reference)
        target: Mapping[str, Any] = cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}
        if reference in above:
            words = {key: value for key, value in rest.items() if key in ("description", "title")}
            for text in words.values():
                self._count(1, len(text) if isinstance(text, str) else 0)
            return {**words, "type": target["type"]} if target.get("type") else words
        return self.walk({**target, **rest}, (*above, reference))

    def _property(self, name: str, node: Any, above: tuple[str, ...]) -> Any:
        self._count(1, len(name))
        if isinstance(node, bool):
            return {} if node else {"not": {}}
        return self.walk(node, above)


def _weight(value: Any) -> tuple[bool, int, int]:
    """Whether a value has the key ``$ref`` at any depth, how many values it consists of, and how much text they are."""
    has_reference, values, text = False, 0, 0
    waiting: list[Any] = [value]
    while waiting:
        node = waiting.pop()
        values += 1
        if isinstance(node, Mapping):
            entries = cast("Mapping[str, Any]", node)
            has_reference = has_reference or _REFERENCE in entries
            text += sum(map(len, entries))
            waiting.extend(entries.values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))
        elif isinstance(node, str):
            text += len(node)
    return has_reference, values, text
