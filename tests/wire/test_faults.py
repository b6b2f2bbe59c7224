"""What is wrong with a value is said in plain words: which argument, what was given, what is expected."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from mqtt_agent.wire.faults import faults_in, pydantic_fault, shown
from mqtt_agent.wire.schemas import schema_validator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "row": {
            "type": "object",
            "properties": {"price": {"type": "number"}},
            "required": ["price"],
            "additionalProperties": False,
        }
    },
    "properties": {
        "city": {"type": "string", "minLength": 2, "pattern": "^[A-Z]"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "version": {"const": 2},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}, "maxItems": 2, "uniqueItems": True},
        "either": {"anyOf": [{"type": "integer"}, {"type": "array"}, {"type": "null"}]},
        "step": {"multipleOf": 5},
        "above": {"exclusiveMinimum": 0},
        "never": False,
        "short": {"propertyNames": {"maxLength": 2}},
        "one": {"oneOf": [{"minimum": 1}, {"minimum": 2}]},
        "not": {"not": {"type": "string"}},
        "has": {"contains": {"type": "integer"}},
    },
    "additionalProperties": False,
}


def told(value: Any) -> list[str]:
    errors = schema_validator("the schema", SCHEMA).iter_errors(value)
    return [fault.told() for error in errors for fault in faults_in(error, SCHEMA)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"days": "two"}, "argument 'days' must be a whole number, not the text \"two\""),
        ({"days": 2.5}, "argument 'days' must be a whole number, not 2.5"),
        ({"days": 0}, "argument 'days' must be at least 1, not 0"),
        ({"days": 8}, "argument 'days' must be at most 7, not 8"),
        ({"above": 0}, "argument 'above' must be more than 0, not 0"),
        ({"city": "O"}, "argument 'city' must have at least 2 characters, and has 1"),
        ({"city": "oslo"}, "argument 'city' must match the pattern ^[A-Z], and the text \"oslo\" does not"),
        ({"unit": "K"}, 'argument \'unit\' must be one of "C", "F", not the text "K"'),
        ({"version": 1}, "argument 'version' must be 2, not 1"),
        ({"rows": [{"price": 1}, {}]}, "argument 'rows[1].price' is missing"),
        ({"rows": [{"price": "1"}]}, "argument 'rows[0].price' must be a number, not the text \"1\""),
        ({"rows": [{"price": 1, "prise": 1}]}, "argument 'rows[0].prise' does not exist; did you mean 'price'?"),
        ({"rows": [{"price": 1}, {"price": 2}, {"price": 3}]}, "argument 'rows' must have at most 2 items, and has 3"),
        ({"rows": [{"price": 1}, {"price": 1}]}, "argument 'rows' must not have the same item twice"),
        ({"either": "x"}, "argument 'either' must be a whole number or a list or null, not the text \"x\""),
        ({"step": 3}, "argument 'step' must be a multiple of 5, not 3"),
        ({"never": 3}, "argument 'never' is not allowed"),
        ({"has": ["x"]}, "argument 'has' has no item of the kind that it must have"),
        ({"not": "x"}, "argument 'not' must not be the text \"x\""),
        ({"one": 3}, "argument 'one' fits several of the allowed forms, and must fit exactly one"),
        (
            {"short": {"long": 1}},
            "argument 'short' has a field with a name that is not allowed: the text \"long\" must have at most 2 "
            "characters, and has 4",
        ),
        ([1], "the arguments must be an object, not a list"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_plain_words(value: Any, expected: str) -> None:
    assert told(value) == [expected]


def test_an_unknown_name_that_is_like_no_other_gets_the_list_of_names() -> None:
    [said] = told({"xyzzy": 1})
    assert said.startswith("argument 'xyzzy' does not exist; there are 'city', 'days', 'unit'")


def test_a_long_value_is_shown_by_its_beginning() -> None:
    assert shown("x" * 3_000_000) == f'the text "{"x" * 60}"…'
    assert [shown(each) for each in (None, True, [1], {})] == ["null", "true", "a list", "an object"]


def test_no_kind_of_error_of_the_validator_is_told_in_the_terms_of_json_schema() -> None:
    for fault in told({"days": "x", "unit": 3, "never": 1, "either": {}, "one": 0, "rows": [{"q": 1}]}):
        assert not {"schema", "property", "under"} & set(fault.split())


def test_what_pydantic_says_is_told_in_the_same_form() -> None:
    missing = pydantic_fault({"type": "missing", "loc": ("a", 0), "msg": "Field required"})
    assert missing.told() == "argument 'a[0]' is missing"
    when = pydantic_fault({"type": "x", "loc": ("when",), "msg": "Input should be a valid date", "input": "now"})
    assert when.told() == "argument 'when' must be a valid date (given: the text \"now\")"
    even = pydantic_fault({"type": "value_error", "loc": ("n",), "msg": "Value error, n must be even", "input": 3})
    assert even.told() == "argument 'n' does not fit: n must be even (given: 3)"


def test_an_unknown_keyword_of_a_newer_validator_is_told_in_its_own_words() -> None:
    [error] = jsonschema_rs.validator_for({"dependentSchemas": {"a": False}}).iter_errors({"a": 1})
    assert faults_in(error)[0].message
