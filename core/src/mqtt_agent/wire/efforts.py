"""How much work it is to check a value against a JSON Schema.

A schema of 1 kB can demand more steps than a computer makes in a year: alternatives that contain alternatives double
the steps at each level. The schema may be a peer's; or the schema is the program's own, with alternatives that contain
themselves, and a peer sends a value with many levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from mqtt_agent.wire.references import REFERENCES, References, objects_in

__all__ = ["Effort", "branches", "is_recursive"]

_MOST_VISITS = 1_000_000
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_OF_NAMES = ("additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("items", "contains", "additionalItems", "unevaluatedItems")
_ENDLESS = 10**18


class _TooMuch(Exception):
    """The steps are not counted further."""


class Effort:
    """Counts the steps of a check that looks at each alternative, and remembers nothing.

    Args:
        schema: The JSON Schema.
        discriminated: Whether the check looks only at the alternative that OpenAPI's ``discriminator`` names, as
            pydantic does.
        most: How many parts of values are looked at. With more of them, the steps count as endless.
    """

    def __init__(self, schema: Mapping[str, Any], *, discriminated: bool = False, most: int = _MOST_VISITS) -> None:
        self._schema = schema
        self._references = References(schema)
        self._discriminated = discriminated
        self._most = most
        self._steps: dict[tuple[int, int], int] = {}
        self._visits = 0

    def of(self, value: Any) -> int:
        """The steps for a value.

        A schema with a name of its own within it (``$id``), or with a reference to something outside itself, counts as
        endless.
        """
        self._steps, self._visits = {}, 0
        try:
            return self._count(self._schema, value)
        except (_TooMuch, RecursionError):
            return _ENDLESS

    def is_out_of_proportion(self, value: Any, steps: int) -> bool:
        """Whether a check needs more than a number of steps because steps are repeated, and not because of its size."""
        counted = self.of(value)
        return counted > steps and counted > 10 * self._visits

    def _count(self, node: Any, value: Any) -> int:
        self._visits += 1
        if not isinstance(node, Mapping):
            return 1
        schema = cast("Mapping[str, Any]", node)
        place = (id(schema), id(value))
        known = self._steps.get(place)
        if known is not None:
            return known
        if self._visits > self._most or ("$id" in schema and schema is not self._schema):
            raise _TooMuch
        self._steps[place] = steps = 1  # for a part that contains itself at the same place
        for part in self._parts_here(schema, value):
            steps += self._count(part, value)
        if isinstance(value, dict):
            for part, each in _parts_of_object(schema, cast("dict[str, Any]", value)):
                steps += self._count(part, each)
        elif isinstance(value, list):
            for part, each in _parts_of_list(schema, cast("list[Any]", value)):
                steps += self._count(part, each)
        self._steps[place] = steps
        return steps

    def _parts_here(self, schema: Mapping[str, Any], value: Any) -> list[Any]:
        """The parts of a schema that are checked against the same value."""
        parts: list[Any] = []
        for key in REFERENCES:
            reference = schema.get(key)
            if isinstance(reference, str):
                found = self._references.find(reference)
                if found is None:
                    raise _TooMuch
                parts.append(found)
        for key in _LISTS:
            listed = schema.get(key)
            if isinstance(listed, list):
                parts += self._named_by(schema, value) or cast("list[Any]", listed)
        parts += [schema[key] for key in _SINGLE if key in schema]
        dependent = schema.get("dependentSchemas", schema.get("dependencies"))
        if isinstance(dependent, Mapping):
            parts += cast("Mapping[str, Any]", dependent).values()
        return parts

    def _named_by(self, schema: Mapping[str, Any], value: Any) -> list[Any]:
        """The one alternative that the discriminator names for a value; empty when there is none."""
        told = schema.get("discriminator")
        if not self._discriminated or not isinstance(told, Mapping) or not isinstance(value, dict):
            return []
        about = cast("Mapping[str, Any]", told)
        name, mapping = cast("dict[str, Any]", value).get(about.get("propertyName", "")), about.get("mapping")
        if not isinstance(name, str) or not isinstance(mapping, Mapping):
            return [True]  # the discriminator is missing: no alternative is looked at
        reference = cast("Mapping[str, Any]", mapping).get(name)
        return [self._references.find(reference) if isinstance(reference, str) else True]


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether a schema contains itself, so that values with many levels fit it."""
    reach = _reach(schema)
    return any(target in further for target, further in reach.items())


def branches(schema: Mapping[str, Any]) -> bool:
    """Whether alternatives for one kind of value contain the same alternatives again, without a discriminator."""
    references, reach = References(schema), _reach(schema)
    for target in (target for target, further in reach.items() if target in further):
        for node in objects_in(references.find(target)):
            for key in ("anyOf", "oneOf"):
                listed = node.get(key)
                if "discriminator" in node or not isinstance(listed, list):
                    continue
                back = [each for each in cast("list[Any]", listed) if _leads_to(each, target, reach)]
                kinds = [_kind_of(each, references) for each in back]
                if any(sum(each in (kind, None) for each in kinds) > 1 for kind in ("object", "array")):
                    return True
    return False


def _reach(schema: Mapping[str, Any]) -> dict[str, set[str]]:
    """What is referred to, and all that is referred to from there."""
    references = References(schema)
    reach = {each: _referred_in(references.find(each)) for each in _referred_in(schema)}
    changed = True
    while changed:
        changed = False
        for further in reach.values():
            more = {each for target in further for each in reach.get(target, ())} - further
            if more:
                further |= more
                changed = True
    return reach


def _referred_in(node: Any) -> set[str]:
    found = (each.get(key) for each in objects_in(node) for key in REFERENCES)
    return {each for each in found if isinstance(each, str)}


def _leads_to(node: Any, target: str, reach: dict[str, set[str]]) -> bool:
    return any(each == target or target in reach.get(each, ()) for each in _referred_in(node))


def _kind_of(node: Any, references: References) -> str | None:
    """The type of the values that a schema is for; None for several types."""
    schema: Any = node
    reference = _get(schema, "$ref")
    if isinstance(reference, str):
        schema = references.find(reference)
    kind = _get(schema, "type")
    return kind if isinstance(kind, str) else None


def _get(node: Any, key: str) -> Any:
    return cast("Mapping[str, Any]", node).get(key) if isinstance(node, Mapping) else None


def _parts_of_object(schema: Mapping[str, Any], value: dict[str, Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    named: Any = schema.get("properties")
    named = cast("Mapping[str, Any]", named) if isinstance(named, Mapping) else {}
    found += [(part, value[name]) for name, part in named.items() if name in value]
    patterns = schema.get("patternProperties")
    if isinstance(patterns, Mapping):
        found += [(part, each) for part in cast("Mapping[str, Any]", patterns).values() for each in value.values()]
    for key in _OF_NAMES:
        if isinstance(schema.get(key), Mapping):
            found += [(schema[key], each) for name, each in value.items() if name not in named]
    if isinstance(schema.get("propertyNames"), Mapping):
        found += [(schema["propertyNames"], name) for name in value]
    return found


def _parts_of_list(schema: Mapping[str, Any], value: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    for key in ("prefixItems", "items"):
        if isinstance(schema.get(key), list):
            found += zip(schema[key], value, strict=False)
    for key in _OF_ITEMS:
        if isinstance(schema.get(key), Mapping):
            found += [(schema[key], each) for each in value]
    return found
