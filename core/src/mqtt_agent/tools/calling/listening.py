"""Listens for changes of the resources and prompts of servers, as long as somebody reads them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.feed import Feed
from mqtt_agent.errors import ConnectionLost, MQTTAgentError, TopicNotAuthorized, TransportError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard, ServerEvent, decode
from mqtt_agent.wire.events import LISTEN, LISTS, RESOURCE_UPDATED, URIS, listened
from mqtt_agent.wire.messages import footprint

__all__ = ["Listening", "ServerChange", "ServerChanges"]

logger: logging.Logger = logger_of(__name__)

_ASK_AGAIN = 60.0
"""Seconds after which a server that has not answered is asked again."""
_SHORTEST, _LONGEST = 1.0, 3600.0
"""Seconds between two requests to a server, whatever the server says."""
_ANSWERED_WITHIN = 10.0


@dataclass(frozen=True)
class ServerChange:
    """A change of the resources or prompts of a server.

    Attributes:
        server: The name of the server.
        method: What has changed, as a notification of MCP: ``notifications/resources/list_changed``,
            ``notifications/prompts/list_changed`` or ``notifications/resources/updated``.
        params: The parameters of the notification, such as the ``uri`` of the resource.
    """

    server: str
    method: str
    params: dict[str, Any]


class ServerChanges(Feed[ServerChange]):
    """An async iterator over changes. Only the latest 1,000 unread changes are kept."""

    def __init__(self, listening: Listening) -> None:
        super().__init__()
        self._listening = listening
        self.uris: dict[str, set[str]] = {}
        """The resources whose changes are wanted, by server."""

    async def subscribe(self, server: str, uri: str) -> bool:
        """Be told of the changes of a resource from now on.

        Args:
            server: The name of the server that has the resource.
            uri: The URI of the resource.

        Returns:
            Whether a replica of the server tells the changes of this resource.
        """
        known = uri in self.uris.get(server, ())
        self.uris.setdefault(server, set()).add(uri)
        told = False
        try:
            told = await self._listening.asks_for(server, uri)
        finally:
            if not told and not known:
                self.unsubscribe(server, uri)
        return told

    def unsubscribe(self, server: str, uri: str) -> None:
        """Be told of the changes of a resource no more."""
        uris = self.uris.get(server, set())
        uris.discard(uri)
        if not uris:
            self.uris.pop(server, None)
        self._listening.wake()

    def close(self) -> None:
        """End the iteration after the changes that are unread now."""
        super().close()
        self.uris.clear()
        self._listening.leave(self)


class Listening:
    """Asks the servers that tell changes to tell them to this client, and asks again and again.

    A replica that has restarted has forgotten the client, so it is asked at once. When a server comes or goes, its
    lists have changed too.

    Args:
        scope: What all parts of the client share.
        catalog: The servers.
        queries: Sends the requests.
    """

    def __init__(self, scope: Scope, catalog: LiveCatalog, queries: Queries) -> None:
        self._scope = scope
        self._catalog = catalog
        self._queries = queries
        self._feeds: weakref.WeakSet[ServerChanges] = weakref.WeakSet()
        self._listener = uuid.uuid4().hex
        self._asked: dict[str, tuple[str | None, dict[str, Any], float]] = {}
        """For each replica, its process, what it was last asked for, and the loop time when it is to be asked again."""
        self._known: dict[str, frozenset[str]] | None = None
        """The capabilities of each server that is online; None before they are known."""
        self._woken = asyncio.Event()
        self._tasks = BackgroundTasks(lambda task, error: logger.warning("changes are not listened for: %r", error))
        self._keeping: asyncio.Task[None] | None = None
        self._faults = FaultLog(logger)
        self._refused = False
        """Whether the broker does not let the client hear of changes."""

    def watch(self, resources: Mapping[str, Iterable[str]]) -> ServerChanges:
        """Iterate over the changes from now on, until the iterator is closed or no longer referenced."""
        feed = ServerChanges(self)
        feed.uris.update({server: set(uris) for server, uris in resources.items()})
        self._feeds.add(feed)
        if self._keeping is None or self._keeping.done():
            self._keeping = self._tasks.start(self._keep())
        self.wake()
        return feed

    def leave(self, feed: ServerChanges) -> None:
        """Forget an iterator that was closed."""
        self._feeds.discard(feed)
        self.wake()

    def wake(self) -> None:
        """Look again what is wanted."""
        self._woken.set()

    async def stop(self) -> None:
        """Listen no more."""
        self._tasks.cancel()
        await self._tasks.wait()
        for feed in list(self._feeds):
            feed.close()

    async def asks_for(self, server: str, uri: str) -> bool:
        """Ask all replicas of a server for what is wanted now; whether one of them tells the changes of a resource."""
        await self._catalog.complete()
        if self._refused:
            return False
        cards = [card for card in self._catalog.servers() if card.shared_name == server and self._tells(card)]
        told = await asyncio.gather(*(self._ask(card) for card in cards))
        return any(uri in each.get(URIS, ()) for each in told)

    async def _keep(self) -> None:
        try:
            while self._feeds:  # somebody may begin to read while the subscription of the last reader ends
                await self._listen()
        except TopicNotAuthorized as error:
            self._refused = True
            logger.warning("%s hears of no changes of resources and prompts: %s", self._scope.agent_id, error)

    async def _listen(self) -> None:
        """Listen until nobody reads.

        Raises:
            TopicNotAuthorized: The broker does not let the client hear of changes.
        """
        topic, news = self._scope.topics.all_server_events(self._scope.agent_id), self._catalog.watch()
        refusals = list[TransportError]()

        def on_refused(error: TransportError) -> None:  # now, or after a reconnect
            refusals.append(error)
            self._woken.set()

        with contextlib.suppress(ConnectionLost):  # the subscription is made when the connection is back
            await self._scope.connection.subscribe(topic, self._on_event, on_refused=on_refused)
        self._refused = bool(refusals)
        try:
            if not refusals:
                await self._catalog.complete()
            while self._feeds and not refusals:
                self._woken.clear()
                self._tell_servers()
                telling = [card for card in self._catalog.servers() if self._tells(card)]
                self._asked = {card.server: self._asked[card.server] for card in telling if card.server in self._asked}
                for card in filter(self._is_due, telling):
                    process, wanted = self._state_of(card)
                    self._asked[card.server] = process, wanted, asyncio.get_running_loop().time() + _ASK_AGAIN
                    self._tasks.start(self._ask(card))
                await self._something()
        finally:
            self._asked.clear()
            self._known = None
            news.close()
            await self._scope.connection.unsubscribe(topic, self._on_event)
        if refusals:
            raise refusals[0]

    async def _something(self) -> None:
        """Wait until something else may be wanted, or until servers have to be asked again."""
        waiting = [asyncio.ensure_future(each) for each in (self._woken.wait(), self._catalog.server_news())]
        now = asyncio.get_running_loop().time()
        due = min((at for _, _, at in self._asked.values()), default=now + _ASK_AGAIN)
        try:
            await asyncio.wait(waiting, timeout=max(0.0, due - now), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    def _tells(self, card: ServerCard) -> bool:
        """Whether an online replica tells changes."""
        told = any(
            isinstance(each, dict) and (each.get("listChanged") is True or each.get("subscribe") is True)  # pyright: ignore[reportUnknownMemberType]
            for each in (card.capabilities or {}).values()
        )
        return told and self._catalog.is_server_online(card.server) and self._queries.reaches(card)

    def _wanted_of(self, name: str) -> dict[str, Any]:
        """What is wanted of a server now."""
        uris = {uri for feed in self._feeds for uri in feed.uris.get(name, ())}
        return dict.fromkeys(LISTS, True) | ({URIS: sorted(uris)} if uris else {})

    def _state_of(self, card: ServerCard) -> tuple[str | None, dict[str, Any]]:
        return card.started, self._wanted_of(card.shared_name)

    def _is_due(self, card: ServerCard) -> bool:
        asked = self._asked.get(card.server)
        if asked is None or asked[:2] != self._state_of(card):
            return True
        return asked[2] <= asyncio.get_running_loop().time()

    def _note_time(self, card: ServerCard, result: object) -> None:
        """Note when a replica that has answered is to be asked again: well before it forgets this client."""
        seconds: Any = cast("dict[str, Any]", result).get("seconds") if isinstance(result, dict) else None
        asked = self._asked.get(card.server)
        if asked is not None and isinstance(seconds, (int, float)) and seconds == seconds:
            pause = min(max(seconds, 2 * _SHORTEST), 2 * _LONGEST) / 2
            self._asked[card.server] = *asked[:2], asyncio.get_running_loop().time() + pause
            if pause < _ASK_AGAIN:
                self._woken.set()

    async def _ask(self, card: ServerCard) -> dict[str, Any]:
        """Ask one replica for what is wanted now. Returns what it tells."""
        wanted = self._wanted_of(card.shared_name)
        params = {"notifications": wanted, "listener": self._listener}
        end = asyncio.get_running_loop().time() + _ANSWERED_WITHIN
        try:
            response = await self._queries.request(card, LISTEN, params, end)
        except MQTTAgentError as error:
            logger.info("server %s does not tell its changes: %s", card.server, error)
            return {}
        if response is None or response.status == "error":
            logger.info("server %s does not tell its changes: %s", card.server, response and response.error)
            return {}
        self._note_time(card, response.result)
        return listened(response.result)

    def _tell_servers(self) -> None:
        """Tell which servers have come or gone since the last time: their lists have changed."""
        known: dict[str, frozenset[str]] = {}
        for card in self._catalog.servers():
            if card.capabilities and self._catalog.is_server_online(card.server):
                known[card.shared_name] = known.get(card.shared_name, frozenset()) | card.capabilities.keys()
        before, self._known = self._known, known
        if before is None:
            return
        for name in before.keys() | known.keys():
            for capability in before.get(name, frozenset()) ^ known.get(name, frozenset()):
                method = LISTS.get(f"{capability}ListChanged")
                if method is not None:
                    self._put(ServerChange(name, method, {}))

    def _on_event(self, message: InboundMessage) -> None:
        server = self._scope.topics.server_of_events(message.topic, self._scope.agent_id)
        try:
            event = decode(ServerEvent, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable event of a server", error)
            return
        card = None if server is None else self._catalog.server(server)
        if server is None or event.server != server or message.retain:
            self._faults.refuse(message, "an event in the name of another server", repr(event.server))
        elif card is None:
            message.refuse("the server is not known")
        else:
            self._put(ServerChange(card.shared_name, event.method, event.params or {}), footprint(message.payload))

    def _put(self, change: ServerChange, size: int = 0) -> None:
        everybody, uri = change.method in LISTS.values(), change.params.get("uri")
        if not everybody and (change.method != RESOURCE_UPDATED or not isinstance(uri, str)):
            return
        for feed in list(self._feeds):
            if everybody or uri in feed.uris.get(change.server, ()):
                feed.put(change, size)
