"""The JSON of a peer's answer is found, whatever other text and braces are around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crewai import Task
from crewai_mqtt_agent.answers import read_answer
from mqtt_agent.errors import TaskFailed
from pydantic import BaseModel, Field, RootModel


class Verdict(BaseModel):
    good: bool
    why: str = Field(alias="reason", default="")
    parts: list[dict[str, Any]] = []


class Names(RootModel[list[str]]):
    pass


def read(answer: Any, model: type[BaseModel]) -> Any:
    task = Task(description="d", expected_output="e", output_pydantic=model)
    return model.model_validate_json(read_answer(answer, task, "analyst", "task-1")).model_dump()


@pytest.mark.parametrize(
    "answer",
    [
        'Fill in {topic} first: {"good": true, "reason": "so"}',
        '{"good": true, "reason": "so"} for {topic} and {other}',
        'The set {1, 2} of {x: y}.\n```json\n{"good": true, "reason": "so"}\n```\nEnd {of} it }',
        'In the form {"answer": ...}: {"answer": {"good": true, "reason": "so"}}',
        'For example {"good": "perhaps"}. Mine: {"good": true, "reason": "so"} [1]',
        'First {"good": false}, then in full {"good": true, "reason": "so"}, see [{"a": {}}]',
        'First {"good": false, "reason": "no"}. Final answer: {"good": true, "reason": "so"}',
        '[{"good": true, "reason": "so"}]',
        'if (a) { return "{" }; {"good": true, "reason": "so"}',
    ],
)
def test_the_value_that_fits_the_model_is_taken(answer: str) -> None:
    assert read(answer, Verdict) == {"good": True, "why": "so", "parts": []}


@pytest.mark.parametrize("why", ["a } in it", "use {x}", 'with "quotes" and \\', "two\nlines", "ü {"])
def test_braces_and_lines_within_a_text_belong_to_the_text(why: str) -> None:
    written = json.dumps({"good": True, "reason": why}, ensure_ascii=False).replace("\\n", "\n")
    assert read(f"{{note}} {written} {{end}}", Verdict)["why"] == why


def test_a_nested_value_stays_whole() -> None:
    whole = {"good": True, "reason": "so", "parts": [{"good": False}, {"deep": {"good": [{}]}}]}
    assert read(f"Here {{you}} are: {json.dumps(whole)}", Verdict)["parts"] == whole["parts"]


def test_a_list_is_found_for_a_model_of_a_list() -> None:
    assert read('For {topic} [see 1]: ["Ada", "Bob"] {done}', Names) == ["Ada", "Bob"]


def test_the_keys_that_the_model_does_not_name_stay_in_the_text() -> None:
    task = Task(description="d", expected_output="e", output_pydantic=Verdict)
    given = {"good": True, "reason": "so", "type": "text", "text": "x"}
    for answer in (given, f"So {{it}} is: {json.dumps(given)}"):
        assert json.loads(read_answer(answer, task, "analyst", "task-1")) == given


@pytest.mark.parametrize("answer", ["no JSON {at} all", '{"good": "perhaps"} {x}', "[" * 20_000, '{"good": tru'])
def test_an_answer_without_a_fitting_value_is_a_failure_that_names_the_peer(answer: str) -> None:
    with pytest.raises(TaskFailed, match="the answer of analyst does not fit Verdict: ") as failed:
        read(answer, Verdict)
    if "perhaps" in answer:
        assert "Verdict: good: " in str(failed.value)
