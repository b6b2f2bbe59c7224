"""Starts and stops an endpoint any number of times: one start or stop at a time.

A *life* of an endpoint is the time from a start to the next stop. Each life runs on one event loop. Tasks,
timers and asyncio's primitives belong to one event loop. So an endpoint makes all of them when a life begins, and not
in its constructor. Then nothing of an earlier life remains when the endpoint starts again on another loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

__all__ = ["Lifecycle", "refuse_own_stop", "surely"]

T = TypeVar("T")
Step = Callable[[], Coroutine[Any, Any, None]]


class Lifecycle:
    """Knows on which event loop an endpoint runs, and lets one start or stop run at a time.

    Example:
        >>> async def start(self) -> None:  # doctest: +SKIP
        ...     await self._lifecycle.start(self._begin, self._end)
        >>> async def stop(self) -> None:  # doctest: +SKIP
        ...     await self._lifecycle.stop(self._end)

    Args:
        name: Returns the endpoint's name, for errors.

    Attributes:
        loop: The event loop on which the endpoint is started; None while the endpoint is not started.
        user: The event loop on which the endpoint starts, runs or stops now; None when the endpoint does none of these.
    """

    def __init__(self, name: Callable[[], str]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.user: asyncio.AbstractEventLoop | None = None
        self._name = name
        self._turn = asyncio.Lock()
        self._turns = 0

    @property
    def started(self) -> bool:
        """Whether the endpoint is started. Only the holder of the turn sets this."""
        return self.loop is not None

    @started.setter
    def started(self, started: bool) -> None:
        self.loop = self.user if started else None

    async def start(self, begin: Step, end: Step) -> None:
        """Begin a life, unless the endpoint is started.

        Args:
            begin: Begins the life. It makes everything that belongs to the event loop.
            end: Undoes what ``begin`` has done so far, when ``begin`` fails or is canceled. It runs to its end,
                even when the caller is canceled again.

        Raises:
            RuntimeError: The endpoint is in use on another event loop.
            BaseException: The error of ``begin``.
        """
        async with self.turn():
            if self.started:
                return
            try:
                await begin()
            except BaseException:
                await surely(end())
                raise
            self.started = True

    async def stop(self, end: Step, on_cancel: Callable[[], None] | None = None) -> None:
        """End the life, if the endpoint is started. The end is complete, even when the caller is canceled.

        Args:
            end: Ends the life.
            on_cancel: Called when the caller is canceled. It can make ``end`` return sooner.

        Raises:
            RuntimeError: The endpoint is in use on another event loop.
        """
        await surely(self._stop(end), on_cancel)

    async def _stop(self, end: Step) -> None:
        async with self.turn():
            if self.started:
                self.started = False
                await end()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait until no other start or stop runs. No other start or stop begins until the ``async with`` block ends.

        Raises:
            RuntimeError: The endpoint is in use on another event loop.
        """
        loop = asyncio.get_running_loop()
        if self.user is None:
            self.user, self._turn = loop, asyncio.Lock()
        elif self.user is not loop:
            self._refuse(self.user)
        self._turns += 1
        try:
            async with self._turn:
                yield
        finally:
            self._turns -= 1
            if not self._turns and not self.started:
                self.user = None

    def check_loop(self) -> None:
        """Raise an error when the endpoint is started on another event loop than the running one.

        Raises:
            RuntimeError: The endpoint is started on another event loop.
        """
        if self.loop is not None and self.loop is not asyncio.get_running_loop():
            self._refuse(self.loop)

    def _refuse(self, loop: asyncio.AbstractEventLoop) -> NoReturn:
        if loop.is_closed():
            raise RuntimeError(
                f"{self._name()} was started, and its event loop has ended without a stop(): make a new object, "
                "and stop it before its event loop ends, for example with 'async with'"
            )
        raise RuntimeError(
            f"{self._name()} runs on another event loop: await its stop() there first, or make another object for "
            "this event loop"
        )


def refuse_own_stop(handlers: Iterable[asyncio.Task[Any] | None], name: str) -> None:
    """Raise an error for a handler that awaits the stop of its own endpoint, which waits for the handler.

    Args:
        handlers: The asyncio tasks of the endpoint's handlers.
        name: The endpoint's name, for the error.

    Raises:
        RuntimeError: The running asyncio task is one of these.
    """
    current = asyncio.current_task()
    if any(each is current for each in handlers):
        raise RuntimeError(
            f"a handler of {name} cannot await stop(), which waits until the handler has ended: start it as a task, "
            "asyncio.create_task(...), and let the handler return"
        )


async def surely(work: Coroutine[Any, Any, T], on_cancel: Callable[[], None] | None = None) -> T:
    """Await work until it ends, even when the waiting task is canceled. The cancellation is raised after the end.

    Use it for work that must not be left half done, such as a stop.

    Args:
        work: A coroutine, which runs in a task of its own.
        on_cancel: Called at each cancellation. It can make the work end sooner.

    Returns:
        The value that the work returned.

    Raises:
        asyncio.CancelledError: The waiting task was canceled, and the work has ended.
        Exception: Any error of the work.
    """
    task = asyncio.ensure_future(work)
    canceled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            canceled = error
            if on_cancel is not None:
                on_cancel()
    if canceled is not None:
        raise canceled from (None if task.cancelled() else task.exception())
    return task.result()
