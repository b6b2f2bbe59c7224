"""The result message of a task, as its executor stores and sends it."""

from __future__ import annotations

import json

from mqtt_agent.agents.outcome import Ending, result_of
from mqtt_agent.wire import TaskResult, TaskState, encode


def test_a_result_that_needs_no_model_has_the_form_that_the_model_has() -> None:
    for value, to, elapsed_ms, seq, attempt in (
        ({"page": [1, 2.5, None, "\u00e9"]}, "planner", 0.125, 3, 1),
        (None, None, None, None, None),
    ):
        ending = Ending(TaskState.COMPLETED, value)
        made = result_of("t-1", "writer", to, ending, elapsed_ms=elapsed_ms, seq=seq, attempt=attempt)
        model = TaskResult.model_validate(made)
        assert made == json.loads(encode(model))
        assert list(made) == list(json.loads(encode(model)))
        assert (model.sender, model.to, model.status, model.result) == ("writer", to, "completed", value)
        assert (model.elapsed_ms, model.seq, model.attempt) == (elapsed_ms, seq, attempt)
