"""Makes the schema of a tool's arguments from a handler's parameters, and checks the arguments of calls."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from typing import Annotated, Any, cast, get_args

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from mqtt_agent.tools.serving.parameters import VARIADIC
from mqtt_agent.wire.efforts import Effort, branches
from mqtt_agent.wire.faults import Fault, invalid_arguments, pydantic_fault
from mqtt_agent.wire.schemas import NOT_TOLD, Checker

__all__ = ["ArgumentsChecker", "UntitledSchema", "result_checker"]

_LISTED_SIZE = 20_000
"""The size of the largest call for which an error lists several faults, in bytes."""
_MOST_STEPS = 200_000
"""The steps of the longest check with alternatives that contain themselves. It takes some tenths of a second."""
_TOO_DEEP = (
    "have too many levels: the types of this tool have alternatives that contain themselves, and nothing "
    "tells them apart; its author can add a discriminator"
)


class ArgumentsChecker:
    """The schema of one tool's arguments, and the check of a call's arguments against it.

    Args:
        tool: The tool's name, for errors.
        parameters: The handler's parameters, without the context parameter.
        schema: The JSON Schema of the arguments. None makes the schema from the parameters.
        context: The name of the context parameter, if there is one.
        validate: Whether to check the arguments against the schema. Without this check, the handler checks the
            arguments itself, and the schema may be any JSON Schema.
        whole: Whether the first parameter gets all arguments as one dict, whatever its name.

    Attributes:
        schema: The JSON Schema of the arguments.

    Raises:
        TypeError: The parameters cannot be made into a schema, or an argument has the name of the context parameter.
        ValueError: The schema is not valid JSON Schema, or refers to something outside itself.
    """

    def __init__(
        self,
        tool: str,
        parameters: list[inspect.Parameter],
        schema: Mapping[str, Any] | None,
        context: str | None = None,
        validate: bool = True,
        whole: bool = False,
    ) -> None:
        self._tool = tool
        self._model: type[BaseModel] | None = None
        self._fields: list[tuple[str, str]] = []
        self._defaults: frozenset[str] = frozenset()
        self._whole: str | None = None
        if schema is None:
            self._model, self._fields, self._defaults = _arguments_model(tool, parameters)
            self.schema: dict[str, Any] = _schema_of(self._model)
        else:
            self.schema = dict(schema)
            self._whole = _first(tool, parameters) if whole else _parameter_for_all(parameters, self.schema)
            named = {p.name for p in parameters if p.kind not in VARIADIC} | ({context} if context else set[str]())
            self._shown = _names_in(self.schema)
            self._hidden = frozenset(named) - self._shown
            self._takes_others = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
            if self._whole is None and context in self._shown:
                raise TypeError(
                    f"tool {tool!r}: the parameter {context!r} gets the context of the call, and the input schema has"
                    " an argument of this name: rename the parameter"
                )
        self._checker = _checker(tool, self.schema, compiled=validate)

    def check(self, arguments: dict[str, Any], size: int) -> dict[str, Any]:
        """Check a call's arguments.

        Args:
            arguments: The arguments as the caller sent them.
            size: The size of the call, in bytes. The error for a call above 20,000 bytes has only one fault.

        Returns:
            The value of each of the handler's parameters, by name.

        Raises:
            InvalidArguments: The arguments do not fit the schema.
        """
        if self._checker is not None and not self._checker.fits(arguments):
            # It would take seconds to list all faults of a large call.
            faults = self._checker.faults(arguments, everything=size <= _LISTED_SIZE)
            if faults == [NOT_TOLD] and self._model is not None and not self._branches:
                self._validated(self._model, arguments)  # follows the discriminators, and so finds the place
            raise invalid_arguments(self._tool, faults)
        if self._model is not None:
            if self._branches and Effort(self.schema, discriminated=True).is_out_of_proportion(arguments, _MOST_STEPS):
                raise invalid_arguments(self._tool, [Fault([], _TOO_DEEP)])
            values = self._validated(self._model, arguments)
            given = values.model_fields_set | self._defaults
            return {name: getattr(values, attribute) for name, attribute in self._fields if attribute in given}
        if self._whole is not None:
            return {self._whole: arguments}
        # The schema may allow further arguments. They may never become the value of a parameter that it does not show.
        unknown = [name for name in arguments if not self._takes(name)]
        if unknown:
            raise invalid_arguments(self._tool, [Fault([name], "does not exist") for name in unknown])
        return dict(arguments)

    def _validated(self, model: type[BaseModel], arguments: dict[str, Any]) -> BaseModel:
        try:
            return model.model_validate(arguments)
        except ValidationError:
            pass
        # In strict models and for literals of an enumeration, pydantic takes JSON's form of a value only as JSON.
        try:
            return model.model_validate_json(pydantic_core.to_json(arguments))
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            raise invalid_arguments(self._tool, [pydantic_fault(detail) for detail in details]) from error

    @functools.cached_property
    def _branches(self) -> bool:
        return branches(self.schema)

    def _takes(self, name: str) -> bool:
        return name in self._shown or (self._takes_others and name not in self._hidden)


class UntitledSchema(GenerateJsonSchema):
    """Makes a JSON Schema without titles for fields, because these titles only repeat the names.

    A default that JSON cannot carry, such as infinity, is left out: the argument is optional all the same.
    """

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """The JSON form of a default.

        Raises:
            PydanticSerializationError: There is none.
        """
        try:
            encoded = super().encode_default(dft)
            json.dumps(encoded, allow_nan=False)
        except ValueError as error:
            raise pydantic_core.PydanticSerializationError(str(error)) from error
        return encoded


def _first(tool: str, parameters: list[inspect.Parameter]) -> str:
    """The parameter that takes all arguments of a handler that wants them as one dict."""
    if not parameters or parameters[0].kind in VARIADIC:
        raise TypeError(f"tool {tool!r}: the handler has no parameter for the dict of all arguments")
    return parameters[0].name


def _names_in(schema: dict[str, Any]) -> frozenset[str]:
    properties = schema.get("properties")
    return frozenset(cast("dict[str, Any]", properties)) if isinstance(properties, dict) else frozenset()


def _parameter_for_all(parameters: list[inspect.Parameter], schema: dict[str, Any]) -> str | None:
    """The parameter that takes all arguments as one dict; None when the handler takes them as keywords."""
    properties = _names_in(schema)
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    by_keyword = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return required[0] if len(required) == 1 and not by_keyword and required[0] not in properties else None


def _arguments_model(
    tool: str, parameters: list[inspect.Parameter]
) -> tuple[type[BaseModel], list[tuple[str, str]], frozenset[str]]:
    """A pydantic model of the parameters, and the model's attribute for each parameter.

    The last value has the attributes whose default only pydantic knows, because it is in a ``Field(...)``.
    """
    fields: dict[str, Any] = {}
    names: list[tuple[str, str]] = []
    for number, parameter in enumerate(parameters):
        if parameter.kind in VARIADIC:
            raise TypeError(
                f"tool {tool!r}: {parameter} has no schema: name each parameter, or pass input_schema= to add_tool()"
            )
        annotation = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        # Names that clash with nothing in pydantic: a parameter may be called `schema`, `copy` or `_private`.
        attribute = f"argument_{number}"
        if not _has_alias(annotation, default):
            annotation = Annotated[annotation, Field(alias=parameter.name)]
        if (description := _description(annotation, default)) is not None:
            annotation = Annotated[annotation, Field(description=description)]
        fields[attribute] = (annotation, default)
        names.append((parameter.name, attribute))
    try:
        model = create_model(tool, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        wrong = next((p for p in parameters if not _has_schema(p.annotation)), None)
        about = "a parameter" if wrong is None else f"parameter {str(wrong)!r}"
        raise TypeError(
            f"tool {tool!r}: the type of {about} has no JSON Schema: use text, numbers, lists, dicts, a dataclass or a "
            "pydantic model, or pass input_schema= to add_tool()"
        ) from error
    defaults = [
        attribute
        for (_, attribute), parameter in zip(names, parameters, strict=True)
        if isinstance(parameter.default, FieldInfo) or parameter.default is inspect.Parameter.empty
        if not model.model_fields[attribute].is_required()
    ]
    return model, names, frozenset(defaults)


def _description(annotation: Any, default: Any) -> str | None:
    """The text in ``Annotated[..., "text"]``, as AutoGen and LangChain describe arguments, if no Field has one."""
    marks = [default, *getattr(annotation, "__metadata__", ())]
    if any(isinstance(each, FieldInfo) and each.description is not None for each in marks):
        return None
    return next((each for each in marks[1:] if isinstance(each, str)), None)


def _has_alias(annotation: Any, default: Any) -> bool:
    """Whether a ``Field(...)`` of a parameter names the argument."""
    marks = [each for each in (default, *get_args(annotation)) if isinstance(each, FieldInfo)]
    return any(each.alias is not None or each.validation_alias is not None for each in marks)


def _has_schema(annotation: Any) -> bool:
    try:
        TypeAdapter(annotation)
    except (PydanticUserError, PydanticSchemaGenerationError):
        return annotation is inspect.Parameter.empty
    return True


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    try:
        schema = model.model_json_schema(by_alias=True, schema_generator=UntitledSchema)
    except PydanticUserError as error:
        raise TypeError(f"tool {model.__name__!r}: a parameter's type has no JSON Schema ({error})") from error
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return schema


def _checker(tool: str, schema: dict[str, Any], *, compiled: bool) -> Checker | None:
    if schema.get("type", "object") != "object":
        raise ValueError(f"tool {tool!r}: the input schema must describe an object, not {schema.get('type')!r}")
    if not compiled:
        return None
    return Checker(f"tool {tool!r}: the input schema", schema)


def result_checker(tool: str, schema: Mapping[str, Any]) -> Checker:
    """Checks the results of a tool.

    Raises:
        ValueError: The schema is not valid JSON Schema, or refers to something outside itself.
    """
    return Checker(f"tool {tool!r}: the output schema", dict(schema))
