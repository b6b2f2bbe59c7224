"""The tool server with methods that block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from mqtt_agent.aio.contexts import refuse_in_event_loop
from mqtt_agent.sync.blocking import Endpoint, is_started, parameters_of
from mqtt_agent.tools.serving import server as aio_server
from mqtt_agent.tools.serving.offering import Offered
from mqtt_agent.tools.serving.results import SharedContent
from mqtt_agent.transport import Connection
from mqtt_agent.wire import ToolCard

__all__ = ["ToolServer"]

Handler = TypeVar("Handler", bound=Callable[..., Any])


class ToolServer(Endpoint[aio_server.ToolServer]):
    """Offers functions as tools; the blocking form of :class:`mqtt_agent.ToolServer`, with the same arguments.

    An ``async`` handler runs on the background loop. A plain ``def`` runs in a thread.
    """

    @parameters_of(aio_server.ToolServer.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(aio_server.ToolServer(*args, **kwargs))

    @property
    def name(self) -> str:
        """The server's name, the same for all its replicas."""
        return self._async.name

    @property
    def replica(self) -> str:
        """The name of this replica."""
        return self._async.replica

    @property
    def server_id(self) -> str:
        """The id of this replica: the server's name and the replica's name."""
        return self._async.server_id

    @property
    def connection(self) -> Connection:
        """The server's connection to the broker."""
        return self._async.connection

    @overload
    def tool(self, handler: Handler, /) -> Handler: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[Handler], Handler]: ...

    def tool(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """See :meth:`mqtt_agent.ToolServer.tool`. On a started server, this waits until the tool is offered."""
        tool: Any = aio_server.ToolServer.tool  # it calls this class's add_tool
        return tool(self, handler, **options)

    @parameters_of(aio_server.ToolServer.add_tool)
    def add_tool(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.add_tool`. On a started server, this waits until the tool is offered."""
        self._wait(self._async.add_tool(*args, **kwargs))

    @parameters_of(aio_server.ToolServer.remove_tool)
    def remove_tool(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.remove_tool`. On a started server, this waits until the tool is removed."""
        self._wait(self._async.remove_tool(*args, **kwargs))

    @parameters_of(aio_server.ToolServer.replace_tool)
    def replace_tool(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.replace_tool`. On a started server, this waits for the new card."""
        self._wait(self._async.replace_tool(*args, **kwargs))

    def _wait(self, offered: Offered) -> None:
        if is_started(self) and not self._background.is_here:
            self._background.run(offered.wait)

    @parameters_of(aio_server.ToolServer.answer_requests)
    def answer_requests(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.answer_requests`. The handler runs on the background loop."""
        self._async.answer_requests(*args, **kwargs)

    @parameters_of(aio_server.ToolServer.say_unavailable)
    def say_unavailable(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.say_unavailable`."""
        self._background.run(self._async.say_unavailable, *args, **kwargs)

    @parameters_of(aio_server.ToolServer.tell_change)
    def tell_change(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.tell_change`."""
        self._background.run(self._async.tell_change, *args, **kwargs)

    @parameters_of(aio_server.ToolServer.share)
    def share(self, *args: Any, **kwargs: Any) -> SharedContent:
        """See :meth:`mqtt_agent.ToolServer.share`."""
        return self._background.run(self._async.share, *args, **kwargs)

    @property
    def tools(self) -> list[ToolCard]:
        """The cards of the tools that the server offers."""
        return self._async.tools

    @property
    def active_calls(self) -> int:
        """How many calls run or wait at this replica."""
        return self._async.active_calls

    def run(self) -> None:
        """See :meth:`mqtt_agent.ToolServer.run`. It starts the server itself.

        Raises:
            RuntimeError: The server has started already, or an event loop runs in this thread, as in a notebook.
        """
        if is_started(self):
            raise RuntimeError("run() starts the server itself: call it instead of start(), and outside of 'with'")
        refuse_in_event_loop("run()", "start(), which serves in the background until stop()")
        self._async.run()

    @parameters_of(aio_server.ToolServer.serve_forever)
    def serve_forever(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`mqtt_agent.ToolServer.serve_forever`."""
        self._background.run(self._async.serve_forever, *args, **kwargs)
