"""The demo's tools, as plain functions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from mqtt_agent import ToolError
from support import soon

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "demo"))
import code_tools


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "one.py").write_text("x = 1\nclass One: pass\n")
    (root / "two.txt").write_text("one\ntwo\nthree\n")
    (root / "binary").write_bytes(b"\0\1\2")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("one\n")
    (root / ".env").write_text("one=secret\n")
    (tmp_path / "outside.txt").write_text("one\n")
    (root / "link").symlink_to(tmp_path / "outside.txt")
    return root


@pytest.mark.parametrize("path", ["../outside.txt", "a/../../outside.txt", "/etc/passwd", "link", "."])
def test_nothing_outside_the_folder_is_read(root: Path, path: str) -> None:
    with pytest.raises(ToolError) as caught:
        code_tools.read_lines(root, path)
    assert caught.value.code == ("NOT_A_FILE" if path == "." else "OUTSIDE")


@pytest.mark.parametrize(
    ("path", "code"),
    [(".git/config", "LEFT_OUT"), (".env", "LEFT_OUT"), ("nothing", "NOT_FOUND"), ("a\0b", "BAD_PATH"),
     ("x" * 5000, "BAD_PATH"), ("binary", "NOT_TEXT")],
)  # fmt: skip
def test_a_path_that_cannot_be_read_is_refused_with_a_reason(root: Path, path: str, code: str) -> None:
    with pytest.raises(ToolError) as caught:
        code_tools.read_lines(root, path)
    assert caught.value.code == code


def test_a_part_of_a_file_is_read(root: Path) -> None:
    excerpt = code_tools.read_lines(root, "two.txt", start=2, count=5)
    assert (excerpt.text, excerpt.start, excerpt.end, excerpt.total_lines) == ("two\nthree", 2, 3, 3)


def test_files_and_lines_are_counted_by_kind_and_by_folder(root: Path) -> None:
    stats = code_tools.folder_stats(root)
    assert (stats.files, stats.lines) == (3, 5)
    assert {count.name: count.lines for count in stats.by_extension} == {".txt": 3, ".py": 2, "(none)": 0}
    assert {count.name: count.files for count in stats.by_folder} == {".": 2, "a": 1}
    assert stats.largest_file == "two.txt"


async def test_lines_that_match_are_found_and_their_progress_is_told(root: Path) -> None:
    seen: list[float] = []

    async def on_progress(done: float, total: float, file: str) -> None:
        seen.append(done)

    result = await soon(code_tools.search_text(root, "one|One", on_progress=on_progress))
    assert {(match.path, match.line) for match in result.matches} == {(os.path.join("a", "one.py"), 2), ("two.txt", 1)}
    assert result.matching_lines == 2
    assert seen == [0, 1, 2]


async def test_an_expression_that_takes_for_ever_is_stopped(root: Path) -> None:
    (root / "evil.txt").write_text("a" * 400 + "!\n")
    with pytest.raises(ToolError) as caught:
        await soon(code_tools.search_text(root, "(a+)+$", seconds=0.2))
    assert caught.value.code == "TOO_SLOW"


async def test_an_expression_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(ToolError) as caught:
        await soon(code_tools.search_text(root, "("))
    assert caught.value.code == "BAD_PATTERN"
