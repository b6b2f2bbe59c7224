"""Makes blocking classes from async classes: the async methods run on the background loop, and the caller waits."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, Protocol, TypeVar

from typing_extensions import ParamSpec, Self

from mqtt_agent.aio.contexts import NeedsWith
from mqtt_agent.aio.forks import in_child
from mqtt_agent.aio.handlers import run_in_thread
from mqtt_agent.errors import ConnectedBeforeFork
from mqtt_agent.sync.loop import Background

__all__ = ["Endpoint", "Wrapper", "is_started", "parameters_of"]


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


A = TypeVar("A")
S = TypeVar("S", bound=_Startable)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_started: set[Endpoint[Any]] = set()


def parameters_of(
    method: Callable[Concatenate[Any, P], Any],
) -> Callable[[Callable[..., R]], Callable[Concatenate[Any, P], R]]:
    """Decorate a blocking method that passes all its arguments on to an async method.

    Type checkers, ``help()`` and :func:`inspect.signature` then show the parameters of the async method. At run time
    the decorated method has the async method's docstring, too.

    Example:
        >>> class ToolClient(Endpoint[aio_client.ToolClient]):  # doctest: +SKIP
        ...     @parameters_of(aio_client.ToolClient.list_tools)
        ...     def list_tools(self, *args: Any, **kwargs: Any) -> list[ToolCard]:
        ...         return self._background.run(self._async.list_tools, *args, **kwargs)

    Args:
        method: The async method.
    """

    def decorate(function: Callable[..., R]) -> Callable[Concatenate[Any, P], R]:
        functools.update_wrapper(function, method)
        return function

    return decorate


class Wrapper(Generic[A]):
    """A blocking object around an async object, whose coroutines run on the background loop.

    Args:
        target: The async object.
        background: Access to the loop on which the async object runs.
    """

    def __init__(self, target: A, background: Background) -> None:
        self._async = target
        self._background = background

    def __repr__(self) -> str:
        return repr(self._async).replace("<", "<sync ", 1)

    def _watch(self, watch: Callable[..., AsyncIterator[T]], *args: Any) -> Iterator[T]:
        """Begin to watch on the background loop, and make a blocking iterator of the changes from now on."""

        async def begin() -> AsyncIterator[T]:
            return watch(*args)

        return self._iterate(self._background.run(begin))

    def _iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        """Make a blocking iterator from an async iterator."""
        asked: asyncio.Future[T] | None = None

        async def ask() -> T:
            nonlocal asked
            asked = asyncio.ensure_future(iterator.__anext__())
            return await asyncio.shield(asked)

        async def close() -> None:
            if asked is not None and not asked.done():
                # Ctrl-C ended the wait. An async generator can be closed only when it does not run.
                asked.cancel()
                await asyncio.wait([asked])
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()

        try:
            while True:
                try:
                    value = self._background.run(ask)
                except StopAsyncIteration:
                    return
                yield value
        finally:
            with contextlib.suppress(ConnectedBeforeFork):  # the parent process has the same iterator
                self._background.run(close)


def is_started(endpoint: Endpoint[Any]) -> bool:
    """Whether an endpoint was started and not stopped yet."""
    return endpoint in _started


class Endpoint(NeedsWith, Wrapper[S]):
    """The base of the blocking agents, tool servers and tool clients, which are started and stopped.

    Args:
        target: The async endpoint.
        background: Access to the loop on which the async endpoint runs. None makes a new :class:`Background`.
    """

    def __init__(self, target: S, background: Background | None = None) -> None:
        super().__init__(target, background or Background())
        self._renew_lock()
        in_child(self._renew_lock)  # another thread may start the endpoint at the fork

    @property
    def inherited(self) -> bool:
        """Whether the endpoint was started before ``os.fork()``, and this is the child process, which cannot use it."""
        return self._background.inherited

    def _renew_lock(self) -> None:
        self._starting = threading.Lock()

    def start(self) -> None:
        """See the async method of the same name."""
        with self._starting:
            if self in _started:
                return
            self._background.__enter__()
            try:
                self._run_to_its_end(self._async.start)
            except BaseException:
                self._background.__exit__(None, None, None)
                raise
            _started.add(self)

    def stop(self) -> None:
        """See the async method of the same name."""
        self.stop_unless(lambda: False)

    def stop_unless(self, needed: Callable[[], bool]) -> None:
        """Stop, unless the endpoint is needed. A start at the same time waits for the stop, and starts again.

        Args:
            needed: Whether somebody uses the endpoint. A user must make this true before the user starts the endpoint.
        """
        with self._starting:
            if self not in _started:
                return
            _started.discard(self)  # from now on, a new user waits for this stop
            if needed():
                _started.add(self)
                return
            try:
                self._run_to_its_end(self._async.stop)
            finally:
                self._background.__exit__(None, None, None)

    def _run_to_its_end(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a start or stop. After Ctrl-C, complete a stop before the background loop ends."""
        try:
            self._background.run(step)
        except KeyboardInterrupt:
            self._background.run(self._async.stop)
            raise

    def run_on_loop(self, function: Callable[Concatenate[S, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a coroutine function on the background loop, and block until it returns.

        The endpoint starts if it was not started. This method is for adapters to frameworks that call a tool or an
        agent from sync code and from async code.

        Args:
            function: The coroutine function. Its first argument is the async endpoint.
            args: Its other positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The value that the coroutine function returns.
        """
        self.start()
        return self._background.run(function, self._async, *args, **kwargs)

    async def await_on_loop(
        self, function: Callable[Concatenate[S, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a coroutine function on the background loop, and await its result on the caller's own loop.

        The arguments and the result are those of :meth:`run_on_loop`.
        """
        if self not in _started:
            await run_in_thread(self.start, "mqtt-agent-start")
        return await self._background.run_async(function, self._async, *args, **kwargs)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


@in_child
def _forget_all() -> None:
    _started.clear()


@atexit.register
def _stop_all() -> None:
    # A script or a notebook kernel may end without stop(). Its agents and servers must still publish that they stop.
    for endpoint in list(_started):
        endpoint.stop()
