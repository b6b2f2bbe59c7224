"""Finds what the references of a JSON Schema name, within the schema itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

__all__ = ["REFERENCES", "References", "objects_in"]

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
"""The keywords whose value is a reference."""


class References:
    """The references of a schema. A peer may write thousands of them, so each is looked for once.

    Args:
        root: The schema.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._found: dict[str, Any] = {"#": root}
        self._anchors: dict[str, Any] | None = None

    def find(self, reference: str) -> Any:
        """The part of the schema that a reference names; None when the schema has no such part."""
        if reference not in self._found:
            self._found[reference] = self._look_for(reference)
        return self._found[reference]

    def _look_for(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            if self._anchors is None:
                self._anchors = _anchors_of(self._root)
            return self._anchors.get(reference[1:]) if reference.startswith("#") else None
        node: Any = self._root
        for part in reference[2:].split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and part in node:
                node = cast("Mapping[str, Any]", node)[part]
            elif isinstance(node, list) and part.isdecimal() and int(part) < len(cast("list[Any]", node)):
                node = cast("list[Any]", node)[int(part)]
            else:
                return None
        return node


def objects_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """All JSON objects in a value, at any depth."""
    waiting: list[Any] = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield cast("Mapping[str, Any]", node)
            waiting.extend(cast("Mapping[str, Any]", node).values())
        elif isinstance(node, list):
            waiting.extend(cast("list[Any]", node))


def _anchors_of(root: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in objects_in(root):
        for name in (node.get("$anchor"), node.get("$dynamicAnchor")):
            if isinstance(name, str):
                found.setdefault(name, node)
    return found
