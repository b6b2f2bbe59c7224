"""The difference between two JSON values makes the second value from the first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_agent.adapting.deltas import changed, difference

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=4)
)


@given(VALUES, VALUES)
def test_a_change_makes_the_new_value_and_survives_a_store(old: Any, new: Any) -> None:
    before = json.dumps(old)
    change = json.loads(json.dumps(difference(old, new)))
    assert json.dumps(changed(old, change), sort_keys=True) == json.dumps(new, sort_keys=True)
    assert json.dumps(old) == before


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, 1.0), ([1], [True]), ({"a": [0]}, {"a": [False]})])
def test_values_that_only_python_takes_for_equal_differ(old: Any, new: Any) -> None:
    assert json.dumps(changed(old, difference(old, new))) == json.dumps(new)


def test_a_list_that_has_grown_costs_its_new_items() -> None:
    messages = [{"content": "x" * 100} for _ in range(100)]
    old = {"agents": {"writer": {"messages": messages}}, "turn": 1}
    new = {"agents": {"writer": {"messages": [*messages, {"content": "y"}]}}, "turn": 2}
    assert len(json.dumps(difference(old, new))) < 200
