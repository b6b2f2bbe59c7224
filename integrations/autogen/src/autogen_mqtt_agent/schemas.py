"""From the input schema on a tool's card to what AutoGen tells a language model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from autogen_core.tools import ParametersSchema, ToolSchema
from mqtt_agent import ToolCard

__all__ = ["inlined", "tool_schema"]

logger = logging.getLogger(__name__)

_MAX_DEPTH = 32
_MAX_NODES = 10_000


def tool_schema(card: ToolCard, name: str) -> ToolSchema:
    """A tool card as AutoGen's schema, under the name that the model is to use."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    try:
        parameters.update(inlined(card.input_schema))
    except ValueError as error:
        logger.warning("tool %r: its input schema cannot be told to a language model: %s", card.tool, error)
    described = card.description or card.title or card.tool
    return ToolSchema(name=name, description=described, parameters=cast(ParametersSchema, parameters))


def inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema without ``$ref``: AutoGen's form has no place for definitions.

    A schema that refers to itself is cut off where it does: anything is allowed there, and the tool server checks.

    Raises:
        ValueError: It is too large, or refers to what is not there.
    """
    return _Inliner(schema).inline(schema, (), 0)


class _Inliner:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def inline(self, node: Any, open_references: tuple[str, ...], depth: int) -> Any:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ValueError("it is too large once its references are inlined")
        if isinstance(node, list):
            return [self.inline(each, open_references, depth + 1) for each in node]
        if not isinstance(node, Mapping):
            return node
        merged = {
            key: self.inline(value, open_references, depth + 1)
            for key, value in node.items()
            if key != "$defs" and not (key == "$ref" and isinstance(value, str)) and (key != "definitions" or depth)
        }
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in open_references:
            target = self.inline(self._find(reference), (*open_references, reference), depth + 1)
            merged = {**target, **merged}
        return merged

    def _find(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise ValueError(f"it refers to {reference!r}, which is elsewhere")
        found: Any = self._root
        for part in filter(None, reference[1:].split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise ValueError(f"it refers to {reference!r}, which is not there")
            found = found[key]
        return found
