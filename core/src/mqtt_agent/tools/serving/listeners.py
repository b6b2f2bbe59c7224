"""Tells clients of changes of the resources and prompts of a tool server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.content_files import Owner
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.wire import ServerEvent, encode
from mqtt_agent.wire.events import LISTS, URIS, listened

__all__ = ["Listeners"]

logger: logging.Logger = logger_of(__name__)

_KEPT = 180.0
"""Seconds for which a client is told of changes. A client that is still there asks again before."""
_MOST = 10_000
_MOST_OF_ONE = 16
"""How many processes of one client are told of changes. Further ones take the place of the oldest."""
_MOST_CHARACTERS = 16 * 1024 * 1024
"""How long all URIs together may be that clients have asked for."""


@dataclass(frozen=True)
class _Wanted:
    lists: frozenset[str]
    uris: frozenset[str]
    size: int
    until: float


class Listeners:
    """The clients that have asked one replica for changes. They are forgotten when they do not ask again.

    A client that has proven its name, and a client that only says the same name, count as two clients. So nobody else
    can end what a proven client has asked for. When there are too many, those that have proven nothing go first.

    Args:
        scope: What all parts of the server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._wanted: dict[tuple[Owner, str], _Wanted] = {}
        """By client, and by the listener that the client names: several processes may have one name. Oldest first."""
        self._names: dict[Owner, dict[str, None]] = {}
        """The listeners of each client, the oldest first."""
        self._characters = 0

    def listen(self, owner: Owner, listener: object, accepted: object) -> dict[str, Any]:
        """Tell a client of changes from now on, in the place of what its listener has asked for before.

        Args:
            owner: The client.
            listener: Which of the client's listeners asks; any text.
            accepted: What the client is told of: the parameters of the request, as far as the server accepts them.

        Returns:
            The result of the request.
        """
        now = asyncio.get_running_loop().time()
        self._forget_old(now)
        wanted, name = listened(accepted), str(listener)[:64]
        self._forget((owner, name))
        lists = frozenset(LISTS[key] for key in LISTS if wanted.get(key))
        uris = frozenset[str](wanted.get(URIS, ()))
        size = sum(map(len, uris))
        if (lists or uris) and self._make_room(owner, size):
            self._wanted[owner, name] = _Wanted(lists, uris, size, now + _KEPT)
            self._names.setdefault(owner, {})[name] = None
            self._characters += size
        elif lists or uris:
            what = "client %s is told of no changes, because %d clients are told already, of URIs with %d characters"
            logger.warning(what, owner.client, len(self._names), self._characters)
            wanted = {}
        return {"notifications": wanted, "seconds": _KEPT}

    def _make_room(self, owner: Owner, size: int) -> bool:
        """Forget others until a client has room, as far as they may be forgotten. Returns whether it has."""
        own = self._names.get(owner, {})
        if len(own) >= _MOST_OF_ONE:
            self._forget((owner, next(iter(own))))
        while not self._has_room(owner, size):
            unproven = (key for key in self._wanted if not key[0].proven)
            oldest = next(unproven, None) if owner.proven else None
            if oldest is None:
                return False
            self._forget(oldest)
        return True

    def _has_room(self, owner: Owner, size: int) -> bool:
        known = owner in self._names or len(self._names) < _MOST
        return known and self._characters + size <= _MOST_CHARACTERS

    def _forget_old(self, now: float) -> None:
        while self._wanted:  # the first has asked before all others
            first = next(iter(self._wanted))
            if self._wanted[first].until > now:
                return
            self._forget(first)

    def _forget(self, key: tuple[Owner, str]) -> None:
        wanted = self._wanted.pop(key, None)
        if wanted is None:
            return
        owner, name = key
        self._characters -= wanted.size
        del self._names[owner][name]
        if not self._names[owner]:
            del self._names[owner]

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Tell every client that listens for a change. A client that cannot be told stops no other."""
        self._forget_old(asyncio.get_running_loop().time())
        uri = params.get("uri")
        clients = {
            owner.client for (owner, _), wanted in self._wanted.items() if method in wanted.lists or uri in wanted.uris
        }
        event = encode(ServerEvent(server=self._scope.server_id, method=method, params=dict(params) or None), method)
        await asyncio.gather(*(self._publish(client, event) for client in clients))

    async def _publish(self, client: str, event: bytes) -> None:
        try:
            await self._scope.connection.publish(self._scope.topics.server_events(self._scope.server_id, client), event)
        except MQTTAgentError as error:
            logger.warning("client %s could not be told of a change: %s", client, error)
