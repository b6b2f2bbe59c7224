"""Chooses the handler of a task: a type of task may have its own handler; another handler takes all other tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from mqtt_agent.aio.handlers import is_async

__all__ = ["Router", "TaskHandler"]

TaskHandler = Callable[..., Any]


class Router:
    """The handlers of one agent. A router is true when it has a handler."""

    def __init__(self) -> None:
        self._handlers: dict[str | None, TaskHandler] = {}

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def add(self, type: str | None, handler: TaskHandler) -> None:
        """Add a handler.

        Args:
            type: The type of the handler's tasks; None for all tasks whose type has no handler of its own.
            handler: A function that takes one argument, the :class:`TaskContext`.

        Raises:
            TypeError: ``handler`` cannot be called with one argument, or is a generator.
            ValueError: These tasks have a handler already.
        """
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError("a generator cannot be a task handler: await the task's stream() instead of yielding")
        try:
            inspect.signature(handler).bind(None)
        except TypeError:
            name = getattr(handler, "__name__", repr(handler))
            what = f"{name}{inspect.signature(handler)}"
            raise TypeError(f"a task handler takes one argument, the TaskContext, and this is {what}") from None
        if type in self._handlers:
            first = getattr(self._handlers[type], "__name__", "another function")
            what = f"tasks of type {type!r}" if type else "tasks without a handler of their own type"
            raise ValueError(
                f"{first} handles {what} already: give this handler a type of its own, as in @agent.on_task('research')"
            )
        self._handlers[type] = handler

    def find(self, type: str | None) -> TaskHandler | None:
        """The handler for tasks of a type; None when no handler takes them."""
        return self._handlers.get(type) or self._handlers.get(None)

    @staticmethod
    def is_async(handler: TaskHandler) -> bool:
        """Whether a handler runs on the event loop. A plain function runs in a thread."""
        return is_async(handler)
