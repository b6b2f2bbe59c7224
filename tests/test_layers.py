"""What import-linter does not look at; the contracts in .importlinter say the rest about who imports whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "core" / "src", *sorted(ROOT.glob("integrations/*/src"))]


def name_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_packages(path: Path, modules: set[str]) -> set[str]:
    """What a file imports from: in `from a.b import c` that is a.b.c, or a.b when c is no module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & modules if inner <= modules else {*(inner & modules), node.module}
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.parent.name)
def test_no_module_imports_a_package_that_it_is_in(source: Path) -> None:
    files = {name_of(path, source): path for path in source.rglob("*.py")}
    assert len(files) > 10
    circles = {
        f"{name} imports {other}"
        for name, path in files.items()
        for other in imported_packages(path, set(files))
        if other in files and name.startswith(f"{other}.")
    }
    assert circles == set()
