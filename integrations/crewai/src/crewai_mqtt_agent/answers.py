"""A peer's result becomes the text that CrewAI expects, also when a language model wrote other text around the JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from mqtt_agent.adapting.content import as_text
from mqtt_agent.errors import TaskFailed
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from crewai import Task

__all__ = ["read_answer"]

_OPENING = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder(strict=False)  # language models write line breaks into JSON strings


def read_answer(value: Any, task: Task, peer: str, task_id: str) -> str:
    """Convert a peer's result to text for CrewAI.

    When the task has an output model, the text is JSON that fits the model. The JSON may stand anywhere in the answer,
    also between other braces. If several values fit, the value with the most fields of the model is taken; if several
    have as many, the last of them.

    Raises:
        TaskFailed: The task has an output model, and nothing in the answer fits this model. CrewAI would ask the
            member's language model to correct it, and a remote member has no model.
    """
    text = as_text(value)
    model = task.output_pydantic or task.output_json
    if model is None:
        return text
    try:
        return _fit(text, model)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "/".join(str(part) for part in fault["loc"])
        message = f"the answer of {peer} does not fit {model.__name__}: {where or 'the answer'}: {fault['msg']}"
        raise TaskFailed(message, task_id=task_id, peer=peer, code="unfit_answer") from error


def _fit(text: str, model: type[BaseModel]) -> str:
    """The part of a text that fits a model, as JSON.

    Raises:
        ValidationError: Nothing fits. The error is about the JSON object that has the most fields of the model.
    """
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        fault = error
    else:
        return text
    names, best, most, nearest, position = _field_names(model), None, -1, 0, 0
    while (opening := _OPENING.search(text, position)) is not None:
        position = opening.end()
        try:
            value, end = _DECODER.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        known = len(names.intersection(value)) if isinstance(value, dict) else 0
        written = json.dumps(value, ensure_ascii=False)
        try:
            model.model_validate_json(written)
        except ValidationError as error:
            if known > nearest:
                fault, nearest = error, known
            continue  # perhaps a value within this value fits
        position = end
        if known >= most:
            best, most = written, known
    if best is None:
        raise fault
    return best


def _field_names(model: type[BaseModel]) -> set[str]:
    """The keys by which the model's fields may be given."""
    names = set(model.model_fields)
    for field in model.model_fields.values():
        names |= {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
    return names
