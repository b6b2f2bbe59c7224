"""Dependencies between modules point in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mqtt_agent
import pytest

assert mqtt_agent.__file__ is not None
ROOT = Path(mqtt_agent.__file__).parent
LAYERS = ("aio", "display", "wire", "transport", "endpoints", "tools", "agents", "sync", "adapting", "cli")
"""The folders; each may import from those before it."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: set[str]) -> Iterator[str]:
    """The project's modules that a file imports anywhere: at the top, in a function, or only for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & known or {node.module}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    files = {name_of(path): path for path in ROOT.rglob("*.py")}
    return {name: set(imported(path, set(files))) for name, path in files.items()}


def test_no_module_imports_itself_by_way_of_others(imports: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, " imports ".join([*way[way.index(name) :], name])
        if name not in done:
            for each in sorted(imports[name]):
                visit(each, [*way, name])
            done.add(name)

    for name in sorted(imports):
        visit(name, [])
    assert len(done) > 80


def test_a_folder_imports_only_from_those_below_it(imports: dict[str, set[str]]) -> None:
    def layer(name: str) -> int | None:
        folder = (*name.split("."), "")[1]
        return LAYERS.index(folder) if folder in LAYERS else None

    upward = {
        f"{name} imports {each}"
        for name, others in imports.items()
        for each in others
        if (here := layer(name)) is not None and (there := layer(each)) is not None and there > here
    }
    assert upward == set()
    assert {folder for folder in LAYERS if f"mqtt_agent.{folder}" in imports} == set(LAYERS)
