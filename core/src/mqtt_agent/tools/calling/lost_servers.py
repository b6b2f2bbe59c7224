"""Remembers which servers were lost lately: the broker may still give calls to their sessions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.wire import ServerCard

__all__ = ["LostServers", "takes"]

_MAY_HAVE_FOR = 60.0
"""Seconds for which a server that is gone may get a call that was sent after its loss: some brokers give calls to the
session of a dead client, until the session ends, and keep it for longer than they were asked to."""


def takes(card: ServerCard) -> set[str]:
    """The tools whose calls a server may have.

    A server claims the name of a tool, then takes the tool's calls, and only then lists the tool. When its connection
    breaks in between, it may have calls long before its card lists the tool.
    """
    return {*card.tools, *(card.claims or ())}


@dataclass(frozen=True)
class _LostServer:
    server: str
    tools: set[str]
    lost_at: float  # loop time


class LostServers:
    """The servers that were lost within the last minute.

    Args:
        catalog: The servers that serve the tools.
    """

    def __init__(self, catalog: LiveCatalog) -> None:
        self._catalog = catalog
        self._lost: dict[str, _LostServer] = {}

    def note(self, card: ServerCard) -> None:
        """Note that a server is lost.

        Args:
            card: The server's last card.
        """
        now = asyncio.get_running_loop().time()
        self._lost.pop(card.server, None)
        self._lost[card.server] = _LostServer(card.server, takes(card), now)  # the latest is the last
        while (first := next(iter(self._lost.values()))).lost_at <= now - _MAY_HAVE_FOR:
            del self._lost[first.server]

    def since(self, time: float, tool: str) -> list[str]:
        """The servers of a tool that were lost while this client watched, also those that are back.

        Args:
            time: Loop time, at most a minute ago. Servers that were lost earlier are left out.
            tool: The tool.
        """
        return [each.server for each in self._lost.values() if each.lost_at > time and tool in each.tools]

    def still_gone(self, tool: str) -> list[str]:
        """The servers of a tool that are gone, and whose sessions the broker may still give calls to.

        The client may have started after the loss of such a server. Then it only knows the server's card.
        """
        since = asyncio.get_running_loop().time() - _MAY_HAVE_FOR
        lost = self.since(since, tool)
        for card in self._catalog.servers():
            gone = self._catalog.offline_since(card.server)
            if gone is not None and gone > since and tool in takes(card) and card.server not in lost:
                lost.append(card.server)
        return [server for server in lost if not self._catalog.is_server_online(server)]
