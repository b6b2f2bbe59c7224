"""What the providers of language models refuse in the input schema of a tool, and schemas that fit a provider."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, cast

from mqtt_agent.adapting.schemas import speakable

__all__ = ["Provider", "fitting", "troubles"]

Provider = Literal["openai", "gemini", "anthropic"]
"""A provider of language models, whose rules for the input schemas of tools are known here."""

Schema = dict[str, Any]

_MAX_SIZE = 16_000
"""The largest schema without a warning, in characters. A model reads each schema at each of its turns."""
_DEPTHS = (40, 24, 16, 12, 9, 7, 5)
_COMBINATORS = ("allOf", "anyOf", "oneOf")
_REFUSED_AT_THE_TOP = ("enum", "const", "not", "if", "then", "else", "dependentSchemas", "dependentRequired")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_GEMINI_KEYS = (
    *("title", "description", "nullable", "default", "format", "minItems", "maxItems"),
    *("minLength", "maxLength", "pattern", "minimum", "maximum"),
)
_GEMINI_FORMATS = ("date-time", "int32", "int64", "float", "double")


def troubles(schema: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    """Why a provider may refuse the input schema of a tool, or why the schema is expensive; as texts for a warning.

    Args:
        schema: The schema on the tool's card.
        written: The schema for the model, as :func:`mqtt_agent.adapting.schemas.speakable` returns it.
    """
    found = [
        f"{key} at the top level" for key in (*_COMBINATORS, *_REFUSED_AT_THE_TOP) if schema.get(key) not in (None, [])
    ]
    if any(f'"{key}"' in json.dumps(schema, default=str) for key in ("$dynamicRef", "$recursiveRef")):
        found.append("a $dynamicRef, which is written as an ordinary reference")
    size = len(json.dumps(written, default=str))
    if size > _MAX_SIZE:
        found.append(f"{size / 1000:.0f} kB, with its references written out")
    odd = [name for name in written.get("properties") or () if not _NAME.fullmatch(name)]
    if odd:
        found.append(f"the argument name {odd[0]!r:.80}")
    return found


def fitting(schema: Mapping[str, Any], provider: Provider) -> tuple[Schema, str]:
    """Rewrite the input schema of a tool so that a provider accepts the schema.

    - ``allOf``, ``anyOf`` and ``oneOf`` at the top level become one object with the arguments of all their parts.
    - A schema that is too large loses its deepest levels, which then accept anything.
    - For ``gemini``, what its API does not know is left out or written in another way, at all levels.

    The tool's server checks the arguments against its own schema. So a model that breaks a rule that was left out here
    is told about it, and can correct the call.

    Args:
        schema: The schema on the tool's card.
        provider: The provider of the model.

    Returns:
        The schema, and a text for the tool's description: which arguments belong together. The text may be empty.
    """
    written: Schema = {}
    for depth in _DEPTHS:
        written = speakable(schema, max_depth=depth)
        if len(json.dumps(written, default=str)) <= _MAX_SIZE:
            break
    notes: list[str] = []
    folded = _folded(written, notes)
    for key in _REFUSED_AT_THE_TOP:
        folded.pop(key, None)
    folded["type"] = "object"
    folded.setdefault("properties", {})
    return (_for_gemini(folded) if provider == "gemini" else folded), " ".join(notes)


def _folded(node: Schema, notes: list[str]) -> Schema:
    """One object with the properties of all parts of the combinators of a schema."""
    folded: Schema = {key: value for key, value in node.items() if key not in _COMBINATORS}
    properties, required = dict(_object(node.get("properties"))), _names(node.get("required"))
    for kind in _COMBINATORS:
        parts = [_folded(part, notes) for part in _objects(node.get(kind))]
        for part in parts:
            for name, value in _object(part.get("properties")).items():
                properties[name] = value if name not in properties else _either(properties[name], value)
        always = [set(_names(part.get("required"))) for part in parts]
        if always:
            wanted = always[0].union(*always) if kind == "allOf" else always[0].intersection(*always)
            known = set(required)
            required += [name for name in properties if name in wanted and name not in known]
        if kind != "allOf":
            groups = [", ".join(_names(part.get("required")) or _object(part.get("properties"))) for part in parts]
            if len([group for group in groups if group]) > 1:
                notes.append(f"Give the arguments of one of these groups: {'; '.join(filter(None, groups))}.")
    if properties or "properties" in folded:
        folded["properties"] = properties
    if required:
        folded["required"] = required
    return folded


def _object(value: Any) -> Schema:
    return cast("Schema", value) if isinstance(value, dict) else {}


def _objects(parts: Any) -> list[Schema]:
    listed = cast("list[Any]", parts) if isinstance(parts, list) else []
    return [cast("Schema", part) for part in listed if isinstance(part, dict)]


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    return [name for name in listed if isinstance(name, str)]


def _either(one: Any, other: Any) -> Any:
    if one in (other, {}):
        return one
    before = _object(one)
    choices = _objects(before["anyOf"]) if set(before) == {"anyOf"} else [one]
    return {"anyOf": choices if other in choices else [*choices, other]}


def _for_gemini(node: Any) -> Schema:
    """A schema in the part of OpenAPI that Gemini's API knows."""
    schema = _object(node)
    if "allOf" in schema:
        both = {key: schema[key] for key in ("anyOf", "oneOf") if key in schema}
        schema = {**_folded({key: value for key, value in schema.items() if key not in both}, []), **both}
    kinds = _names(schema.get("type"))
    choices = [*_objects(schema.get("anyOf")), *_objects(schema.get("oneOf"))]
    nullable = "null" in kinds or {"type": "null"} in choices
    kinds = [kind for kind in kinds if kind != "null"]
    choices = [choice for choice in choices if choice != {"type": "null"}]
    if len(kinds) > 1 and not choices:
        choices = [{"type": kind} for kind in kinds]
    fitted: Schema = {key: value for key, value in schema.items() if key in _GEMINI_KEYS}
    if len(choices) == 1:
        fitted = {**fitted, **_for_gemini(choices[0])}
    elif choices:
        fitted["anyOf"] = [_for_gemini(choice) for choice in choices]
    if len(kinds) == 1:
        fitted["type"] = kinds[0]
    if nullable:
        fitted["nullable"] = True
    _fit_values(fitted, schema)
    _fit_parts(fitted, schema)
    return fitted


def _fit_values(fitted: Schema, schema: Schema) -> None:
    """Write the values that a schema allows as Gemini takes them: only texts can be listed."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        listed = [value for value in cast("list[Any]", values) if value is not None]
        texts = [value for value in listed if isinstance(value, str)]
        if texts and len(texts) == len(listed):
            fitted.update(type="string", enum=texts)
        else:
            told = f"One of {json.dumps(listed, default=str)}."
            fitted["description"] = f"{fitted.get('description', '')} {told}".strip()
    if fitted.get("format") not in _GEMINI_FORMATS:
        fitted.pop("format", None)


def _fit_parts(fitted: Schema, schema: Schema) -> None:
    """Write the parts of an array or an object as Gemini takes them: an array names its items."""
    parts = {name: _for_gemini(value) for name, value in _object(schema.get("properties")).items()}
    required = [name for name in _names(schema.get("required")) if name in parts]
    if parts or "properties" in schema:
        fitted["properties"] = parts
    if required:
        fitted["required"] = required
    if fitted.get("type") == "array":
        choices = _objects(schema.get("prefixItems"))
        items = _object(schema.get("items")) or ({"anyOf": choices} if choices else {"type": "string"})
        fitted["items"] = _for_gemini(items)
