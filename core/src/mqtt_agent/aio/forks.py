"""Tells the parts of this library that the process was forked.

After ``os.fork()``, the child process has a copy of every object of the parent process, but none of its threads. The
copies of sockets, of lock files and of event loops still belong to the parent. So in the child, process-wide state is
made again, and an endpoint that was connected must not be used. Every part of this library that has such state
registers a function here.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import weakref
from collections.abc import Callable
from typing import TypeVar

from mqtt_agent.logs import logger_of

__all__ = ["around_fork", "in_child"]

logger: logging.Logger = logger_of(__name__)

Hook = Callable[[], None]
H = TypeVar("H", bound=Hook)

_hooks: dict[int, Callable[[], Hook | None]] = {}  # in the order of their registration
_numbers = itertools.count()


def in_child(hook: H) -> H:
    """Call a function in each child process, immediately after ``os.fork()``.

    The functions are called in the order of their registration. At that moment the child has one thread. A function
    must not wait for anything, and must not use the network.

    Args:
        hook: A function of a module, or a method. A method is forgotten when its object is deleted.

    Returns:
        The function itself, so that this can be a decorator.
    """
    number = next(_numbers)
    hooks = _hooks  # at the end of the interpreter, the names of a module may go before its objects
    hooks[number] = _weakly(hook, lambda: hooks.pop(number, None)) or (lambda: hook)
    return hook


def around_fork(before: Hook, after: Hook) -> None:
    """Call one function before each ``os.fork()``, and another one after it, both in the parent process."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after)


def _weakly(hook: Hook, on_end: Callable[[], object]) -> Callable[[], Hook | None] | None:
    """A weak reference to a method; None for a function."""
    if not inspect.ismethod(hook):
        return None
    # A WeakMethod prints an error when it goes before its object, as it may at the end of the interpreter.
    function, owner = hook.__func__, weakref.ref(hook.__self__, lambda _: on_end())

    def get() -> Hook | None:
        there = owner()
        return None if there is None else functools.partial(function, there)

    return get


def _tell_child() -> None:
    for get in list(_hooks.values()):
        hook = get()
        if hook is not None:
            try:
                hook()
            except Exception:  # one part must not keep the others from being told
                logger.exception("a part of mqtt_agent could not be set up for the forked process")


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_tell_child)
