"""Asks tool servers for what is no call of a tool: resources, prompts and completions, as MCP servers have them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Mapping
from typing import Any

from mqtt_agent.aio.waiting import within
from mqtt_agent.display.lacking import SERVER, sentences
from mqtt_agent.errors import CallerNotAuthorized, CallError, ToolFailed, ToolUnavailable, TopicNotAuthorized
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.handle import error_of
from mqtt_agent.tools.calling.live_catalog import RETURN_WITHIN, LiveCatalog
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.lists import Entries
from mqtt_agent.tools.questions import as_object
from mqtt_agent.wire import ServerCard, to_json

__all__ = ["Requests"]

logger: logging.Logger = logger_of(__name__)

_MOST_PAGES = 1000
_NO_SUCH_METHOD = "-32601"


class Requests:
    """The requests of one client.

    A request goes to one replica of a server. When this replica is gone before it has answered, the request goes to
    another one, or to the next process of the server that comes within 5 s: requests only read.

    Args:
        catalog: The servers.
        queries: Sends the requests. Their answers arrive on the same topics as those of queries.
    """

    def __init__(self, catalog: LiveCatalog, queries: Queries) -> None:
        self._catalog = catalog
        self._queries = queries

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
        loop, asked = asyncio.get_running_loop(), set[tuple[Any, ...]]()
        end = None if timeout is None else loop.time() + timeout
        back = loop.time() + RETURN_WITHIN
        while True:
            left = [card for card in self._replicas(server, capability) if _process(card) not in asked]
            if left:
                card = random.choice(left)
                asked.add(_process(card))
                self._catalog.follow_server(card.server)
                response = await self._queries.request(card, method, given, end)
                if response is not None and response.status == "error":
                    raise error_of(server, response)
                if response is not None:
                    return response.result
                back = loop.time() + RETURN_WITHIN
            elif not await self._next_process(server, bool(asked), back if end is None else min(back, end)):
                raise ToolUnavailable(self._why_not(server, capability), tool=server)

    async def _next_process(self, server: str, asked: bool, end: float) -> bool:
        """Wait for news of a server that has been asked, or that was lost just now. Returns False at the end."""
        loop = asyncio.get_running_loop()
        if not asked:
            lost = self._catalog.missing().get(server)
            end = min(end, loop.time() if lost is None else self._catalog.returns_until(lost))
        try:
            await within(self._catalog.server_news(), max(0.0, end - loop.time()))
        except asyncio.TimeoutError:
            return False
        return True

    def _replicas(self, server: str, capability: str) -> list[ServerCard]:
        cards = [card for card in self._catalog.servers() if server in (card.shared_name, card.server)]
        return [card for card in cards if self._has(card, capability)]

    def _why_not(self, server: str, capability: str) -> str:
        lost = self._catalog.missing().get(server)
        why = "" if lost is None else f": {lost.unavailable}"
        return f"{server}: no online replica has {capability}{why}"

    async def listing(
        self, method: str, key: str, server: str | Collection[str] | None, timeout: float | None
    ) -> Entries:
        """All entries of a list of one server or of several servers, page by page; each with its ``server``.

        A list of several servers says which servers it lacks, because they were lost, do not answer, answer with an
        error, or because no server of such a name is online. A server that does not let this client read is left out,
        as one that has nothing.

        Raises:
            ToolUnavailable: The only server is offline.
            CallError: See :meth:`ask`.
        """
        capability = _capability_of(method)
        if isinstance(server, str):
            name = next((card.shared_name for card in self._replicas(server, capability)), server)
            return Entries({**entry, "server": name} for entry in await self._pages(server, method, key, timeout))
        lost = {name for name, card in self._catalog.missing().items() if capability in (card.capabilities or {})}
        online = {card.shared_name for card in self._catalog.servers() if self._has(card, capability)}
        wanted, absent = (online | lost, set[str]()) if server is None else self._find(server)
        names = sorted(wanted & (online | lost))
        asking = (self._pages(name, method, key, timeout) for name in names)
        found = await asyncio.gather(*asking, return_exceptions=True)
        listed, missing = Entries(), dict.fromkeys(absent, "no server of this name is online")
        for name, entries in zip(names, found, strict=True):
            if not isinstance(entries, BaseException):
                listed += [{**entry, "server": name} for entry in entries]
            elif isinstance(entries, ToolFailed) and entries.code == _NO_SUCH_METHOD:
                continue  # the server answers that it has no such list
            elif isinstance(entries, (CallerNotAuthorized, TopicNotAuthorized)):
                logger.info("server %s does not let %s list its %s: %s", name, self._queries.agent_id, key, entries)
            elif isinstance(entries, CallError):
                missing[name] = str(entries).removeprefix(f"{name}: ")
                logger.warning("the list of all servers lacks the %s of server %s: %s", key, name, entries)
            else:
                raise entries
        listed.missing = {name: missing[name] for name in self._catalog.by_age(missing)}
        listed.incomplete = sentences(SERVER, listed.missing)
        return listed

    def _find(self, given: Collection[str]) -> tuple[set[str], set[str]]:
        """The names of the servers that are meant by names or by ids of replicas, and what is the name of no server."""
        found = {name: name for name in self._catalog.missing()}
        for card in (card for card in self._catalog.servers() if card.status == "online"):
            found[card.server] = found[card.shared_name] = card.shared_name
        return {found[each] for each in given if each in found}, {each for each in given if each not in found}

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


def _process(card: ServerCard) -> tuple[Any, ...]:
    """What is another value when a server has another connection, and so a request to it may have another end."""
    return card.server, card.started, card.epoch


def _capability_of(method: str) -> str:
    kind = method.partition("/")[0]
    return "completions" if kind == "completion" else kind
