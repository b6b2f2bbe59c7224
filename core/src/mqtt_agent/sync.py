"""The same endpoints for plain scripts, threads and notebooks: every method blocks instead of being awaited.

>>> from mqtt_agent.sync import ToolClient
>>> with ToolClient("agent-a") as client:  # doctest: +SKIP
...     print(client.call("forecast", {"city": "Oslo"}))

The methods take what their namesakes in :mod:`mqtt_agent` take, return what those return, and raise what those raise.
They work inside a running event loop as well, which they block as any other blocking call does.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Concatenate, Generic, TypeVar

from typing_extensions import ParamSpec, Self

from mqtt_agent.background import Background
from mqtt_agent.tools import client as aio_client
from mqtt_agent.tools import handle as aio_handle
from mqtt_agent.tools import server as aio_server
from mqtt_agent.tools.context import SyncToolContext as ToolContext
from mqtt_agent.tools.directory import ToolChange
from mqtt_agent.transport import TLS, Connection, Credentials
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD, DEFAULT_NAMESPACE, Response

__all__ = ["CallHandle", "ToolClient", "ToolContext", "ToolServer"]

A = TypeVar("A", aio_client.ToolClient, aio_server.ToolServer, aio_handle.CallHandle)
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_started: set[_Endpoint[Any]]


class _Face(Generic[A]):
    """A blocking face of an async object that lives on the background loop."""

    def __init__(self, target: A, background: Background) -> None:
        self._async = target
        self._background = background

    def __repr__(self) -> str:
        return repr(self._async).replace("<", "<sync ", 1)

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._background.run(getattr(self._async, name), *args, **kwargs)

    def _iterate(self, iterator: AsyncIterator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    value = self._background.run(iterator.__anext__)
                except StopAsyncIteration:
                    return
                yield value
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                self._background.run(close)


def _blocking(
    method: Callable[Concatenate[Any, P], Awaitable[R]],
) -> Callable[Concatenate[_Face[Any], P], R]:
    """The blocking twin of an async method: same name, same parameters, same docstring."""
    name = method.__name__

    @functools.wraps(method)
    def blocking(self: _Face[Any], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(name, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]

    return blocking


class _Endpoint(_Face[A]):
    """What servers and clients have in common: a life between start and stop."""

    def __init__(self, target: A) -> None:
        super().__init__(target, Background())
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


_started = set()


@atexit.register
def _stop_all() -> None:
    # A script or a kernel that ends without stop() still says goodbye to its peers.
    for endpoint in list(_started):
        endpoint.stop()


class CallHandle(_Face[aio_handle.CallHandle]):
    """See :class:`mqtt_agent.CallHandle`."""

    @property
    def call_id(self) -> str:
        """Names the call."""
        return self._async.call_id

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self._async.tool

    @property
    def server(self) -> str | None:
        """The replica that runs or ran the call, as soon as it is known."""
        return self._async.server

    @property
    def elapsed_ms(self) -> float | None:
        """How long the handler took, in milliseconds, when the call is over."""
        return self._async.elapsed_ms

    @property
    def dropped_partials(self) -> int:
        """How many partials were dropped because nobody read them."""
        return self._async.dropped_partials

    @property
    def done(self) -> bool:
        """Whether the call is over, one way or another."""
        return self._async.done

    @property
    def timed_out(self) -> bool:
        """Whether nobody waits any more for a call that may still run."""
        return self._async.timed_out

    @property
    def response(self) -> Response | None:
        """The answer as it came, once there is one."""
        return self._async.response

    result = _blocking(aio_handle.CallHandle.result)
    cancel = _blocking(aio_handle.CallHandle.cancel)

    def partials(self) -> Iterator[Any]:
        """See :meth:`mqtt_agent.CallHandle.partials`."""
        return self._iterate(self._async.partials())


class ToolClient(_Endpoint[aio_client.ToolClient]):
    """See :class:`mqtt_agent.ToolClient`."""

    def __init__(
        self,
        name: str | None = None,
        *,
        broker: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        connection: Connection | None = None,
        session_expiry: int = 60,
        max_pending: int = 10_000,
        max_payload: int = 16 * DEFAULT_MAX_PAYLOAD,
        max_cards: int = 100_000,
    ) -> None:
        target = aio_client.ToolClient(
            name,
            broker=broker,
            namespace=namespace,
            credentials=credentials,
            tls=tls,
            connection=connection,
            session_expiry=session_expiry,
            max_pending=max_pending,
            max_payload=max_payload,
            max_cards=max_cards,
        )
        super().__init__(target)
        self.name = target.name
        self.connection = target.connection

    list_tools = _blocking(aio_client.ToolClient.list_tools)
    list_servers = _blocking(aio_client.ToolClient.list_servers)
    get_tool = _blocking(aio_client.ToolClient.get_tool)

    def watch_tools(self) -> Iterator[ToolChange]:
        """See :meth:`mqtt_agent.ToolClient.watch_tools`."""
        return self._iterate(self._async.watch_tools())

    def submit(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        wait_online: bool = False,
        retry: bool | None = None,
        call_id: str | None = None,
    ) -> CallHandle:
        """See :meth:`mqtt_agent.ToolClient.submit`."""
        handle = self._background.run(
            self._async.submit,
            tool,
            arguments,
            timeout=timeout,
            wait_online=wait_online,
            retry=retry,
            call_id=call_id,
        )
        return CallHandle(handle, self._background)

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30.0,
        on_partial: Callable[[Any], None] | None = None,
        wait_online: bool = False,
        retry: bool | None = None,
        call_id: str | None = None,
    ) -> Any:
        """See :meth:`mqtt_agent.ToolClient.call`; ``on_partial`` is called in the calling thread."""
        if on_partial is None:
            return self._background.run(
                self._async.call,
                tool,
                arguments,
                timeout=timeout,
                wait_online=wait_online,
                retry=retry,
                call_id=call_id,
            )
        handle = self.submit(tool, arguments, timeout=timeout, wait_online=wait_online, retry=retry, call_id=call_id)
        try:
            for partial in handle.partials():
                on_partial(partial)
            return handle.result()
        finally:
            if not handle.done:
                handle.cancel("the caller gave up")


class ToolServer(_Endpoint[aio_server.ToolServer]):
    """See :class:`mqtt_agent.ToolServer`. Handlers are called on the background loop, or in threads of its own."""

    def __init__(
        self,
        name: str,
        *,
        broker: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        replica: str | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        connection: Connection | None = None,
        max_concurrency: int = 64,
        drain_timeout: float = 10.0,
        will_delay: int = 5,
        session_expiry: int | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        replay_entries: int = 10_000,
        replay_seconds: float = 600.0,
    ) -> None:
        target = aio_server.ToolServer(
            name,
            broker=broker,
            namespace=namespace,
            replica=replica,
            credentials=credentials,
            tls=tls,
            connection=connection,
            max_concurrency=max_concurrency,
            drain_timeout=drain_timeout,
            will_delay=will_delay,
            session_expiry=session_expiry,
            max_payload=max_payload,
            replay_entries=replay_entries,
            replay_seconds=replay_seconds,
        )
        super().__init__(target)
        self.name = target.name
        self.replica = target.replica
        self.server_id = target.server_id
        self.connection = target.connection
        self.tool = target.tool
        self.add_tool = target.add_tool

    @property
    def tools(self) -> Any:
        """The cards of the tools that it offers."""
        return self._async.tools

    @property
    def active_calls(self) -> int:
        """How many calls run or wait here."""
        return self._async.active_calls

    def run(self) -> None:
        """See :meth:`mqtt_agent.ToolServer.run`. It starts the server itself.

        Raises:
            RuntimeError: The server has started already.
        """
        if self in _started:
            raise RuntimeError("run() starts the server itself: call it instead of start(), and outside of 'with'")
        self._async.run()

    serve_forever = _blocking(aio_server.ToolServer.serve_forever)
