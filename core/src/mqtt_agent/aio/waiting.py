"""Futures on which one asyncio task waits, and which other code releases."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["release"]

T = TypeVar("T")


def release(waiting: asyncio.Future[T], value: T) -> None:
    """Let the asyncio task that waits go on, unless it goes on already or was canceled."""
    if not waiting.done():
        waiting.set_result(value)
