"""Lets MCP clients of both protocols subscribe to resources of the namespace, and clients of 2026 to their tasks."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Any, cast

import mcp_types as types
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY, ListenHandler
from mcp.shared.exceptions import MCPError
from mqtt_agent.tools import ServerChanges

from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.news import News
from mcp_mqtt_agent.places import Places
from mcp_mqtt_agent.shelf import Shelf
from mcp_mqtt_agent.task_extension import TaskExtension, needs_tasks, wants_tasks

__all__ = ["Subscribing"]

_MOST_TASKS = 100
_MOST_URIS = 256
"""How many resources of one server the clients can subscribe to. A bridge watches no more for one face."""
_METHOD = "notifications/tasks"


class Subscribing:
    """What the MCP clients of one identity have subscribed to.

    Args:
        news: Tells the clients.
        shelf: Finds the servers of resources.
        tasks: The tasks of the clients.
    """

    def __init__(self, news: News, shelf: Shelf, tasks: TaskExtension) -> None:
        self._news = news
        self._shelf = shelf
        self._tasks = tasks
        self._handler = ListenHandler(news.bus)
        self._servers: dict[str, str] = {}
        """The server of each resource that somebody has subscribed to."""
        self._places: dict[str, Places[object]] = {}
        """Who has subscribed to which resources of each server: connections of clients of 2025, and streams."""
        self._connections: set[int] = set()
        """The ids of the connections whose end is noted."""
        self._watched: dict[str, set[asyncio.Queue[str]]] = {}
        """Where the changes of each task go, by its id."""
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        """A lock for each resource that somebody is subscribing to: a server that is slow holds up no other."""
        self.changes: ServerChanges | None = None
        """The changes of the namespace, while the face is live."""

    def close(self) -> None:
        """End the streams of clients of 2026."""
        self._handler.close()

    def on_task(self, task_id: str) -> None:
        """Tell the clients that watch a task of its change."""
        for queue in self._watched.get(task_id, ()):
            queue.put_nowait(task_id)

    # Clients of 2025

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        """Answer ``resources/subscribe``."""
        uri, connection = str(params.uri), ctx.session._connection  # pyright: ignore[reportPrivateUsage]
        if id(connection) in self._news.subscribed.get(uri, {}):
            return types.EmptyResult()
        if not await self._hold(uri, id(connection)):
            raise MCPError(types.INVALID_PARAMS, f"no server tells the changes of the resource {uri}", {"uri": uri})
        sessions = self._news.subscribed.setdefault(uri, {})
        sessions[id(connection)] = ctx.session
        if id(connection) not in self._connections:
            self._connections.add(id(connection))
            connection.exit_stack.callback(self._leave_all, id(connection))
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        """Answer ``resources/unsubscribe``."""
        self._leave(str(params.uri), id(ctx.session._connection))  # pyright: ignore[reportPrivateUsage]
        return types.EmptyResult()

    def _leave_all(self, connection: int) -> None:
        """Forget a client that is gone."""
        self._connections.discard(connection)
        for uri in [uri for uri, sessions in self._news.subscribed.items() if connection in sessions]:
            self._leave(uri, connection)

    def _leave(self, uri: str, connection: int) -> None:
        sessions = self._news.subscribed.get(uri, {})
        if sessions.pop(connection, None) is not None:
            self._release(uri, connection)
        if not sessions:
            self._news.subscribed.pop(uri, None)

    # Clients of 2026

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Answer ``subscriptions/listen``: the answer is a stream."""
        tasks, held, stream = self._tasks_of(ctx), list[str](), object()
        telling: asyncio.Task[None] | None = None
        try:
            for uri in dict.fromkeys(params.notifications.resource_subscriptions or ()):
                if await self._hold(uri, stream):
                    held.append(uri)
            asked = params.notifications.model_copy(update={"resource_subscriptions": held or None})
            if tasks:
                acknowledged = asyncio.Event()
                ctx = self._with_tasks(ctx, tasks, acknowledged)
                telling = asyncio.create_task(self._tell_tasks(ctx, tasks, acknowledged))
            return await self._handler(ctx, params.model_copy(update={"notifications": asked}))
        finally:
            if telling is not None:
                telling.cancel()
            for uri in held:
                self._release(uri, stream)

    def _tasks_of(self, ctx: Context) -> list[str]:
        """The tasks whose changes a client asks for, as far as they exist.

        Raises:
            MCPError: The client has not declared the extension.
        """
        asked: Any = cast("dict[str, Any]", ctx.params or {}).get("notifications") or {}
        ids: Any = asked.get("taskIds") if isinstance(asked, dict) else None
        if not ids or not isinstance(ids, list):
            return []
        if not wants_tasks(ctx):
            raise needs_tasks()
        texts = [each for each in cast("list[Any]", ids) if isinstance(each, str)]
        return [each for each in texts[:_MOST_TASKS] if self._tasks.view(each) is not None]

    def _with_tasks(self, ctx: Context, tasks: list[str], acknowledged: asyncio.Event) -> Context:
        """The same request, whose acknowledgement names the tasks too. The SDK knows no tasks."""
        session, send = ctx.session, ctx.session.send_notification

        async def acknowledge(notification: Any, related_request_id: types.RequestId | None = None) -> None:
            if isinstance(notification, types.SubscriptionsAcknowledgedNotification):
                params = notification.params.model_dump(by_alias=True, mode="json", exclude_none=True)
                params["notifications"] = {**(params.get("notifications") or {}), "taskIds": tasks}
                await session._request_outbound.notify(notification.method, params)  # pyright: ignore[reportPrivateUsage]
                acknowledged.set()
            else:
                await send(notification, related_request_id)

        session.send_notification = acknowledge  # type: ignore[method-assign]
        return ctx

    async def _tell_tasks(self, ctx: Context, tasks: list[str], acknowledged: asyncio.Event) -> None:
        """Tell how the tasks are now, and then their changes, all after the acknowledgement."""
        queue = asyncio.Queue[str]()
        for task_id in tasks:
            self._watched.setdefault(task_id, set()).add(queue)
            queue.put_nowait(task_id)
        try:
            await acknowledged.wait()
            while True:
                changed = {await queue.get()}
                while not queue.empty():
                    changed.add(queue.get_nowait())
                for task_id in changed:
                    view = self._tasks.view(task_id)
                    if view is not None:
                        params = view | {"_meta": {SUBSCRIPTION_ID_META_KEY: ctx.request_id}}
                        await ctx.session._request_outbound.notify(_METHOD, params)  # pyright: ignore[reportPrivateUsage]
        finally:
            for task_id in tasks:
                self._watched[task_id].discard(queue)
                if not self._watched[task_id]:
                    del self._watched[task_id]

    # Resources

    async def _hold(self, uri: str, owner: object) -> bool:
        """Let the server of a resource tell its changes, as long as somebody has subscribed to it."""
        async with self._locks.setdefault(uri, asyncio.Lock()):
            known = self._servers.get(uri)
            if known is not None:
                return self._take(known, uri, owner)
            if self.changes is None:
                return False
            for server in await self._shelf.servers_for(uri):
                if not self._take(server, uri, owner):
                    continue
                told = False
                try:
                    told = await self.changes.subscribe(server, uri)
                finally:
                    if not told:
                        self._release(uri, owner)
                if told:
                    return self._servers.get(uri) == server  # somebody may have got the place meanwhile
            return False

    def _take(self, server: str, uri: str, owner: object) -> bool:
        lost = self._places.setdefault(server, Places(_MOST_URIS)).take(owner, uri)
        if lost is None:
            return False
        self._servers[uri] = server
        for each in lost:
            self._end(server, each)
        return True

    def _release(self, uri: str, owner: object) -> None:
        server = self._servers.get(uri)
        if server is not None and self._places[server].leave(owner, uri):
            self._end(server, uri)

    def _end(self, server: str, uri: str) -> None:
        """Nobody has subscribed to a resource any more."""
        self._servers.pop(uri, None)
        self._news.subscribed.pop(uri, None)
        if not self._places[server].taken():
            del self._places[server]
        if self.changes is not None:
            with contextlib.suppress(RuntimeError):
                self.changes.unsubscribe(server, uri)
