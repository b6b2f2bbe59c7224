"""Work on many items that leaves the event loop free for other work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

__all__ = ["in_steps"]

T = TypeVar("T")

_AT_ONCE = 100
"""How many items are handled before the event loop does other work. Each of them may take up to 0.1 ms."""


async def in_steps(items: Sequence[T]) -> AsyncIterator[T]:
    """Iterate over items. After each hundred of them, the event loop does other work.

    Args:
        items: The items. A list that changes meanwhile must be copied first.
    """
    for number, item in enumerate(items, 1):
        yield item
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
