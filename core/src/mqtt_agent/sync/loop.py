"""The background loop: the event loop, in its own thread, on which the blocking classes run their async objects.

All blocking agents, tool servers and tool clients of a process share this loop. So any number of threads and event
loops can use one connection to the broker. The loop starts when the first of these objects starts, and ends when the
last one stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import ParamSpec

from mqtt_agent.aio.forks import in_child
from mqtt_agent.display.frames import place_here
from mqtt_agent.display.screen import find_shell
from mqtt_agent.display.uncaught import end_quietly
from mqtt_agent.errors import ConnectedBeforeFork, ConnectionLost, MQTTAgentError
from mqtt_agent.logs import logger_of

__all__ = ["Background"]

logger: logging.Logger = logger_of(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# The default event loop of Windows cannot watch a socket for paho-mqtt; a selector loop can.
_new_loop: Callable[[], asyncio.AbstractEventLoop] = (
    asyncio.SelectorEventLoop if sys.platform == "win32" else asyncio.new_event_loop
)
_told = False


class _SharedLoop:
    """The background loop. It runs in a thread of its own, from the first :meth:`enter` to the last :meth:`leave`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="mqtt-agent-loop", daemon=True)
                self._thread.start()
            return self._loop

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_finish())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _finish() -> None:
    loop, rest = asyncio.get_running_loop(), asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


_shared = _SharedLoop()


@in_child
def _renew() -> None:
    global _shared
    _shared = _SharedLoop()


class Background:
    """Access to the background loop, for as long as the ``with`` block lasts.

    The loop runs while at least one ``with`` block is open. Each endpoint holds one such access from start to stop.

    Example:
        >>> with Background() as background:  # doctest: +SKIP
        ...     background.run(client.start)

    Attributes:
        inherited: Whether the process was forked while the access was open, and this is the child process. The
            background loop runs in the parent process only.
    """

    def __init__(self) -> None:
        self.inherited: bool = False
        self._loop: asyncio.AbstractEventLoop | None = None
        in_child(self._after_fork)

    def _after_fork(self) -> None:
        self.inherited = self.inherited or self._loop is not None
        self._loop = None

    def __enter__(self) -> Background:
        self._check_process()
        if self._loop is None:
            self._loop = _shared.enter()
        return self

    def _check_process(self) -> None:
        if self.inherited:
            raise ConnectedBeforeFork(
                "this endpoint was started before os.fork(), so it belongs to the parent process: make an endpoint in "
                "this child process, or stop the endpoint before the fork, so that it connects in the child"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop = None
            _shared.leave()

    def start(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Start a coroutine function on the background loop, and return at once.

        Args:
            function: The coroutine function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The future of the result. When the future is canceled, the coroutine is canceled too.

        Raises:
            ConnectionLost: The ``with`` block of this access has not begun, or has ended.
            ConnectedBeforeFork: The ``with`` block began before ``os.fork()``, and this is the child process.
            RuntimeError: The caller runs on the background loop itself. Waiting there would block the loop forever.
        """
        loop = self._entered()
        here = _running_loop()
        if here is not None and here is not loop:
            _tell_that_it_blocks()
        if here is loop:
            raise RuntimeError(
                "a blocking method was called on the background loop, which would wait for itself: "
                "use the async classes of mqtt_agent in async handlers"
            )
        return asyncio.run_coroutine_threadsafe(_awaited(function, args, kwargs), loop)

    @property
    def is_here(self) -> bool:
        """Whether the running code runs on the background loop, where nothing may block."""
        return self._loop is not None and _running_loop() is self._loop

    def _entered(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._check_process()
            raise ConnectionLost("not started: use 'with', or call start() first")
        return self._loop

    def run(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a coroutine function on the background loop, and block until it returns. Ctrl-C cancels the coroutine.

        The arguments and the errors are those of :meth:`start`.
        """
        future = self.start(function, *args, **kwargs)
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, KeyboardInterrupt):
                end_quietly(error, MQTTAgentError)
            raise

    async def run_async(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a coroutine function on the background loop, and await its result on the caller's own loop.

        When the waiting task is canceled, the coroutine is canceled too.

        Raises:
            ConnectionLost: The ``with`` block of this access has not begun, or has ended.
        """
        loop, here = self._entered(), asyncio.get_running_loop()
        if here is loop:
            return await function(*args, **kwargs)
        # Not asyncio.wrap_future(): its chain of futures and callbacks takes one more iteration of each event loop.
        result: asyncio.Future[R] = here.create_future()
        task: asyncio.Task[None] | None = None

        async def carry_out() -> None:
            value: Any = None
            failure: BaseException | None = None
            try:
                value = await function(*args, **kwargs)
            except BaseException as error:
                failure = error
                if not isinstance(error, Exception):
                    raise
            finally:
                with contextlib.suppress(RuntimeError):  # the caller's loop is closed
                    here.call_soon_threadsafe(_settle, result, value, failure)

        def begin() -> None:
            nonlocal task
            task = loop.create_task(carry_out())

        def cancel() -> None:
            if task is not None:
                task.cancel()

        loop.call_soon_threadsafe(begin)
        try:
            return await result
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(cancel)
            raise


def _settle(result: asyncio.Future[Any], value: Any, failure: BaseException | None) -> None:
    if result.done():
        return
    if failure is None:
        result.set_result(value)
    elif isinstance(failure, asyncio.CancelledError):
        result.cancel()
    else:
        result.set_exception(failure)


async def _awaited(function: Callable[..., Awaitable[R]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    return await function(*args, **kwargs)


def _tell_that_it_blocks() -> None:
    """Warn once that an event loop is blocked. In IPython, an event loop always runs, and blocking is usual."""
    global _told
    if not _told and find_shell() is None:
        _told = True
        logger.warning(
            "a blocking call of mqtt_agent.sync stops the event loop of this thread until the call returns (at %s): "
            "use the async classes of mqtt_agent in async code",
            place_here(),
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
