"""Errors for the wrong kind of ``with`` statement, and for a method that would block an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

__all__ = ["NeedsAsyncWith", "NeedsWith", "refuse_in_event_loop"]


class NeedsAsyncWith:
    """The base of the async classes. Their use with ``with`` raises a TypeError that says what to do."""

    if not TYPE_CHECKING:  # type checkers refuse the wrong statement

        def __enter__(self) -> Any:
            raise TypeError(
                f"{type(self).__name__} is an async class: use 'async with' in an async function; "
                "for code without asyncio, mqtt_agent.sync has classes for 'with'"
            )

        def __exit__(self, *about: object) -> None: ...


class NeedsWith:
    """The base of the blocking classes. Their use with ``async with`` raises a TypeError that says what to do."""

    if not TYPE_CHECKING:

        async def __aenter__(self) -> Any:
            raise TypeError(
                f"{type(self).__name__} of mqtt_agent.sync blocks: use 'with'; "
                "for async code, mqtt_agent has a class of the same name for 'async with'"
            )

        async def __aexit__(self, *about: object) -> None: ...


def refuse_in_event_loop(what: str, instead: str) -> None:
    """Refuse a method that blocks until the program ends, when an event loop runs in this thread.

    Args:
        what: The method and its object, for example ``run() of agent weather``.
        instead: What to use in place of the method.

    Raises:
        RuntimeError: An event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{what} blocks, and an event loop runs in this thread already, as in a notebook or in async code: "
        f"use {instead}"
    )
