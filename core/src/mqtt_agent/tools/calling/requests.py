"""Asks tool servers for what is no call of a tool: resources, prompts and completions, as MCP servers have them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from mqtt_agent.errors import CallError, ToolUnavailable
from mqtt_agent.tools.calling.handle import error_of
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.questions import as_object
from mqtt_agent.wire import ServerCard, to_json

__all__ = ["Requests"]

logger: logging.Logger = logging.getLogger(__name__)

_MOST_PAGES = 1000


class Requests:
    """The requests of one client.

    A request goes to one replica of a server. When this replica is gone before it has answered, the request goes to
    another one: requests only read.

    Args:
        catalog: The servers.
        queries: Sends the requests. Their answers arrive on the same topics as those of queries.
    """

    def __init__(self, catalog: LiveCatalog, queries: Queries) -> None:
        self._catalog = catalog
        self._queries = queries

    def servers(self, capability: str, server: str | None = None) -> list[str]:
        """The names of the online servers with a capability, sorted.

        Args:
            capability: MCP's name of it, such as ``resources``.
            server: Only this server.
        """
        cards = [card for card in self._catalog.servers() if self._has(card, capability)]
        return sorted({card.shared_name for card in cards if server in (None, card.shared_name, card.server)})

    def _has(self, card: ServerCard, capability: str) -> bool:
        online = self._catalog.is_server_online(card.server)
        return online and capability in (card.capabilities or {}) and self._queries.reaches(card)

    async def ask(self, server: str, method: str, params: Mapping[str, Any], timeout: float | None) -> Any:
        """Ask a server.

        Args:
            server: The server's name, which its replicas share, or the id of one replica.
            method: What is asked for, as a method of MCP.
            params: The parameters of this method.
            timeout: Seconds that the answer may take; None for no limit.

        Returns:
            The result of the method.

        Raises:
            ToolUnavailable: No replica of the server answers requests now.
            CallError: The server answers with an error, or not in time.
            WireError, TransportError, QueueFull: The request cannot be sent.
        """
        given, capability = to_json(dict(params), "params", method), _capability_of(method)
        cards = [card for card in self._catalog.servers() if server in (card.shared_name, card.server)]
        cards = [card for card in cards if self._has(card, capability)]
        random.shuffle(cards)
        end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        for card in cards:
            self._catalog.follow_server(card.server)
            response = await self._queries.request(card, method, given, end)
            if response is not None and response.status == "error":
                raise error_of(server, response)
            if response is not None:
                return response.result
        raise ToolUnavailable(f"{server}: no online replica has {capability}", tool=server)

    async def listing(self, method: str, key: str, server: str | None, timeout: float | None) -> list[dict[str, Any]]:
        """All entries of a list of one server or of all servers, page by page; each with its ``server``.

        In a list of all servers, a server that does not answer, or answers with an error, is left out with a warning.
        """
        names = self.servers(_capability_of(method), server)
        if server is not None and not names:
            raise ToolUnavailable(f"{server}: no online replica has {_capability_of(method)}", tool=server)
        pages = (self._pages(name, method, key, timeout) for name in names)
        found = await asyncio.gather(*pages, return_exceptions=server is None)
        listed = list[dict[str, Any]]()
        for name, entries in zip(names, found, strict=True):
            if not isinstance(entries, BaseException):
                listed += [{**entry, "server": name} for entry in entries]
            elif isinstance(entries, CallError):
                logger.warning("the list of all servers lacks the %s of server %s: %s", key, name, entries)
            else:
                raise entries
        return listed

    async def _pages(self, server: str, method: str, key: str, timeout: float | None) -> list[dict[str, Any]]:
        loop, entries, seen = asyncio.get_running_loop(), list[dict[str, Any]](), set[str]()
        cursor: Any = None
        end = None if timeout is None else loop.time() + timeout
        for _ in range(_MOST_PAGES):
            asked: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            left = None if end is None else max(0.0, end - loop.time())
            page = as_object(await self.ask(server, method, asked, left)) or {}
            entries += [entry for each in page.get(key) or () if (entry := as_object(each)) is not None]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen:
                break  # a cursor that comes again would lead to the same pages for ever
            seen.add(cursor)
        return entries


def _capability_of(method: str) -> str:
    kind = method.partition("/")[0]
    return "completions" if kind == "completion" else kind
