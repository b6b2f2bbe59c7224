"""Small helpers for tests that wait: for an event, with a deadline, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 10.0


async def soon(awaitable: Awaitable[T], seconds: float = DEADLINE) -> T:
    """Await something that must happen soon."""
    return await asyncio.wait_for(awaitable, seconds)


async def becomes(condition: Callable[[], Awaitable[object]], seconds: float = DEADLINE) -> None:
    """Wait for a condition that nothing announces, and that has to be awaited."""

    async def poll() -> None:
        while not await condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), seconds)


async def until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait for a condition that nothing announces."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), seconds)
