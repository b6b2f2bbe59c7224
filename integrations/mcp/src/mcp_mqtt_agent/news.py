"""Tells MCP clients of both protocols that tools, resources, prompts and tasks have changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mqtt_agent.adapting.background import BackgroundTasks
from mqtt_agent.adapting.changes import LISTS, RESOURCE_UPDATED
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.tools import ServerChange

__all__ = ["News"]

logger: logging.Logger = logger_of(__name__)

_TOGETHER = 0.05
"""Seconds in which several changes are told as one."""
_MAX_SESSIONS = 1000
_LISTS: dict[str, ServerEvent] = {
    LISTS["resourcesListChanged"]: ResourcesListChanged(),
    LISTS["promptsListChanged"]: PromptsListChanged(),
}


class News:
    """The MCP clients that want to know of changes.

    Attributes:
        bus: Where clients of 2026 subscribe.
        subscribed: The clients of 2025 that want to know of the changes of a resource, by its URI, and by an id of the
            client's connection.
    """

    def __init__(self) -> None:
        self.bus: InMemorySubscriptionBus = InMemorySubscriptionBus()
        self.subscribed: dict[str, dict[int, ServerSession]] = {}
        self._sessions: deque[ServerSession] = deque(maxlen=_MAX_SESSIONS)
        self._untold: dict[ServerSession, dict[ServerEvent, None]] = {}
        """What each client that is being told of something has not been told yet. A change that happens again meanwhile
        is told once."""
        self._tasks = BackgroundTasks(lambda task, error: logger.warning("a change is not told: %r", error))

    def add(self, session: ServerSession) -> None:
        """Add a client of 2025."""
        self._sessions.append(session)

    async def tell(self, refresh: Callable[[], Awaitable[object]], *changes: AsyncIterator[object]) -> None:
        """Tell the clients of each change of the tools, until the task is canceled.

        Args:
            refresh: Awaited at the start and before the clients are told of a change.
            changes: What gives a value when the tools have changed.
        """
        changed = asyncio.Event()
        watching = [asyncio.create_task(_note(each, changed)) for each in changes]
        try:
            await _try(refresh)
            while True:
                await changed.wait()
                await asyncio.sleep(_TOGETHER)
                changed.clear()
                await _try(refresh)
                await self._publish(ToolsListChanged())
        finally:
            for each in watching:
                each.cancel()
            self._tasks.cancel()
            self._untold.clear()

    async def tell_changes(self, changes: AsyncIterator[ServerChange], servers: Collection[str] | None = None) -> None:
        """Tell the clients of each change of resources and prompts, until the task is canceled.

        Args:
            changes: The changes.
            servers: The only servers whose changes are told; None for all servers.
        """
        waiting, arrived = dict[ServerEvent, None](), asyncio.Event()

        async def read() -> None:
            async for change in changes:
                if servers is not None and change.server not in servers:
                    continue
                event = _LISTS.get(change.method)
                if change.method == RESOURCE_UPDATED and isinstance(change.params.get("uri"), str):
                    event = ResourceUpdated(change.params["uri"])
                if event is not None:
                    waiting[event] = None
                    arrived.set()

        reading = asyncio.create_task(read())
        try:
            while True:
                await arrived.wait()
                await asyncio.sleep(_TOGETHER)
                arrived.clear()
                events = list(waiting)
                waiting.clear()
                for event in events:
                    await self._publish(event)
        finally:
            reading.cancel()

    async def _publish(self, event: ServerEvent) -> None:
        await self.bus.publish(event)
        sessions = self.subscribed.get(event.uri, {}).values() if isinstance(event, ResourceUpdated) else self._sessions
        for session in list(sessions):
            untold = self._untold.get(session)
            if untold is not None:  # the client has not taken the news before this one
                untold[event] = None
            else:
                untold = self._untold[session] = {event: None}
                self._tasks.start(self._tell_all(session, untold))

    async def _tell_all(self, session: ServerSession, untold: dict[ServerEvent, None]) -> None:
        """Send to one client what it has not been told, one after the other. A slow client holds up no other."""
        try:
            while untold:
                event = next(iter(untold))
                del untold[event]
                await _send(session, event)
        except Exception as error:  # a client that is gone must not keep the others from the news
            logger.debug("a client is gone: %r", error)
            with contextlib.suppress(ValueError):
                self._sessions.remove(session)
        finally:
            if self._untold.get(session) is untold:
                del self._untold[session]


async def _send(session: ServerSession, event: ServerEvent) -> None:
    if isinstance(event, ResourceUpdated):
        await session.send_resource_updated(event.uri)
    elif isinstance(event, ToolsListChanged):
        await session.send_tool_list_changed()
    elif isinstance(event, PromptsListChanged):
        await session.send_prompt_list_changed()
    else:
        await session.send_resource_list_changed()


async def _try(refresh: Callable[[], Awaitable[object]]) -> None:
    try:
        await refresh()
    except MCPError as error:  # each request says it too
        logger.debug("the tools cannot be looked at: %s", error)


async def _note(changes: AsyncIterator[object], changed: asyncio.Event) -> None:
    async for _ in changes:
        changed.set()
