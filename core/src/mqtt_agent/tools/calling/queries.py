"""Queries, with which a client asks servers which of the client's calls they have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import CallTimeout, QueueFull, TransportError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.wire import BOUND, Query, Request, Response, ServerCard, decode_chunk, encode, new_call_id
from mqtt_agent.wire.calls import MAX_QUERIED

__all__ = ["Queries"]

logger: logging.Logger = logger_of(__name__)

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
        self._dialect = scope.dialect
        self._requested: dict[str, tuple[asyncio.Future[Any], str]] = {}
        """The answer of each request, and the server that was asked."""
        self._open: dict[str, tuple[asyncio.Future[Any], str, bool]] = {}
        """The answer of each query, the server that was asked, and whether it answers on a sender-bound topic."""

    @property
    def agent_id(self) -> str:
        """The name under which the client asks."""
        return self._scope.agent_id

    def settle(self, response: Response, sender: str | None) -> bool:
        """Take a response that may answer a query.

        Args:
            response: The response.
            sender: The server that the response's topic names as its writer; None for a plain topic.

        Returns:
            Whether the response answers a query that is under way.
        """
        query, server, bound = self._open.get(response.call_id, (None, "", False))
        if query is None or query.done() or sender != (server if bound else None):
            return False
        if response.server not in (None, server):
            return False
        query.set_result(response)
        return True

    def take_chunk(self, payload: bytes, sender: str | None) -> bool:
        """Take a chunk of a content, which is the only answer that is no JSON.

        Args:
            payload: The payload of a message in the client's inbox.
            sender: The server that the topic names as its writer; None for a plain topic.

        Returns:
            Whether the payload is a chunk. A chunk that nobody waits for any more changes nothing.
        """
        try:
            chunk = decode_chunk(payload, self._scope.max_payload)
        except WireError:
            return False
        if chunk is not None and sender in (None, chunk.server):
            self.settle(Response(call_id=chunk.call_id, server=chunk.server, result=chunk), sender)
        return chunk is not None

    def can_ask(self, server: str) -> bool:
        """Whether a server answers queries while it is online."""
        card = self._catalog.server(server)
        if card is None or "query" not in (card.features or ()):
            return False
        return self._dialect.plain or self.speaks_bound(card)

    def speaks_bound(self, card: ServerCard) -> bool:
        """Whether the client and a server use sender-bound topics with each other."""
        return self._dialect.bound and BOUND in (card.features or ())

    def topic_for(self, card: ServerCard) -> str:
        """The topic of the client's queries to a server."""
        topics = self._scope.topics
        bound = self.speaks_bound(card)
        return topics.bound.query(card.server, self._scope.agent_id) if bound else topics.server_query(card.server)

    def reaches(self, card: ServerCard) -> bool:
        """Whether the client and a server have a kind of topics in common."""
        return self._dialect.plain or self.speaks_bound(card)

    def on_server_gone(self, card: ServerCard, with_its_calls: bool) -> None:
        """Give up the requests to a server that is gone."""
        for answer, server in list(self._requested.values()):
            if server == card.server and not answer.done():
                answer.set_result(None)

    async def request(
        self,
        card: ServerCard,
        method: str,
        params: dict[str, Any],
        end: float | None,
        request_id: str | None = None,
    ) -> Response | None:
        """Send a request to one replica, and wait for the response.

        Args:
            card: The replica's card.
            method: What is asked for.
            params: The parameters of the method.
            end: Loop time at which the wait ends; None means never.
            request_id: The id of an earlier request for the same, whose answer may still arrive; None makes a new id.

        Returns:
            The response; None when the replica is gone.

        Raises:
            CallTimeout: The time is over.
            WireError, TransportError, QueueFull: The request cannot be sent.
        """
        loop, topics, bound = asyncio.get_running_loop(), self._scope.topics, self.speaks_bound(card)
        request_id = request_id or new_call_id()
        request = Request(request_id=request_id, method=method, params=params, client=self._scope.agent_id)
        answer: asyncio.Future[Response | None] = loop.create_future()
        self._open[request.request_id] = answer, card.server, bound
        self._requested[request.request_id] = answer, card.server
        topic = topics.bound.request(card.server, self._scope.agent_id) if bound else topics.server_request(card.server)
        try:
            # Also while the connection is away, and the request waits for it, the time runs.
            sending = self._send_and_wait(topic, encode(request, method), answer)
            return await within(sending, None if end is None else max(0.0, end - loop.time()))
        except asyncio.TimeoutError:
            raise CallTimeout(f"{card.shared_name}: no answer to {method} in time", tool=card.shared_name) from None
        finally:
            del self._open[request.request_id], self._requested[request.request_id]

    async def _send_and_wait(
        self, topic: str, payload: bytes, answer: asyncio.Future[Response | None]
    ) -> Response | None:
        if await self._scope.connection.publish(topic, payload) == NO_MATCHING_SUBSCRIBERS:
            return None
        return await answer

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
        card = self._catalog.server(server)
        if card is None or not self.can_ask(server):
            return None
        query = Query(query_id=new_call_id(), call_ids=call_ids, client=self._scope.agent_id)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._open[query.query_id] = answer, server, self.speaks_bound(card)
        try:
            await self._scope.connection.publish(self.topic_for(card), encode(query))
            result: Any = (await within(answer, _TIMEOUT)).result
            return [call_id for call_id in result["known"] if isinstance(call_id, str)]
        except (TransportError, QueueFull, asyncio.TimeoutError, TypeError, KeyError) as error:
            logger.info("server %s did not say which calls it has: %r", server, error)
            return None
        finally:
            del self._open[query.query_id]
