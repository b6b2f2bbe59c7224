"""Calls the handlers that users register: plain or async functions, which may raise anything."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from mqtt_agent.aio.daemon_threads import left_at_exit
from mqtt_agent.aio.groups import leaves_of, members_of

__all__ = [
    "HandlerFailed",
    "describe",
    "follow_threads",
    "in_handler",
    "is_async",
    "mark_handler",
    "raised_by",
    "run_for_handler",
    "run_in_thread",
    "without_surprises",
]

T = TypeVar("T")
_MAX_LEAVES = 10
"""How many exceptions of an exception group a message names."""

_in_handler: contextvars.ContextVar[bool] = contextvars.ContextVar("mqtt_agent_in_handler", default=False)
_threads: contextvars.ContextVar[tuple[asyncio.AbstractEventLoop, set[asyncio.Future[Any]]] | None]
_threads = contextvars.ContextVar("mqtt_agent_threads", default=None)


def mark_handler() -> None:
    """Note that the current asyncio task, and all tasks and threads that it starts, do the work of a handler."""
    _in_handler.set(True)


def in_handler() -> bool:
    """Whether the current code does the work of a handler."""
    return _in_handler.get()


class HandlerFailed(Exception):
    """Replaces a handler's exception that a future cannot hold. The original exception is the ``__cause__``."""


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling the handler returns something to await. The handler may be a partial or a callable object."""
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)


def without_surprises(function: Callable[[], T]) -> Callable[[], T]:
    """Wrap a function so that its result or exception can be put into a future.

    Returns:
        A function that runs ``function`` in a copy of the current context (see ``contextvars``).

    Raises:
        HandlerFailed: Raised by the returned function in place of StopIteration, SystemExit, GeneratorExit and
            KeyboardInterrupt.
    """
    context = contextvars.copy_context()

    def run() -> T:
        try:
            return context.run(function)
        except (StopIteration, SystemExit, GeneratorExit, KeyboardInterrupt) as error:
            # A future refuses StopIteration. The others would end the event loop or the process, not just this call.
            raise HandlerFailed(error) from error

    return run


def run_in_thread(function: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run a function in a daemon thread of its own.

    The thread cannot keep the process from exiting, and neither can the threads of pools that the function makes.

    Unlike :func:`asyncio.to_thread`, this never waits for a thread: other code may block all threads of the event
    loop's default executor. Canceling the future does not stop the thread.

    Args:
        function: The function.
        name: The thread's name, for debugging.

    Returns:
        A future of the running event loop with the function's result or exception.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
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
        with left_at_exit():
            try:
                result = guarded()
            except BaseException as error:
                failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits for the function any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def follow_threads() -> set[asyncio.Future[Any]]:
    """Begin to collect the threads that the handler of the current asyncio task uses; see :func:`run_for_handler`.

    This includes :func:`mark_handler`.

    Returns:
        The futures of the threads that run at present. The set stays up to date.
    """
    mark_handler()
    running: set[asyncio.Future[Any]] = set()
    _threads.set((asyncio.get_running_loop(), running))
    return running


async def run_for_handler(function: Callable[[], T], name: str) -> T:
    """Run blocking code of a handler in a thread of its own, and wait for the code's end.

    When this coroutine is canceled, the thread continues, and counts as a part of the handler until it ends. Until then
    the set that :func:`follow_threads` returned has the thread's future.

    Args:
        function: The function.
        name: The thread's name, for debugging.

    Returns:
        The result of the function.
    """
    thread = run_in_thread(function, name)
    loop, running = _threads.get() or (None, None)
    if running is not None and loop is asyncio.get_running_loop():
        running.add(thread)
        thread.add_done_callback(running.discard)
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        thread.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise


def raised_by(error: BaseException) -> BaseException:
    """The exception that a handler raised: without its wrapper, and without exception groups of one exception."""
    while True:
        members = members_of(error)
        if isinstance(error, HandlerFailed) and error.__cause__ is not None:
            error = error.__cause__
        elif len(members) == 1:
            error = members[0]
        else:
            return error


def describe(error: BaseException) -> tuple[str, str]:
    """The class name and the message of a handler's exception. The message may contain lone surrogates.

    The message of an exception group names the exceptions in the group, because ``asyncio.TaskGroup`` says only how
    many there are.
    """
    error = raised_by(error)
    message = _text_of(error)
    leaves = [] if not members_of(error) else list(leaves_of(error))
    if leaves:
        texts = [f"{type(leaf).__name__}: {_text_of(leaf)}" for leaf in leaves[:_MAX_LEAVES]]
        message = f"{message}: {'; '.join([*texts, '...'] if len(leaves) > _MAX_LEAVES else texts)}"
    return type(error).__name__, message


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""
