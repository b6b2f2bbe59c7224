"""The arguments of a remote tool as a pydantic model, as CrewAI needs them."""

from __future__ import annotations

import copy
import keyword
from collections.abc import Mapping
from typing import Any, ClassVar

from mqtt_agent.adapting.schemas import speakable, takes_null
from pydantic import BaseModel, ConfigDict, Field, create_model

__all__ = ["Arguments", "make_arguments_model", "never_cache", "wire_arguments"]


class Arguments(BaseModel):
    """The arguments of one call, as the language model gave them.

    The values are not checked here. The server checks them against its own schema, and names the path of a wrong value.
    A pydantic model that is made from a JSON Schema cannot check as exactly.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow", arbitrary_types_allowed=True, serialize_by_alias=True
    )

    told_schema: ClassVar[dict[str, Any]] = {"type": "object", "properties": {}}
    """The schema that a language model gets."""
    nullable: ClassVar[frozenset[str]] = frozenset()
    """The properties that accept null."""

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """The server's schema, but null is allowed for each argument that may be left out."""
        return copy.deepcopy(cls.told_schema)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """The given arguments under their own names. CrewAI would add None for each missing argument."""
        return super().model_dump(**{**options, "exclude_unset": True, "by_alias": True})


def make_arguments_model(name: str, schema: Mapping[str, Any]) -> type[Arguments]:
    """Make a model for the arguments that a JSON Schema describes.

    Args:
        name: The name of the model.
        schema: The tool's input schema.
    """
    whole = speakable(schema)
    properties: dict[str, Any] = whole["properties"]
    required = whole.get("required")
    required = set(required) if isinstance(required, (list, tuple)) else set[str]()
    fields: dict[str, Any] = {}
    for number, (each, its_schema) in enumerate(properties.items()):
        about = its_schema.get("description") if isinstance(its_schema, Mapping) else None
        default = ... if each in required else None
        # The server fills in its own defaults. A name that pydantic does not accept gets an alias.
        field = each if _is_field_name(each) else f"argument_{number}"
        alias = None if field == each else each
        fields[field] = (Any, Field(default, alias=alias, description=about if isinstance(about, str) else None))
    nullable = {each for each, its_schema in properties.items() if takes_null(its_schema)}
    # Strict function calling has no optional arguments: a model writes null for an argument that it leaves out.
    told = {
        each: its_schema if each in required or each in nullable else {"anyOf": [its_schema, {"type": "null"}]}
        for each, its_schema in properties.items()
    }
    model = create_model(name, __base__=Arguments, **fields)
    model.told_schema = {**whole, "type": "object", "title": name, "properties": told}
    model.nullable = frozenset(nullable)
    return model


def wire_arguments(model: type[Arguments], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments to send: without each null that only means that an argument was left out."""
    return {name: value for name, value in given.items() if value is not None or name in model.nullable}


def never_cache(arguments: Any = None, result: Any = None) -> bool:
    """The cache function of a tool whose results CrewAI must not use again."""
    return False


def _is_field_name(name: str) -> bool:
    legal = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(("_", "model_"))
    return legal and not hasattr(Arguments, name)
