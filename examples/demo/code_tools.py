"""The demo's tools: plain functions that read a folder of source code, without any MQTT code.

Paths are relative to the folder, and the tools cannot read anything outside the folder. When a tool cannot do its work,
it raises a ``ToolError`` with a message for the person or the model that called the tool.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import search_worker
from mqtt_agent import ToolError

LEFT_OUT = frozenset(
    (
        *(".git", ".hg", ".svn", ".venv", "venv", ".tox", ".nox", "node_modules"),
        *("__pycache__", ".cache", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
    )
)
"""Folders that the tools ignore: generated files and code of other projects. ``.env`` files are ignored too."""

MAX_FILES = 20_000

OnProgress = Callable[[float, float, str], Awaitable[None]]


@dataclass
class Count:
    """The number of files, lines and bytes of one kind of file, or of one folder."""

    name: str
    files: int = 0
    lines: int = 0
    bytes: int = 0

    def add(self, lines: int, size: int) -> None:
        """Add a file to the numbers."""
        self.files, self.lines, self.bytes = self.files + 1, self.lines + lines, self.bytes + size


@dataclass
class FolderStats:
    """The size of a folder; ``complete`` is false when the folder was too large to count everything."""

    path: str
    files: int
    lines: int
    bytes: int
    by_extension: list[Count]
    by_folder: list[Count]
    largest_file: str | None
    complete: bool


@dataclass
class Match:
    """A line that matches."""

    path: str
    line: int
    text: str


@dataclass
class FileMatches:
    """The number of matching lines in a file, and the first of these lines."""

    path: str
    lines: int
    first_line: int


@dataclass
class SearchResult:
    """The result of a search: the first matches, and the files with the most matches."""

    files_searched: int = 0
    matching_lines: int = 0
    matches: list[Match] = field(default_factory=list)
    top_files: list[FileMatches] = field(default_factory=list)
    complete: bool = True


@dataclass
class Excerpt:
    """A part of a file."""

    path: str
    start: int
    end: int
    total_lines: int
    text: str


def inside(root: Path, path: str) -> Path:
    """The resolved path of ``path`` below ``root``.

    Raises:
        ToolError: The path is outside the folder, is ignored, or does not exist.
    """
    root = root.resolve()
    try:
        place = (root / path).resolve()
        exists = place.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL character
        raise ToolError(f"{path!r:.100} cannot be a path", code="BAD_PATH") from error
    if os.path.isabs(path) or not place.is_relative_to(root):
        raise ToolError(f"{path!r} is outside the folder; give a path relative to it", code="OUTSIDE")
    if any(_left_out(part) for part in place.relative_to(root).parts):
        raise ToolError(f"{path!r} cannot be read here: it is generated, secret, or third-party", code="LEFT_OUT")
    if not exists:
        raise ToolError(f"there is no {path!r} in the folder", code="NOT_FOUND")
    return place


def has_text(root: Path) -> bool:
    """Whether the folder contains any text file to search and read."""
    return any(search_worker.text_lines(file) for file in _files(root))


def folder_stats(root: Path, path: str = ".", *, seconds: float = 10.0) -> FolderStats:
    """Count files, lines and bytes below a folder: in all, by extension, and for each folder directly in it.

    Args:
        root: The folder that the tools read.
        path: The folder to count, relative to ``root``.
        seconds: Stop counting after this time.
    """
    top = inside(root, path)
    total = Count(".")
    extensions: dict[str, Count] = {}
    folders: dict[str, Count] = {}
    largest: tuple[int, str] | None = None
    deadline = time.monotonic() + seconds
    complete = True
    for file in _files(top):
        if total.files >= MAX_FILES or time.monotonic() > deadline:
            complete = False
            break
        lines, size = len(search_worker.text_lines(file) or ()), _size(file)
        relative = file.relative_to(top)
        extension = file.suffix.lower() or "(none)"
        total.add(lines, size)
        extensions.setdefault(extension, Count(extension)).add(lines, size)
        folder = relative.parts[0] if len(relative.parts) > 1 else "."
        folders.setdefault(folder, Count(folder)).add(lines, size)
        if lines and (largest is None or lines > largest[0]):
            largest = lines, str(file.relative_to(root.resolve()))
    return FolderStats(
        path=path,
        files=total.files,
        lines=total.lines,
        bytes=total.bytes,
        by_extension=_most_lines(extensions),
        by_folder=_most_lines(folders),
        largest_file=largest[1] if largest else None,
        complete=complete,
    )


def read_lines(root: Path, path: str, start: int = 1, count: int = 60) -> Excerpt:
    """Read ``count`` lines of a text file, beginning with line ``start``; the first line is 1."""
    file = inside(root, path)
    if not file.is_file():
        raise ToolError(f"{path!r} is not a file", code="NOT_A_FILE")
    lines = search_worker.text_lines(file)
    if lines is None:
        raise ToolError(f"{path!r} is no text file, or too large, or unreadable", code="NOT_TEXT")
    chosen = [line[: search_worker.MAX_LINE] for line in lines[start - 1 : start - 1 + count]]
    return Excerpt(path, start, start - 1 + len(chosen), len(lines), "\n".join(chosen))


async def search_text(
    root: Path,
    pattern: str,
    path: str = ".",
    *,
    ignore_case: bool = False,
    max_matches: int = 50,
    seconds: float = 10.0,
    on_progress: OnProgress | None = None,
) -> SearchResult:
    """Find the lines that match a regular expression, in the text files below a folder or in one file.

    Some expressions never finish on some lines, and a thread that runs such an expression cannot be stopped. So a
    separate process searches. This process is killed when its time is over, or when the caller no longer waits.

    Args:
        root: The folder that the tools read.
        pattern: A regular expression in Python's syntax.
        path: The folder or file to search, relative to ``root``.
        ignore_case: Whether ``a`` also matches ``A``.
        max_matches: The largest number of matching lines to return; all matching lines are counted.
        seconds: The time limit of the search.
        on_progress: Awaited at intervals with the number of searched files, the number of all files, and the next file.
    """
    place, root = inside(root, path), root.resolve()
    files, complete = await asyncio.to_thread(_list_files, place, seconds)
    order = {
        "pattern": pattern,
        "ignore_case": ignore_case,
        "root": str(root),
        "files": [str(file.relative_to(root)) for file in files],
        "max_matches": max_matches,
        "seconds": seconds,
    }
    result = SearchResult()

    async def follow() -> None:
        async with contextlib.aclosing(_run_worker(order)) as reports:
            async for report in reports:
                if "error" in report:
                    raise ToolError(report["error"], code="BAD_PATTERN")
                if "match" in report:
                    file, line, text = report["match"]
                    result.matches.append(Match(file, line, text))
                elif "progress" in report and on_progress is not None:
                    await on_progress(report["progress"], len(files), report["file"])
                elif "searched" in report:
                    result.files_searched, result.matching_lines = report["searched"], report["found"]
                    result.top_files = [FileMatches(file, *numbers) for file, *numbers in report["top"]]
                    result.complete = complete and report["searched"] == len(files)
                    return
        raise ToolError("the search process ended without a result", code="WORKER_DIED")

    try:
        await asyncio.wait_for(follow(), seconds + 1)
    except asyncio.TimeoutError:
        message = f"stopped after {seconds:g} s: {pattern!r:.100} is too slow on some line; nested repeats often are"
        raise ToolError(message, code="TOO_SLOW") from None
    return result


async def _run_worker(order: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    program = [sys.executable, search_worker.__file__]
    pipe = asyncio.subprocess.PIPE
    worker = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(order).encode())
        worker.stdin.close()
        async for line in worker.stdout:
            yield json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


def _files(place: Path) -> Iterator[Path]:
    """The regular files below a folder, in the order of their names; links are not followed."""
    if place.is_file():
        yield place
        return
    try:
        with os.scandir(place) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return  # a virtual environment, whatever its name
    for entry in entries:
        if _left_out(entry.name) or not entry.name.isprintable():  # a file name on disk may be invalid in JSON
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _left_out(name: str) -> bool:
    return name in LEFT_OUT or name.startswith(".env") or name.endswith(".egg-info")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _list_files(place: Path, seconds: float) -> tuple[list[Path], bool]:
    deadline = time.monotonic() + seconds
    files: list[Path] = []
    for file in _files(place):
        if len(files) >= MAX_FILES or time.monotonic() > deadline:
            return files, False
        files.append(file)
    return files, True


def _most_lines(counts: dict[str, Count]) -> list[Count]:
    return sorted(counts.values(), key=lambda count: (-count.lines, -count.files, count.name))[:20]
