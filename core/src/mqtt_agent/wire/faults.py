"""Says in plain words what is wrong with a value that does not fit a JSON Schema: to people, and to language models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple, cast

import jsonschema_rs

from mqtt_agent.display.suggestions import counted, did_you_mean
from mqtt_agent.errors import InvalidArguments
from mqtt_agent.wire.references import References

__all__ = ["Fault", "faults_in", "invalid_arguments", "pydantic_fault", "shown"]

_SHOWN = 60
"""How many characters of a wrong value are shown."""
_MAX_FAULTS = 20
"""How many faults an error lists at most."""
_LISTED = 20
"""How many names or allowed values are listed."""
_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_ALTERNATIVES = {"AnyOf", "OneOfNotValid", "OneOfMultipleValid"}


class Fault(NamedTuple):
    """What is wrong at one place of a value.

    Attributes:
        path: The steps from the whole value to the place: the names of fields, and the numbers of items.
        message: What is wrong there, to be read after the name of the place: ``must be a whole number, not 2.5``.
    """

    path: list[str | int]
    message: str

    @property
    def pointer(self) -> str:
        """The path as one text, such as ``/rows/0/price``."""
        return "/" + "/".join(map(str, self.path))

    def told(self, each: str = "argument", whole: str = "the arguments") -> str:
        """A sentence, such as ``argument 'rows[0].price' must be a number, not the text "x"``.

        Args:
            each: What stands before the name of the place.
            whole: What the whole value is called.
        """
        if not self.path:
            return f"{whole} {self.message}"
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"{each} '{''.join(steps).removeprefix('.'):.200}' {self.message}"


def faults_in(error: jsonschema_rs.ValidationError, schema: Any = None) -> list[Fault]:
    """The faults of a value.

    Of several alternatives, such as an object or null, the closest one counts: without this choice, the error would
    only say that the value fits none of them.

    Args:
        error: What the validator found.
        schema: The whole schema. With it, the fault of an unknown name lists the names that are known.
    """
    path, branches = list(error.instance_path), _branches(error)
    if branches is None:
        return _plain(error, path, schema)
    of_this_type = [each for each in branches if not any(_is_of_another_type(one, path) for one in each)]
    tagged = [each for each in of_this_type if not any(_is_of_another_kind(one) for one in each)]
    for close in (tagged, of_this_type):
        if len(close) == 1 and close[0]:
            return [fault for one in close[0] for fault in faults_in(one, schema)]
    if not of_this_type:
        types = [each for branch in branches for one in branch for each in _types(one, path)]
        return [Fault(path, f"must be {_either(types)}, not {shown(error.instance)}")]
    if not tagged:
        return _other_kinds([one for each in of_this_type for one in each if _is_of_another_kind(one)])
    if _kind(error) == "OneOfMultipleValid":
        return [Fault(path, "fits several of the allowed forms, and must fit exactly one")]
    reasons = dict.fromkeys(
        fault.message for branch in of_this_type for one in branch for fault in faults_in(one, schema)
    )
    return [Fault(path, f"fits none of the allowed forms: {'; or '.join(reasons)}")]


def pydantic_fault(detail: Mapping[str, Any]) -> Fault:
    """The fault that one entry of the ``errors()`` of a pydantic error describes."""
    said, path = str(detail.get("msg", "")), list(detail.get("loc", ()))
    kind = str(detail.get("type"))
    if kind.rpartition(".")[2] == "missing":
        return Fault(path, "is missing")
    if kind == "extra_forbidden":
        return Fault(path, "does not exist")
    for start, better in (("Input should be ", "must be "), ("Value error, ", "does not fit: ")):
        if said.startswith(start):
            said = better + said[len(start) :]
            break
    else:
        said = f"does not fit: {said}"
    return Fault(path, f"{said:.400}" + (f" (given: {shown(detail['input'])})" if "input" in detail else ""))


def invalid_arguments(tool: str, faults: Iterable[Fault], text: str | None = None) -> InvalidArguments:
    """The error for arguments that do not fit.

    Args:
        tool: The tool's name.
        faults: What is wrong; at most 20 faults are told.
        text: What to tell in place of the faults.
    """
    told = [Fault(each.path, each.message[:500]) for each in islice(faults, _MAX_FAULTS)]
    data = [{"path": each.pointer, "message": each.message} for each in told]
    return InvalidArguments("; ".join(each.told() for each in told) if text is None else text, tool=tool, data=data)


def shown(value: Any) -> str:
    """A wrong value, so short that it can be in a message, with its type where the type may be in doubt."""
    if isinstance(value, str):
        return f"the text {json.dumps(value[:_SHOWN], ensure_ascii=False)}{'…' if len(value) > _SHOWN else ''}"
    if value is None or isinstance(value, (bool, int, float)):
        return f"{json.dumps(value):.{_SHOWN}}"
    return "a list" if isinstance(value, (list, tuple)) else "an object"


# Alternatives


def _branches(error: jsonschema_rs.ValidationError) -> list[list[jsonschema_rs.ValidationError]] | None:
    return getattr(error.kind, "context", None) if _kind(error) in _ALTERNATIVES else None


def _kind(error: jsonschema_rs.ValidationError) -> str:
    return type(error.kind).__name__.rpartition("_")[2]  # earlier versions write ValidationErrorKind_ before it


def _is_of_another_type(error: jsonschema_rs.ValidationError, path: list[Any]) -> bool:
    return bool(_types(error, path))


def _types(error: jsonschema_rs.ValidationError, path: list[Any]) -> list[str]:
    """The types of which a value is not; empty when something else is wrong, or another value."""
    kind: Any = error.kind
    return list(kind.types) if _kind(error) == "Type" and list(error.instance_path) == path else []


def _is_of_another_kind(error: jsonschema_rs.ValidationError) -> bool:
    """Whether a constant differs, which in a union of objects usually says which object is meant."""
    return _kind(error) in ("Constant", "Enum")


def _other_kinds(errors: list[jsonschema_rs.ValidationError]) -> list[Fault]:
    """One fault for each place, with the values that all alternatives allow there."""
    allowed: dict[tuple[str | int, ...], list[Any]] = {}
    given: dict[tuple[str | int, ...], Any] = {}
    for error in errors:
        kind: Any = error.kind
        place = tuple(error.instance_path)
        given[place] = error.instance
        allowed.setdefault(place, []).extend(kind.options if _kind(error) == "Enum" else [kind.expected_value])
    return [Fault(list(place), _one_of(options, given[place])) for place, options in allowed.items()]


# One fault


def _plain(error: jsonschema_rs.ValidationError, path: list[str | int], schema: Any) -> list[Fault]:
    kind: Any = error.kind
    name = _kind(error)
    if name == "Required":
        return [Fault([*path, str(kind.property)], "is missing")]
    if name in ("AdditionalProperties", "UnevaluatedProperties"):
        known = _known(schema, error.schema_path)
        return [Fault([*path, each], _unknown(each, known)) for each in kind.unexpected]
    if name in _ALTERNATIVES:  # earlier versions of the validator do not say why
        return [Fault(path, f"fits none of the allowed forms, or several of them: {shown(error.instance)}")]
    say = _SAY.get(name)
    return [Fault(path, f"does not fit: {error.message}" if say is None else say(kind, error.instance))]


def _either(types: Iterable[str]) -> str:
    words = list(dict.fromkeys(_WORDS.get(each, each) for each in types))
    if "a number" in words and "a whole number" in words:
        words.remove("a whole number")
    return " or ".join(words)


def _one_of(options: Iterable[Any], value: Any) -> str:
    listed = [json.dumps(each, ensure_ascii=False) for each in options]
    more = f" (and {counted(len(listed) - _LISTED, 'other')})" if len(listed) > _LISTED else ""
    names = f"{', '.join(listed[:_LISTED]):.400}{more}"
    return f"must be {'one of ' if len(listed) > 1 else ''}{names}, not {shown(value)}"


def _unknown(name: str, known: list[str] | None) -> str:
    if known is None:
        return "does not exist"
    meant = did_you_mean(name, known)
    if meant or not known:
        return f"does not exist{meant}"
    return f"does not exist; there are {', '.join(map(repr, known[:_LISTED])):.400}"


def _known(schema: Any, steps: list[str | int]) -> list[str] | None:
    """The names of the properties beside the keyword that refused a name; None when they cannot be found."""
    node: Any = schema
    references = References(cast("dict[str, Any]", schema)) if isinstance(schema, dict) else None
    for step in steps[:-1]:
        node = _child(node, step)
        if step == "$ref":
            node = references.find(node) if references is not None and isinstance(node, str) else None
    properties = _child(node, "properties")
    return list(cast("dict[str, Any]", properties)) if isinstance(properties, dict) else None


def _child(node: Any, step: str | int) -> Any:
    if isinstance(node, dict):
        return cast("dict[Any, Any]", node).get(step)
    if isinstance(node, list) and isinstance(step, int):
        items = cast("list[Any]", node)
        return items[step] if step < len(items) else None
    return None


def _size(many: str, few: str) -> Callable[[Any, Any], str]:
    """What is said about a text, a list or an object that is too long or too short."""
    return lambda kind, value: f"must have {few} {kind.limit:,} {many}, and has {len(value):,}"


def _limit(words: str) -> Callable[[Any, Any], str]:
    return lambda kind, value: f"must be {words} {kind.limit}, not {shown(value)}"


_SAY: dict[str, Callable[[Any, Any], str]] = {
    "Type": lambda kind, value: f"must be {_either(kind.types)}, not {shown(value)}",
    "Enum": lambda kind, value: _one_of(kind.options, value),
    "Constant": lambda kind, value: _one_of([kind.expected_value], value),
    "Minimum": _limit("at least"),
    "Maximum": _limit("at most"),
    "ExclusiveMinimum": _limit("more than"),
    "ExclusiveMaximum": _limit("less than"),
    "MultipleOf": lambda kind, value: f"must be a multiple of {kind.multiple_of}, not {shown(value)}",
    "MinLength": _size("characters", "at least"),
    "MaxLength": _size("characters", "at most"),
    "MinItems": _size("items", "at least"),
    "MaxItems": _size("items", "at most"),
    "MinProperties": _size("fields", "at least"),
    "MaxProperties": _size("fields", "at most"),
    "UniqueItems": lambda kind, value: "must not have the same item twice",
    "Contains": lambda kind, value: "has no item of the kind that it must have",
    "Pattern": lambda kind, value: f"must match the pattern {kind.pattern:.200}, and {shown(value)} does not",
    "Format": lambda kind, value: f"must have the format {kind.format}, and {shown(value)} does not",
    "FalseSchema": lambda kind, value: "is not allowed",
    "Not": lambda kind, value: f"must not be {shown(value)}",
    "PropertyNames": lambda kind, value: (
        f"has a field with a name that is not allowed: {shown(kind.error.instance)} {faults_in(kind.error)[0].message}"
    ),
}
