"""Tells clients of changes of the resources and prompts of a tool server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.tools.serving.content_files import Owner
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.wire import ServerEvent, encode
from mqtt_agent.wire.events import LISTS, URIS, listened

__all__ = ["Listeners"]

logger: logging.Logger = logging.getLogger(__name__)

_KEPT = 180.0
"""Seconds for which a client is told of changes. A client that is still there asks again before."""
_MOST = 10_000
_MOST_OF_ONE = 16
"""How many processes of one client are told of changes. Further ones take the place of the oldest."""


@dataclass(frozen=True)
class _Wanted:
    lists: frozenset[str]
    uris: frozenset[str]
    until: float


class Listeners:
    """The clients that have asked one replica for changes. They are forgotten when they do not ask again.

    A client that has proven its name, and a client that only says the same name, count as two clients. So nobody else
    can end what a proven client has asked for.

    Args:
        scope: What all parts of the server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._wanted: dict[Owner, dict[str, _Wanted]] = {}
        """By client, and by the listener that the client names: several processes may have one name."""

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
        lists = frozenset(LISTS[key] for key in LISTS if wanted.get(key))
        uris = frozenset[str](wanted.get(URIS, ()))
        own = self._wanted.get(owner, {})
        own.pop(name, None)
        if (lists or uris) and (owner in self._wanted or len(self._wanted) < _MOST):
            if len(own) >= _MOST_OF_ONE:
                del own[next(iter(own))]
            own[name] = _Wanted(lists, uris, now + _KEPT)
            self._wanted[owner] = own
        elif lists or uris:
            logger.warning("client %s is told of no changes, because %d clients are told already", owner.client, _MOST)
            wanted = {}
        return {"notifications": wanted, "seconds": _KEPT}

    def _forget_old(self, now: float) -> None:
        for owner, own in list(self._wanted.items()):
            for name in [each for each, kept in own.items() if kept.until <= now]:
                del own[name]
            if not own:
                del self._wanted[owner]

    async def tell(self, method: str, params: Mapping[str, Any]) -> None:
        """Tell every client that listens for a change. A client that cannot be told stops no other."""
        self._forget_old(asyncio.get_running_loop().time())
        uri = params.get("uri")
        clients = {
            owner.client
            for owner, own in self._wanted.items()
            if any(method in wanted.lists or uri in wanted.uris for wanted in own.values())
        }
        event = encode(ServerEvent(server=self._scope.server_id, method=method, params=dict(params) or None), method)
        await asyncio.gather(*(self._publish(client, event) for client in clients))

    async def _publish(self, client: str, event: bytes) -> None:
        try:
            await self._scope.connection.publish(self._scope.topics.server_events(self._scope.server_id, client), event)
        except MQTTAgentError as error:
            logger.warning("client %s could not be told of a change: %s", client, error)
