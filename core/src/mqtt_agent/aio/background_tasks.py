"""Runs asyncio tasks in the background, and reports their failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

__all__ = ["BackgroundTasks"]

T = TypeVar("T")


class BackgroundTasks:
    """Keeps asyncio tasks alive while they run, and reports tasks that fail.

    Example:
        >>> tasks = BackgroundTasks(lambda task, error: logger.error("%s", error))  # doctest: +SKIP
        >>> tasks.start(send_card())  # doctest: +SKIP
        >>> tasks.cancel()  # doctest: +SKIP

    Args:
        on_failure: Called with each task that raised, and with its exception. With None, asyncio logs an exception that
            no code has retrieved.
    """

    def __init__(self, on_failure: Callable[[asyncio.Task[Any], BaseException], None] | None = None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # asyncio keeps only weak references to tasks
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, coroutine: Coroutine[Any, Any, T], name: str | None = None, on_end: Callable[[], None] | None = None
    ) -> asyncio.Task[T]:
        """Run a coroutine on the running event loop.

        Args:
            coroutine: The coroutine.
            name: The task's name, for debugging.
            on_end: Called when the task is over, also when it was canceled before its first step.
        """
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        if on_end is not None:
            task.add_done_callback(partial(self._on_done, on_end=on_end))
        else:
            task.add_done_callback(self._tasks.discard if self._on_failure is None else self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any], on_end: Callable[[], None] | None = None) -> None:
        self._tasks.discard(task)
        if on_end is not None:
            on_end()
        if self._on_failure is not None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._on_failure(task, error)

    def cancel(self) -> None:
        """Cancel all running tasks, without waiting for their end."""
        for task in tuple(self._tasks):
            task.cancel()

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until all tasks that run now have ended, successfully or not.

        Args:
            timeout: Seconds to wait at most; None is no limit. No task is canceled when the time is over.
        """
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=timeout)
