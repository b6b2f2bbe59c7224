"""Calling the functions that users hand over, whatever they are like."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["HandlerFailed", "describe", "is_async", "run_in_thread", "without_surprises"]


class HandlerFailed(Exception):
    """An exception of a handler that must not leave its thread as it is; the exception is the cause."""


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether a call of it gives something to await."""
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)


def without_surprises(function: Callable[[], Any]) -> Callable[[], Any]:
    """The same in a copy of the present context, without the exceptions that a future cannot carry."""
    context = contextvars.copy_context()

    def run() -> Any:
        try:
            return context.run(function)
        except (StopIteration, SystemExit, GeneratorExit, KeyboardInterrupt) as error:
            # A future does not take the first, and the others would end more than the call.
            raise HandlerFailed(error) from error

    return run


def run_in_thread(function: Callable[[], Any], name: str) -> asyncio.Future[Any]:
    """Run a function in a thread of its own, which does not keep the process from ending.

    Returns:
        A future of the running loop with what the function returned or raised.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    guarded = without_surprises(function)

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def run() -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = guarded()
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def describe(error: BaseException) -> tuple[str, str]:
    """Class name and message of a handler's exception: whatever it is like, both can be sent."""
    if isinstance(error, HandlerFailed) and error.__cause__ is not None:
        error = error.__cause__
    try:
        message = str(error).encode(errors="backslashreplace").decode()
    except Exception:
        message = ""
    return type(error).__name__, message
