"""Queries, with which a client asks servers which of the client's calls they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from mqtt_agent.errors import QueueFull, TransportError
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.wire import Query, Response, encode, new_call_id
from mqtt_agent.wire.calls import MAX_QUERIED

__all__ = ["Queries"]

logger: logging.Logger = logging.getLogger(__name__)

_TIMEOUT = 5.0


class Queries:
    """The queries of one client that are under way.

    Args:
        scope: What all parts of the client share.
        catalog: Says which servers answer queries.
    """

    def __init__(self, scope: Scope, catalog: Catalog) -> None:
        self._scope = scope
        self._catalog = catalog
        self._open: dict[str, asyncio.Future[Response]] = {}

    def settle(self, response: Response) -> bool:
        """Take a response that may answer a query.

        Returns:
            Whether the response answers a query that is under way.
        """
        query = self._open.get(response.call_id)
        if query is None or query.done():
            return False
        query.set_result(response)
        return True

    def can_ask(self, server: str) -> bool:
        """Whether a server answers queries while it is online."""
        card = self._catalog.server(server)
        return card is not None and "query" in (card.features or ())

    async def ask(self, servers: Sequence[str], call_ids: list[str]) -> tuple[dict[str, str], bool]:
        """Ask each of these servers which of these calls it has. Each server gets 5 seconds to answer.

        A server also has a call that is over, as long as the server keeps the response. Then the server sends the
        response again.

        Args:
            servers: The ids of the servers.
            call_ids: The ids of the calls.

        Returns:
            For each call that a server has, the id of that server; and whether all servers have answered. Without
            servers, this is False.
        """
        parts = [call_ids[start : start + MAX_QUERIED] for start in range(0, len(call_ids), MAX_QUERIED)]
        asked = [(server, part) for server in servers for part in parts]
        answers = await asyncio.gather(*(self._ask_one(server, part) for server, part in asked))
        holders: dict[str, str] = {}
        for (server, _), answer in zip(asked, answers, strict=True):
            for call_id in answer or ():
                holders[call_id] = server
        return holders, bool(servers) and all(answer is not None for answer in answers)

    async def _ask_one(self, server: str, call_ids: list[str]) -> list[str] | None:
        if not self.can_ask(server):
            return None
        query = Query(query_id=new_call_id(), call_ids=call_ids, client=self._scope.agent_id)
        answer = self._open[query.query_id] = asyncio.get_running_loop().create_future()
        try:
            await self._scope.connection.publish(self._scope.topics.server_query(server), encode(query))
            result: Any = (await asyncio.wait_for(answer, _TIMEOUT)).result
            return [call_id for call_id in result["known"] if isinstance(call_id, str)]
        except (TransportError, QueueFull, asyncio.TimeoutError, TypeError, KeyError) as error:
            logger.info("server %s did not say which calls it has: %r", server, error)
            return None
        finally:
            del self._open[query.query_id]
