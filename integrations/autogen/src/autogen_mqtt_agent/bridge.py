"""Between AutoGen's event loop and the one that the connection lives on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from autogen_core import CancellationToken

__all__ = ["Emit", "Outcome", "stream"]

T = TypeVar("T")

Emit = Callable[[Any], None]
"""Takes one thing on its way to the other loop; may be called in any thread."""


class Outcome(Generic[T]):
    """The last thing that :func:`stream` gives.

    Attributes:
        value: What the work returned, when it did.
        error: What it raised instead; :class:`asyncio.CancelledError` when it was canceled.
    """

    def __init__(self, value: T | None = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error

    def get(self) -> T:
        """The value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


async def stream(
    work: Callable[[Emit], Awaitable[T]], token: CancellationToken | None
) -> AsyncGenerator[Any | Outcome[T], None]:
    """Run ``work``, give what it emits as it comes, and at last its :class:`Outcome`. It never raises by itself.

    The token cancels the work, and so does closing this generator.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    task = asyncio.ensure_future(cast(Coroutine[Any, Any, T], work(lambda each: _put(loop, queue, each))))

    def on_done(done: asyncio.Future[T]) -> None:
        if not done.cancelled():
            done.exception()  # it is no fault when nobody waits for it any more
        queue.put_nowait(_END)

    task.add_done_callback(on_done)
    if token is not None:
        # The token calls back under its lock, in whatever thread cancels it.
        token.add_callback(lambda: _soon(loop, task.cancel))
    try:
        while True:
            try:
                each = await queue.get()
            except asyncio.CancelledError as error:
                task.cancel()
                yield Outcome[T](error=error)
                return
            if each is _END:
                break
            yield each
        yield _outcome(task)
    finally:
        task.cancel()


_END = object()


def _outcome(task: asyncio.Future[T]) -> Outcome[T]:
    if task.cancelled():
        return Outcome(error=asyncio.CancelledError())
    error = task.exception()
    return Outcome(error=error) if error is not None else Outcome(task.result())


def _put(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], each: Any) -> None:
    _soon(loop, lambda: queue.put_nowait(each))


def _soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)
