"""Asking servers which of our calls they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from mqtt_agent.errors import QueueFull, TransportError
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Query, Response, Topics, encode, new_call_id

__all__ = ["Queries"]

logger: logging.Logger = logging.getLogger(__name__)

_TIMEOUT = 5.0
_MAX_QUERIED = 1000


class Queries:
    """The queries of one client that are under way.

    Args:
        connection: Where they go out.
        topics: The namespace.
        name: The caller's name.
        catalog: Tells which servers answer queries.
    """

    def __init__(self, connection: Connection, topics: Topics, name: str, catalog: Catalog) -> None:
        self._connection = connection
        self._topics = topics
        self._name = name
        self._catalog = catalog
        self._open: dict[str, asyncio.Future[Response]] = {}

    def settle(self, response: Response) -> bool:
        """A response came; False when it answers no query."""
        query = self._open.get(response.call_id)
        if query is None or query.done():
            return False
        query.set_result(response)
        return True

    def can_ask(self, server: str) -> bool:
        """Whether a server answers queries when it is online."""
        card = self._catalog.server(server)
        return card is not None and "query" in (card.features or ())

    async def ask(self, servers: Sequence[str], call_ids: list[str]) -> tuple[dict[str, str], bool]:
        """Ask each of these servers which of these calls it has; each gets 5 s to answer.

        Returns:
            The server of each call that one has, and whether all have answered.
        """
        parts = [call_ids[start : start + _MAX_QUERIED] for start in range(0, len(call_ids), _MAX_QUERIED)]
        asked = [(server, part) for server in servers for part in parts]
        answers = await asyncio.gather(*(self._ask_one(server, part) for server, part in asked))
        known: dict[str, str] = {}
        for (server, _), answer in zip(asked, answers, strict=True):
            for call_id in answer or ():
                known[call_id] = server
        return known, bool(servers) and all(answer is not None for answer in answers)

    async def _ask_one(self, server: str, call_ids: list[str]) -> list[str] | None:
        if not self.can_ask(server):
            return None
        query = Query(query_id=new_call_id(), call_ids=call_ids, client=self._name)
        answer = self._open[query.query_id] = asyncio.get_running_loop().create_future()
        try:
            await self._connection.publish(self._topics.server_query(server), encode(query))
            result: Any = (await asyncio.wait_for(answer, _TIMEOUT)).result
            return [call_id for call_id in result["known"] if isinstance(call_id, str)]
        except (TransportError, QueueFull, asyncio.TimeoutError, TypeError, KeyError) as error:
            logger.info("%s does not tell which calls it has: %r", server, error)
            return None
        finally:
            del self._open[query.query_id]
