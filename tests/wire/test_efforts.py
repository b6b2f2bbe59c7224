"""No schema and no value of a peer makes a check, or the reading of a schema, last for ever.

Each schema here is small enough that the test ends also without the limits, and tells that they are missing.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from mqtt_agent.adapting.schemas import speakable
from mqtt_agent.agents.executing.questions import fault_of
from mqtt_agent.errors import InvalidArguments
from mqtt_agent.tools.serving.arguments import ArgumentsChecker
from mqtt_agent.wire import references
from mqtt_agent.wire.efforts import Effort, branches, is_recursive
from mqtt_agent.wire.schemas import Checker
from pydantic import BaseModel, Field


class Num(BaseModel):
    kind: Literal["num"]
    value: float


class Add(BaseModel):
    kind: Literal["add"]
    left: Told
    right: Told


class Mul(BaseModel):
    kind: Literal["mul"]
    left: Told
    right: Told


Told = Annotated[Num | Add | Mul, Field(discriminator="kind")]
for each in (Add, Mul):
    each.model_rebuild()


class Leaf(BaseModel):
    value: float


class Left(BaseModel):
    within: Leaf | Left | Right


class Right(BaseModel):
    within: Leaf | Left | Right
    by: str = ""


class Box(BaseModel):
    within: list[Box] | dict[str, Box] | int


def doubling(levels: int) -> dict[str, Any]:
    """A schema whose alternatives contain the same alternatives twice at each level."""
    both = [[{"$ref": f"#/$defs/l{level + 1}"}] * 2 for level in range(levels)]
    parts: dict[str, Any] = {f"l{level}": {"anyOf": each} for level, each in enumerate(both)}
    return {"$ref": "#/$defs/l0", "$defs": {**parts, f"l{levels}": {"const": "nothing fits"}}}


def sums(levels: int, leaf: dict[str, Any]) -> dict[str, Any]:
    value = leaf
    for _ in range(levels):
        value = {"kind": "add", "left": value, "right": {"kind": "num", "value": 1}}
    return {"expression": value}


def checker(function: Callable[..., Any]) -> ArgumentsChecker:
    return ArgumentsChecker("calculate", list(inspect.signature(function, eval_str=True).parameters.values()), None)


def calculate(expression: Told) -> None: ...


def find(expression: Leaf | Left | Right) -> None: ...


def store(expression: Box) -> None: ...


def test_a_wrong_value_many_levels_deep_is_found_without_the_faults_of_all_alternatives() -> None:
    checks = checker(calculate)
    assert checks.check(sums(40, {"kind": "num", "value": 2}), 1000)
    with pytest.raises(InvalidArguments) as few:
        checks.check(sums(2, {"kind": "num"}), 1000)
    assert "value' is missing" in str(few.value)
    with pytest.raises(InvalidArguments) as many:
        checks.check(sums(9, {"kind": "num"}), 1000)
    assert str(many.value).endswith("left.num.value' is missing")


def test_a_wrong_value_many_levels_deep_is_refused_also_where_nothing_finds_it() -> None:
    schema = {"properties": {"expression": checker(calculate).schema["properties"]["expression"]}}
    schema["$defs"] = checker(calculate).schema["$defs"]
    checks = Checker("the schema", schema)
    assert not checks.fits(sums(9, {"kind": "num"}))
    assert "too many levels with alternatives" in checks.faults(sums(9, {"kind": "num"}), everything=True)[0][1]


def test_arguments_that_would_double_the_work_at_each_level_are_refused() -> None:
    value: Any = {"value": 1}
    checks = checker(find)
    for level in range(16):
        value = {"within": value}
        if level < 8:
            assert checks.check({"expression": value}, 1000)
    with pytest.raises(InvalidArguments, match="too many levels.*discriminator"):
        checks.check({"expression": value}, 1000)


def test_values_that_only_have_many_levels_are_checked() -> None:
    value: Any = {"within": 1}
    for level in range(60):
        value = {"within": [value] if level % 2 else {"box": value}}
    assert checker(store).check({"expression": value}, 10_000)


def test_what_is_known_of_a_schema() -> None:
    assert [is_recursive(checker(each).schema) for each in (calculate, find, store)] == [True] * 3
    assert [branches(checker(each).schema) for each in (calculate, find, store)] == [False, True, False]
    assert not is_recursive(doubling(9))
    assert Effort(doubling(60)).of(1) > 2**60
    assert Effort({"$ref": "#/$defs/missing"}).of(1) > 2**50  # what is not seen may be anything
    assert Effort({"$ref": "#"}).of(1) < 5


def test_the_answer_to_a_question_of_a_peer_is_not_checked_against_a_schema_without_end() -> None:
    assert fault_of(1, doubling(4)) not in (None, "")
    assert "cannot be checked" in (fault_of(1, doubling(17)) or "")
    assert fault_of({"a": 1}, {"type": "object", "properties": {"a": {"type": "integer"}}}) is None
    assert "must be a whole number" in (fault_of({"a": "1"}, {"properties": {"a": {"type": "integer"}}}) or "")
    assert fault_of([1] * 30_000, {"items": {"type": "integer"}}) is None


@pytest.mark.parametrize("part", [{"default": [0] * 3000}, {"description": "x" * 9000}, {"required": ["x" * 9] * 1000}])
def test_a_part_that_many_references_name_makes_no_schema_of_megabytes(part: dict[str, Any]) -> None:
    many = {f"p{number}": {"$ref": "#/$defs/part"} for number in range(500)}
    written = speakable({"properties": many, "$defs": {"part": {"type": "string", **part}}})
    assert len(json.dumps(written)) < 500_000
    assert set(written["properties"]) == set(many)
    assert written["properties"]["p0"] == {"type": "string", **part}


def test_thousands_of_references_to_nothing_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    all_objects = references.objects_in
    monkeypatch.setattr(references, "objects_in", lambda value: looked.append(value) or all_objects(value))  # pyright: ignore
    speakable({"properties": {f"p{number}": {"$ref": f"#n{number}"} for number in range(500)}})
    assert len(looked) == 1
