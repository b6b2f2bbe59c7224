"""What a tool asks its caller in the middle of a call, and the caller's answer, in the form of MCP's elicitation."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import BaseModel

__all__ = ["ELICITATION", "CallQuestion", "Elicited", "as_object", "elicitation", "read_answer"]

ELICITATION: str = "elicitation/create"
"""MCP's method that asks a person."""

_ALONE = "answer"
"""The property of the form when the question has one answer that is no form."""


@dataclass(frozen=True)
class Elicited:
    """How a person has reacted to a question.

    Attributes:
        action: ``accept``: the person has answered. ``decline``: the person refuses. ``cancel``: the person has made no
            choice, for example closed the window.
        content: The answer, by the names of the properties in the question's schema. Only with ``accept``.
    """

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, Any] | None = None

    def to_result(self) -> dict[str, Any]:
        """The result of MCP's method ``elicitation/create``."""
        return {"action": self.action} | ({} if self.content is None else {"content": self.content})


@dataclass(frozen=True)
class CallQuestion:
    """A question that a tool asks its caller in the middle of a call.

    Attributes:
        call_id: The id of the call.
        tool: The tool's name.
        number: 1 for the first question of the call. A question that is asked again keeps its number.
        method: What is asked for, as a method of MCP. ``elicitation/create`` asks a person.
        params: The parameters of this method.
    """

    call_id: str
    tool: str
    number: int = 1
    method: str = ELICITATION
    params: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())

    @property
    def prompt(self) -> str:
        """The question, for a person to read."""
        return str(self.params.get("message", ""))

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the answer; None when the question has none."""
        form = _form_of(self.params)
        alone = None if form is None else _alone_in(form)
        return form if alone is None else alone

    def result_of(self, answer: Any) -> Any:
        """The result of the method.

        Args:
            answer: What the caller's function has returned: an :class:`Elicited`, None for a person who declines, or
                the answer itself. For a method other than ``elicitation/create``: its result.
        """
        if self.method != ELICITATION:
            return answer
        if isinstance(answer, Elicited):
            return answer.to_result()
        if answer is None:
            return Elicited("decline").to_result()
        form = _form_of(self.params)
        if form is not None and _alone_in(form) is not None:
            answer = {_ALONE: answer}
        return Elicited("accept", as_object(answer)).to_result()


def elicitation(prompt: str, schema: Any = None) -> dict[str, Any]:
    """The parameters of ``elicitation/create``.

    Args:
        prompt: The question.
        schema: JSON Schema of the answer, or a pydantic model. None asks for a text. MCP knows only forms, so a schema
            of anything but an object becomes a form with the property ``answer``.
    """
    form: dict[str, Any] = _schema_of(schema) or {"type": "string"}
    if form.get("type") != "object":
        form = {"type": "object", "properties": {_ALONE: form}, "required": [_ALONE]}
    return {"message": prompt, "requestedSchema": form}


def read_answer(content: dict[str, Any] | None, schema: Any = None) -> Any:
    """The answer to a question, from the content of the form; see :func:`elicitation`.

    Raises:
        ValueError: The content does not fit the pydantic model.
    """
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        return schema.model_validate(content or {})
    if (as_object(schema) or {}).get("type") == "object":
        return content or {}
    return (content or {}).get(_ALONE)


def as_object(value: object) -> dict[str, Any] | None:
    """A value that is a JSON object; None for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _schema_of(schema: Any) -> dict[str, Any] | None:
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    return as_object(schema)


def _form_of(params: dict[str, Any]) -> dict[str, Any] | None:
    return as_object(params.get("requestedSchema"))


def _alone_in(form: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of the one answer of a form that :func:`elicitation` has made of it."""
    properties = as_object(form.get("properties")) or {}
    return as_object(properties[_ALONE]) if list(properties) == [_ALONE] else None
