"""Tools without asyncio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.sync.face import Endpoint, Face, blocking, blocking_handle, constructor, is_started
from mqtt_agent.sync.loop import Background
from mqtt_agent.tools.calling import client as aio_client
from mqtt_agent.tools.calling import handle as aio_handle
from mqtt_agent.tools.calling.changes import ToolChange
from mqtt_agent.tools.serving import server as aio_server
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Response, ToolCard

__all__ = ["CallHandle", "ToolClient", "ToolServer"]


class CallHandle(Face[aio_handle.CallHandle]):
    """See :class:`mqtt_agent.CallHandle`."""

    def _repr_html_(self) -> str:
        return self._async._repr_html_()  # pyright: ignore[reportPrivateUsage]

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
    def attempt(self) -> int:
        """1, and one more each time that its server was lost and it was given to one again."""
        return self._async.attempt

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

    @property
    def over(self) -> bool:
        """Whether neither the result nor partials can come any more."""
        return self._async.over

    result = blocking(aio_handle.CallHandle.result)
    news = blocking(aio_handle.CallHandle.news)
    cancel = blocking(aio_handle.CallHandle.cancel)

    def partials(self) -> Iterator[Any]:
        """See :meth:`mqtt_agent.CallHandle.partials`."""
        return self._iterate(self._async.partials())


class ToolClient(Endpoint[aio_client.ToolClient]):
    """See :class:`mqtt_agent.ToolClient`."""

    __init__ = constructor(aio_client.ToolClient)  # pyright: ignore[reportAssignmentType]

    @property
    def agent_id(self) -> str:
        """The caller's name."""
        return self._async.agent_id

    @property
    def name(self) -> str:
        """The old name of ``agent_id``."""
        warn_renamed("ToolClient.name", "ToolClient.agent_id")
        return self._async.agent_id

    @property
    def connection(self) -> Connection:
        """Its connection to the broker."""
        return self._async.connection

    @classmethod
    def around(cls, target: aio_client.ToolClient, background: Background) -> ToolClient:
        """The face of a client whose start and stop are somebody else's."""
        face = cls.__new__(cls)
        face.wrap(target, background)
        return face

    list_tools = blocking(aio_client.ToolClient.list_tools)
    list_servers = blocking(aio_client.ToolClient.list_servers)
    get_tool = blocking(aio_client.ToolClient.get_tool)
    submit = blocking_handle(aio_client.ToolClient.submit, CallHandle)

    def watch_tools(self) -> Iterator[ToolChange]:
        """See :meth:`mqtt_agent.ToolClient.watch_tools`."""
        return self._iterate(self._async.watch_tools())

    def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = CALL_TIMEOUT,
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


class ToolServer(Endpoint[aio_server.ToolServer]):
    """See :class:`mqtt_agent.ToolServer`. Handlers are called on the background loop, or in threads of its own."""

    __init__ = constructor(aio_server.ToolServer)  # pyright: ignore[reportAssignmentType]

    @property
    def name(self) -> str:
        """The name that all replicas share."""
        return self._async.name

    @property
    def replica(self) -> str:
        """Which replica this is."""
        return self._async.replica

    @property
    def server_id(self) -> str:
        """The id of this replica."""
        return self._async.server_id

    @property
    def connection(self) -> Connection:
        """Its connection to the broker."""
        return self._async.connection

    @property
    def tool(self) -> Any:
        """See :meth:`mqtt_agent.ToolServer.tool`."""
        return self._async.tool

    @property
    def add_tool(self) -> Callable[..., None]:
        """See :meth:`mqtt_agent.ToolServer.add_tool`."""
        return self._async.add_tool

    @property
    def tools(self) -> list[ToolCard]:
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
        if is_started(self):
            raise RuntimeError("run() starts the server itself: call it instead of start(), and outside of 'with'")
        self._async.run()

    serve_forever = blocking(aio_server.ToolServer.serve_forever)
