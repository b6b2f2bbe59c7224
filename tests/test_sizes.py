"""The length of functions in core and in the adapters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 60
"""Lines of a function from its ``def`` to its end. The docstring does not count."""


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method of the published packages."""
    for path in sorted([*(ROOT / "core" / "src").rglob("*.py"), *(ROOT / "integrations").glob("*/src/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_no_function_is_longer_than_60_lines() -> None:
    found = list(functions())
    assert len(found) > 1000
    assert [f"{path.relative_to(ROOT)}: {each.name}" for path, each in found if length(each) > MOST] == []
