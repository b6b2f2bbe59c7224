"""Small helpers for tests that wait for an event, with a deadline, and never for a fixed time."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Container, Iterable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE = 10.0


async def soon(awaitable: Awaitable[T], seconds: float = DEADLINE) -> T:
    """Await something that must happen soon."""
    return await asyncio.wait_for(awaitable, seconds)


async def becomes(condition: Callable[[], Awaitable[object]], seconds: float = DEADLINE) -> None:
    """Wait for an awaitable condition that no event announces."""

    async def poll() -> None:
        while not await condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), seconds)


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait for a condition that no event announces."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), seconds)


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process with SIGKILL, if it still runs, and close the pipes to it."""
    with process:
        process.kill()


def on_brokers(kinds: Iterable[type[Any]], slow: Container[type[Any]]) -> list[Any]:
    """The parameters of a test or a fixture that runs on several brokers. `make long` runs it on the slow ones."""
    import pytest  # the benchmarks use this module without pytest

    return [pytest.param(kind, id=kind.name, marks=[pytest.mark.long] if kind in slow else []) for kind in kinds]


def require(kind: type[Any]) -> None:
    """Skip a test if its broker is not installed; in CI, a missing broker is a failure."""
    import pytest  # the benchmarks use this module without pytest

    missing = kind.missing()
    if missing and os.environ.get("CI"):
        pytest.fail(f"{missing} is not installed, and no broker may be missing in CI")
    if missing:
        pytest.skip(f"{missing} is not installed")


def words_in(path: Path) -> list[str]:
    """The words in a file of another process; none when there is no file.

    A process that is killed as soon as its file exists may not have written to it.
    """
    return path.read_text().split() if path.exists() else []
