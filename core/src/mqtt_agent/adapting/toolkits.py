"""The base of the toolkits: an object that finds the tools on a broker, and makes the framework's own tools of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from mqtt_agent.adapting.closing import Closing
from mqtt_agent.adapting.finding import Found, Peers, Selection, find
from mqtt_agent.adapting.requesters import Requester
from mqtt_agent.adapting.threads import run_in_thread
from mqtt_agent.sync import ToolClient
from mqtt_agent.transport import Connection

__all__ = ["Toolkit", "timeout_for"]

T = TypeVar("T")


def timeout_for(name: str, timeouts: Mapping[str, float | None], otherwise: float | None) -> float | None:
    """The timeout of one tool or peer.

    Args:
        name: The tool's own name, or the id of the peer.
        timeouts: Seconds by name or pattern, such as ``slow_*``. A name comes before a pattern, and of several patterns
            the first counts.
        otherwise: The timeout of all other tools and peers.
    """
    if name in timeouts:
        return timeouts[name]
    return next((seconds for pattern, seconds in timeouts.items() if fnmatchcase(name, pattern)), otherwise)


class Toolkit(Closing, Generic[T]):
    """Finds tools and peers over one connection.

    A subclass sets ``_remote``, which owns the connection: a requester if peers are wanted, otherwise a tool client.
    """

    _remote: ToolClient | Requester

    @abstractmethod
    def _wanted(self) -> tuple[Selection, Peers | None]:
        """Which tools and which peers are wanted."""

    @abstractmethod
    def _make_tools(self, found: Found) -> list[T]:
        """Make the framework's tools, and tell what is missing."""

    @property
    def connection(self) -> Connection:
        """The connection that all tools of the toolkit share."""
        return (self._remote.agent if isinstance(self._remote, Requester) else self._remote).connection

    def get_tools(self) -> list[T]:
        """Find the tools that can be called now. Each call searches anew.

        Raises:
            BrokerUnreachable, ConnectionRefused: There is no broker at the URL, or the broker refuses.
            ToolUnavailable: A wanted tool or peer is not online, and ``on_unavailable`` is ``raise``.
        """
        return self._make_tools(self._find())

    async def aget_tools(self) -> list[T]:
        """Find the tools that can be called now; the async form of :meth:`get_tools`."""
        return await self._apart(self._make_tools, await self._afind())

    @staticmethod
    async def _apart(make: Callable[[Found], list[T]], found: Found) -> list[T]:
        """Make tools in a thread: many new tools, and a framework that is imported for them, take a while."""
        return await run_in_thread(lambda: make(found), "mqtt-agent-tools")

    def _find(self) -> Found:
        return self._remote.run_on_loop(find, *self._wanted())

    async def _afind(self) -> Found:
        return await self._remote.await_on_loop(find, *self._wanted())

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. A later use of a tool connects again.

        A connection of a requester is shared with all other requesters of this process that have the same settings. As
        long as one of them is open, the connection and the calls stay.
        """
        if isinstance(self._remote, Requester):
            self._remote.close()
        else:
            self._remote.stop()
