"""From a Python function to a tool: its schema, and how to call it with JSON arguments."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_type_hints

import jsonschema_rs
import typing_extensions
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import GenerateJsonSchema

from mqtt_agent.aio.handlers import is_async
from mqtt_agent.errors import InvalidArguments
from mqtt_agent.tools.serving.context import SyncToolContext, ToolContext

__all__ = ["ToolFunction"]


_MAX_FAULTS = 20
_LISTED_SIZE = 20_000


class ToolFunction:
    """A handler with its schema.

    Args:
        name: The tool's name, for errors.
        handler: ``async def`` or ``def``. A parameter annotated with :class:`ToolContext` gets the call's context.
        input_schema: JSON Schema of the arguments. None makes it from the handler's parameters. With a schema of your
            own, the handler gets the arguments as keywords; or all of them as one dict, when apart from the context
            it has one parameter without a default, and the schema has no property of that name.
        output_schema: JSON Schema of the result; None makes one when the handler is annotated to return a pydantic
            model, a dataclass or a TypedDict.

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
    ) -> None:
        self.name = name
        self.handler = handler
        self.is_async: bool = is_async(handler)
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError(
                f"tool {name!r}: a generator cannot be a handler: take a ToolContext and await its stream()"
            )
        parameters, self._context_parameter, returns = _parameters(name, handler)
        self._model: type[BaseModel] | None = None
        self._positional: list[str] = []
        self._fields: list[tuple[str, str]] = []
        self._whole: str | None = None
        if input_schema is None:
            self._model, self._fields = _arguments_model(name, parameters)
            self.input_schema: dict[str, Any] = _schema_of(self._model)
        else:
            self.input_schema = dict(input_schema)
            properties: dict[str, Any] = self.input_schema.get("properties") or {}
            required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
            by_keyword = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
            if len(required) == 1 and not by_keyword and required[0] not in properties:
                self._whole = required[0]
        self._positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
        self.output_schema: dict[str, Any] | None = (
            dict(output_schema) if output_schema is not None else _output_schema(returns)
        )
        self._validator = _validator(name, self.input_schema)

    @property
    def wants_context(self) -> bool:
        """Whether the handler has a parameter for the context, and so may stream."""
        return self._context_parameter is not None

    def bind(self, arguments: dict[str, Any], context: ToolContext, size: int = 0) -> Callable[[], Any]:
        """The call of the handler with these arguments, ready to be made.

        Args:
            arguments: What the caller sent.
            context: For the handler's context parameter.
            size: Bytes of the call; of a large one only the first fault is told.

        Raises:
            InvalidArguments: They do not fit the schema.
        """
        try:
            self._validator.validate(arguments)
        except jsonschema_rs.ValidationError as first:
            # All faults of a large call would take seconds to list.
            errors = self._validator.iter_errors(arguments) if size <= _LISTED_SIZE else [first]
            raise self._invalid([(list(error.instance_path), error.message) for error in errors]) from None
        keywords: dict[str, Any]
        if self._model is not None:
            try:
                values = self._model.model_validate(arguments)
            except ValidationError as error:
                details = error.errors(include_url=False, include_context=False, include_input=False)
                raise self._invalid([(list(detail["loc"]), detail["msg"]) for detail in details]) from error
            given = values.model_fields_set
            keywords = {name: getattr(values, attribute) for name, attribute in self._fields if attribute in given}
        elif self._whole is not None:
            keywords = {self._whole: arguments}
        else:
            keywords = dict(arguments)
        if self._context_parameter is not None:
            keywords[self._context_parameter] = context if self.is_async else context.in_thread()
        positional = [keywords.pop(name) for name in self._positional if name in keywords]
        return functools.partial(self.handler, *positional, **keywords)

    def _invalid(self, faults: list[tuple[list[Any], str]]) -> InvalidArguments:
        faults = faults[:_MAX_FAULTS]
        data = [{"path": "/" + "/".join(map(str, path)), "message": message[:500]} for path, message in faults]
        text = "; ".join(f"{fault['path']}: {fault['message']}" for fault in data)
        return InvalidArguments(text, tool=self.name, data=data)


def _parameters(name: str, handler: Callable[..., Any]) -> tuple[list[inspect.Parameter], str | None, Any]:
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    try:
        hints = get_type_hints(target if inspect.isroutine(target) else type(target).__call__, include_extras=True)
    except Exception as error:  # a name in an annotation that cannot be resolved, of whatever kind
        raise TypeError(f"tool {name!r}: its annotations cannot be resolved ({error})") from error
    parameters: list[inspect.Parameter] = []
    context: str | None = None
    for parameter in inspect.signature(handler).parameters.values():
        annotation = hints.get(parameter.name, parameter.annotation)
        if any(_is_context(part) for part in (annotation, *get_args(annotation))):
            context = parameter.name
        else:
            parameters.append(parameter.replace(annotation=annotation))
    return parameters, context, hints.get("return")


def _is_context(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, (ToolContext, SyncToolContext))


def _arguments_model(tool: str, parameters: list[inspect.Parameter]) -> tuple[type[BaseModel], list[tuple[str, str]]]:
    fields: dict[str, Any] = {}
    names: list[tuple[str, str]] = []
    for number, parameter in enumerate(parameters):
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(
                f"tool {tool!r}: {parameter} has no schema: name each parameter, or pass input_schema= to add_tool()"
            )
        annotation = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        # The model's own attribute names are neutral: a parameter may be called `schema`, `copy` or `_private`.
        attribute = f"argument_{number}"
        fields[attribute] = (Annotated[annotation, Field(alias=parameter.name)], default)
        names.append((parameter.name, attribute))
    try:
        model = create_model(tool, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        wrong = next((p.name for p in parameters if not _has_schema(p.annotation)), "")
        raise TypeError(f"tool {tool!r}: the type of parameter {wrong!r} has no JSON Schema ({error})") from error
    return model, names


def _has_schema(annotation: Any) -> bool:
    try:
        TypeAdapter(annotation)
    except (PydanticUserError, PydanticSchemaGenerationError):
        return annotation is inspect.Parameter.empty
    return True


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles that would only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = model.model_json_schema(by_alias=True, schema_generator=_Untitled)
    except PydanticUserError as error:
        raise TypeError(f"tool {model.__name__!r}: a parameter's type has no JSON Schema ({error})") from error
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _output_schema(returns: Any) -> dict[str, Any] | None:
    structured = dataclasses.is_dataclass(returns) or typing_extensions.is_typeddict(returns)
    if not structured and not (inspect.isclass(returns) and issubclass(returns, BaseModel)):
        return None
    try:
        of_any_type: Any = returns
        return TypeAdapter(of_any_type).json_schema(mode="serialization", schema_generator=_Untitled)
    except PydanticUserError:
        return None


def _validator(name: str, schema: dict[str, Any]) -> Any:
    if schema.get("type", "object") != "object":
        raise ValueError(f"tool {name!r}: the input schema must describe an object, not {schema.get('type')!r}")
    try:
        return jsonschema_rs.validator_for(schema, retriever=_no_remote_references)
    except ValueError as error:
        raise ValueError(f"tool {name!r}: the input schema is not valid JSON Schema: {error}") from error


def _no_remote_references(uri: str) -> Any:
    raise ValueError(f"{uri} is outside the schema; only references inside it are followed")
