"""Which handler takes which task."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mqtt_agent.aio.handlers import is_async

__all__ = ["Router", "TaskHandler"]

TaskHandler = Callable[..., Any]


class Router:
    """The handlers of an agent: one for each type of task, and one for all others."""

    def __init__(self) -> None:
        self._handlers: dict[str | None, TaskHandler] = {}

    def __bool__(self) -> bool:
        return bool(self._handlers)

    @property
    def types(self) -> list[str]:
        """The types that have a handler of their own."""
        return sorted(name for name in self._handlers if name is not None)

    def add(self, type: str | None, handler: TaskHandler) -> None:
        """Give tasks of this type to this handler; None for all types that have none.

        Raises:
            TypeError: It cannot be called with one task.
            ValueError: There is one already.
        """
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError("a generator cannot be a task handler: await the task's stream() instead of yielding")
        try:
            inspect.signature(handler).bind(None)
        except TypeError as error:
            raise TypeError(f"a task handler takes one argument, the TaskContext: {error}") from None
        if type in self._handlers:
            what = "other tasks" if type is None else f"tasks of type {type!r}"
            raise ValueError(f"there is a handler for {what} already")
        self._handlers[type] = handler

    def find(self, type: str | None) -> TaskHandler | None:
        """The handler for tasks of this type."""
        return self._handlers.get(type) or self._handlers.get(None)

    @staticmethod
    def is_async(handler: TaskHandler) -> bool:
        """Whether it runs on the loop; a plain function gets a thread."""
        return is_async(handler)
