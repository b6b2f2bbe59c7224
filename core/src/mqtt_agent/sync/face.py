"""How an async object that lives on the background loop gets methods that block."""

from __future__ import annotations

import asyncio
import atexit
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, TypeVar

from typing_extensions import ParamSpec, Self

from mqtt_agent.sync.loop import Background

__all__ = ["Endpoint", "Face", "blocking", "blocking_handle", "constructor", "is_started"]

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F")

_started: set[Endpoint[Any]] = set()


class Face(Generic[A]):
    """A blocking face of an async object that lives on the background loop."""

    def __init__(self, target: A, background: Background) -> None:
        self._async = target
        self._background = background

    def __repr__(self) -> str:
        return repr(self._async).replace("<", "<sync ", 1)

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._background.run(getattr(self._async, name), *args, **kwargs)

    def _iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        asked: asyncio.Future[T] | None = None

        async def ask() -> T:
            nonlocal asked
            asked = asyncio.ensure_future(iterator.__anext__())
            return await asyncio.shield(asked)

        async def close() -> None:
            if asked is not None and not asked.done():  # Ctrl-C; no async generator can be closed before that is over
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
            self._background.run(close)


def blocking(
    method: Callable[Concatenate[Any, P], Awaitable[R]],
) -> Callable[Concatenate[Face[Any], P], R]:
    """The blocking twin of an async method: same name, same parameters, same docstring."""
    name = method.__name__

    @functools.wraps(method)
    def wrapper(self: Face[Any], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(name, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]

    return wrapper


def blocking_handle(
    method: Callable[Concatenate[Any, P], Awaitable[A]], face: Callable[[A, Background], F]
) -> Callable[Concatenate[Face[Any], P], F]:
    """The same for a method that gives a handle: the twin gives the handle's face."""
    name = method.__name__

    @functools.wraps(method)
    def wrapper(self: Face[Any], *args: P.args, **kwargs: P.kwargs) -> F:
        return face(self._run(name, *args, **kwargs), self._background)  # pyright: ignore[reportPrivateUsage]

    return wrapper


def constructor(target: Callable[P, Any]) -> Callable[Concatenate[Any, P], None]:
    """An ``__init__`` with the parameters of an async class, which makes one of those and wraps it."""

    @functools.wraps(target.__init__)  # pyright: ignore[reportFunctionMemberAccess]
    def construct(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        self.wrap(target(*args, **kwargs))

    return construct


def is_started(endpoint: Endpoint[Any]) -> bool:
    """Whether it is between start and stop."""
    return endpoint in _started


class Endpoint(Face[A]):
    """What servers and clients have in common: a life between start and stop."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("the constructor of an endpoint is made by constructor()")

    def wrap(self, target: A, background: Background | None = None) -> None:
        """Become the face of ``target``, on a lease of its own unless one is given."""
        super().__init__(target, background or Background())
        self._starting = threading.Lock()

    def start(self) -> None:
        """See the async method of the same name."""
        with self._starting:
            if self in _started:
                return
            self._background.__enter__()
            try:
                self._run("start")
            except BaseException:
                self._background.__exit__(None, None, None)
                raise
            _started.add(self)

    def stop(self) -> None:
        """See the async method of the same name."""
        with self._starting:
            if self not in _started:
                return
            _started.discard(self)
            try:
                self._run("stop")
            finally:
                self._background.__exit__(None, None, None)

    def run_on_loop(self, function: Callable[Concatenate[A, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Block for a coroutine function that runs on the background loop, with the async endpoint as first argument.

        It starts the endpoint on first use. For adapters to frameworks that are sync in one place, async in another.
        """
        self.start()
        return self._background.run(function, self._async, *args, **kwargs)

    async def await_on_loop(
        self, function: Callable[Concatenate[A, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The same, awaited on the caller's own loop, whichever that is."""
        if self not in _started:
            await asyncio.to_thread(self.start)
        return await self._background.run_async(function, self._async, *args, **kwargs)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


@atexit.register
def _stop_all() -> None:
    # A script or a kernel that ends without stop() still says goodbye to its peers.
    for endpoint in list(_started):
        endpoint.stop()
