"""Lets an adapter write its work once, for code that blocks and for code that awaits.

Frameworks run most things in two ways: ``invoke`` blocks a thread, ``ainvoke`` is awaited. An adapter writes its work
as coroutines that await the methods of a :class:`Caller`. There are two kinds of callers:

- The methods of an :class:`AwaitingCaller` are awaited on the caller's event loop.
- The methods of a :class:`BlockingCaller` block the caller's thread and never suspend. A coroutine that awaits nothing
  else never suspends either, so :func:`block` needs no event loop to run the coroutine.

The coroutines run in the caller's own thread and context, where the framework's context variables are set. Only the
functions given to :meth:`Caller.on_loop` run on the event loop of the MQTT connection.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, ClassVar, Protocol, TypeVar

__all__ = ["AwaitingCaller", "BlockingCaller", "Caller", "Remote", "block", "iterate", "last"]

T = TypeVar("T")


class Remote(Protocol):
    """Runs functions on the event loop of an agent or a tool client, such as :class:`mqtt_agent.sync.ToolClient`."""

    def run_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent or client, *arguments)`` on the connection's event loop, and block for the result."""
        ...

    async def await_on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent or client, *arguments)`` on the connection's event loop, and await the result."""
        ...


class Caller(ABC):
    """The code that called the adapter: it blocks, or it awaits.

    Args:
        remote: The agent or the tool client that the adapter uses.
    """

    awaits: ClassVar[bool]
    """Whether the caller awaits; otherwise the caller blocks."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @abstractmethod
    async def on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent or client, *arguments)`` on the connection's event loop."""

    @abstractmethod
    async def undo(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a function on the connection's event loop to its end, even if the caller is canceled meanwhile."""

    @abstractmethod
    async def settle(self, value: Any) -> Any:
        """Get the value that a function of the user or of the framework returned, directly or as an awaitable.

        Raises:
            TypeError: The caller blocks, and ``value`` is an awaitable.
        """


class BlockingCaller(Caller):
    """A caller that blocks its thread."""

    awaits = False

    async def on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent or client, *arguments)`` on the connection's event loop, and block for the result."""
        return self._remote.run_on_loop(function, *arguments)

    async def undo(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a function on the connection's event loop, and block for the result."""
        return self._remote.run_on_loop(function, *arguments)

    async def settle(self, value: Any) -> Any:
        """Return the value. An awaitable raises ``TypeError``."""
        if inspect.iscoroutine(value):
            value.close()
        if inspect.isawaitable(value):
            raise TypeError(
                "code that blocks cannot call an async function: use ainvoke() or another async method, "
                "or give a plain function"
            )
        return value


class AwaitingCaller(Caller):
    """A caller that awaits, on any event loop."""

    awaits = True

    async def on_loop(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run ``function(agent or client, *arguments)`` on the connection's event loop, and await the result."""
        return await self._remote.await_on_loop(function, *arguments)

    async def undo(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run a function on the connection's event loop to its end, even if the caller is canceled meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._remote.await_on_loop(function, *arguments)))

    async def settle(self, value: Any) -> Any:
        """Return the value, after awaiting it if necessary."""
        return await value if inspect.isawaitable(value) else value


def block(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that awaits nothing but a :class:`BlockingCaller`, and block for the result."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise RuntimeError("code that blocks awaited something other than its BlockingCaller")


def iterate(pieces: AsyncGenerator[T, None]) -> Iterator[T]:
    """Iterate over an async generator that awaits nothing but a :class:`BlockingCaller`."""
    try:
        while True:
            try:
                piece = block(pieces.__anext__())
            except StopAsyncIteration:
                return
            yield piece
    finally:
        block(pieces.aclose())


async def last(pieces: AsyncGenerator[T, None]) -> T:
    """Return the last item of an async generator, which has at least one item."""
    found: list[T] = []
    async with aclosing(pieces):
        async for piece in pieces:
            found = [piece]
    return found[0]
