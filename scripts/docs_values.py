"""Shows the values of constants in signatures: ``timeout=60.0`` and not ``timeout=CALL_TIMEOUT``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "core" / "src", *sorted((ROOT / "integrations").glob("*/src"))]


class Values(griffe.Extension):
    """Replaces the default values of a package's functions after the package is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self._values = constants()
        self._seen: set[str] = set()

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Replace the default values of a package that griffe has loaded."""
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object | griffe.Alias) -> None:
        if thing.is_alias or thing.path in self._seen:
            return
        self._seen.add(thing.path)
        if isinstance(thing, griffe.Function):
            for parameter in thing.parameters:
                parameter.default = self._shown(parameter.default)
        if isinstance(thing, griffe.Attribute):  # a field of a dataclass, whose default value is in the signature too
            thing.value = self._shown(thing.value)
        for member in list(thing.members.values()):
            self._rewrite(member)

    def _shown(self, value: Any) -> Any:
        """What the reference shows for a default value: ``{}`` for what makes an empty dict, for example."""
        text = str(value)
        if made := re.fullmatch(r"\(?(?:lambda: )?(dict|list)\[.*\]\(\)\)?(?:\(\))?", text, re.DOTALL):
            return {"dict": "{}", "list": "[]"}[made[1]]
        return self._values.get(text, value)


def constants() -> dict[str, str]:
    """The constants of all modules, as source text. A name that has two values in two modules is left out."""
    found: dict[str, set[str]] = {}
    for folder in SOURCES:
        for path in folder.rglob("*.py"):
            for name, value in assigned(ast.parse(path.read_text(encoding="utf-8"))):
                if name.isupper() and simple(value):
                    found.setdefault(name, set()).add(ast.unparse(value))
    return {name: next(iter(values)) for name, values in found.items() if len(values) == 1}


def assigned(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """What the module assigns to names at its top level."""
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value


def simple(value: ast.expr) -> bool:
    """Whether a value says everything by itself: a number, a text, a product such as 16 * 1024, an empty object."""
    if isinstance(value, ast.BinOp):
        return simple(value.left) and simple(value.right)
    if isinstance(value, ast.Call):
        return not value.args and not value.keywords
    return isinstance(value, ast.Constant)
