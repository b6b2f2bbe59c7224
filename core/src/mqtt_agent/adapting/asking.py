"""Asks the requester of a task for a framework, which may run in other threads and on other event loops."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

from mqtt_agent.agents import TaskContext

__all__ = ["Asker"]


class Asker:
    """Asks the requester of a task, from any thread. A task can ask one question at a time, so others wait their turn.

    Create an asker on the event loop on which the task's handler runs.

    Args:
        task: The task whose requester is asked.

    Attributes:
        task: The task.
    """

    def __init__(self, task: TaskContext) -> None:
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._open: set[Future[Any]] = set()
        self._guard = threading.Lock()
        self._closed = False

    async def aask(self, prompt: str, schema: Any = None) -> Any:
        """Ask, and await the answer on any event loop.

        Args:
            prompt: The question.
            schema: JSON Schema of the answer, or None.

        Returns:
            The answer, any JSON value.

        Raises:
            CancelledError: The task is over.
        """
        return await asyncio.wrap_future(self._start(prompt, schema))

    def ask(self, prompt: str, schema: Any = None) -> Any:
        """Ask, and block for the answer; see :meth:`aask`.

        Raises:
            CancelledError: The task is over. The class is that of ``asyncio`` or of ``concurrent.futures``.
        """
        return self._start(prompt, schema).result()

    def close(self) -> None:
        """Cancel all questions without an answer. Later questions are canceled at once."""
        with self._guard:
            self._closed = True
            waiting = list(self._open)
        for each in waiting:
            each.cancel()

    def _start(self, prompt: str, schema: Any) -> Future[Any]:
        with self._guard:
            if self._closed:
                raise asyncio.CancelledError
            future = asyncio.run_coroutine_threadsafe(self._ask(prompt, schema), self._loop)
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    async def _ask(self, prompt: str, schema: Any) -> Any:
        async with self._turn:
            return await self.task.ask(prompt, schema)
