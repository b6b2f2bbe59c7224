"""A Python function as a tool: its input and output schemas, and calling it with JSON arguments."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import typing_extensions
from pydantic import BaseModel, PydanticUserError, TypeAdapter

from mqtt_agent.aio.handlers import is_async
from mqtt_agent.errors import ToolError
from mqtt_agent.tools.serving.arguments import ArgumentsChecker, UntitledSchema, result_checker
from mqtt_agent.tools.serving.context import ToolContext
from mqtt_agent.tools.serving.parameters import parameters_of
from mqtt_agent.tools.serving.results import SharedContent, ToolResult

__all__ = ["ToolFunction"]


class ToolFunction:
    """A handler with its schemas.

    Args:
        name: The tool's name, for errors.
        handler: ``async def`` or ``def``. A parameter annotated with :class:`ToolContext` gets the call's context.
        input_schema: JSON Schema of the arguments. None makes the schema from the handler's parameters. With a schema
            of your own, the handler gets the arguments as keywords. There is one exception: a handler with exactly one
            parameter without a default (not counting the context), whose name is no property of the schema, gets all
            arguments as one dict in that parameter.
        output_schema: JSON Schema of the result, against which each result is checked. None makes a schema when the
            handler is annotated to return a pydantic model, a dataclass or a TypedDict. Such results are not checked.
        validate: Whether to check the arguments of each call against ``input_schema``, and the results against
            ``output_schema``. Without this check, the handler checks them itself.
        whole_arguments: Whether the first parameter (not counting the context) gets all arguments as one dict.

    Attributes:
        name: The tool's name.
        handler: The handler.
        is_async: Whether calls of the handler must be awaited. Other handlers run in a thread.
        input_schema: JSON Schema of the arguments.
        output_schema: JSON Schema of the result, if there is one.

    Raises:
        TypeError: The handler's parameters cannot be made into a schema.
        ValueError: A schema is not valid JSON Schema, or refers to something outside itself.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[..., Any],
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        validate: bool = True,
        whole_arguments: bool = False,
    ) -> None:
        self.name: str = name
        self.handler: Callable[..., Any] = handler
        self.is_async: bool = is_async(handler)
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError(
                f"tool {name!r}: a generator cannot be a handler: take a ToolContext and await its stream()"
            )
        self._parameters = parameters_of(name, handler)
        if whole_arguments and input_schema is None:
            raise TypeError(f"tool {name!r}: whole_arguments needs an input_schema")
        self._arguments = ArgumentsChecker(
            name, self._parameters.listed, input_schema, self._parameters.context, validate, whole_arguments
        )
        self.input_schema: dict[str, Any] = self._arguments.schema
        self.output_schema: dict[str, Any] | None = (
            dict(output_schema) if output_schema is not None else _output_schema(self._parameters.returns)
        )
        self._result = result_checker(name, output_schema) if validate and output_schema is not None else None

    @property
    def wants_context(self) -> bool:
        """Whether the handler has a parameter for the context. Only such a handler can stream."""
        return self._parameters.context is not None

    def check_result(self, result: Any) -> None:
        """Check a result against the output schema that was given.

        Raises:
            ToolError: The result does not fit.
        """
        if self._result is None or self._result.fits(result):
            return
        said = self._result.faults(result, everything=False)[0].told("the result's", "the result")
        what = f"the tool ran, but its result does not fit its output schema: {said:.700}"
        raise ToolError(what, code="RESULT_DOES_NOT_FIT")

    def bind(self, arguments: dict[str, Any], context: ToolContext, size: int = 0) -> Callable[[], Any]:
        """Check a call's arguments, and prepare the call of the handler with them.

        Args:
            arguments: The arguments as the caller sent them.
            context: The value of the handler's context parameter.
            size: The size of the call, in bytes; see :meth:`ArgumentsChecker.check`.

        Returns:
            A function that calls the handler.

        Raises:
            InvalidArguments: The arguments do not fit the schema.
        """
        keywords = self._arguments.check(arguments, size)
        if self._parameters.context is not None:
            keywords[self._parameters.context] = context if self.is_async else context.in_thread()
        positional = self._parameters.take_positional(keywords)
        return functools.partial(self.handler, *positional, **keywords)


def _output_schema(returns: Any) -> dict[str, Any] | None:
    if returns in (ToolResult, SharedContent):  # the result inside it is what the caller gets
        return None
    structured = dataclasses.is_dataclass(returns) or typing_extensions.is_typeddict(returns)
    if not structured and not (inspect.isclass(returns) and issubclass(returns, BaseModel)):
        return None
    try:
        of_any_type: Any = returns
        return TypeAdapter(of_any_type).json_schema(mode="serialization", schema_generator=UntitledSchema)
    except PydanticUserError:
        return None
