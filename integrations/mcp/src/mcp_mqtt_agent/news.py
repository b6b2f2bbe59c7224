"""Tells MCP clients of both protocols that the tools have changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ToolsListChanged
from mcp.shared.exceptions import MCPError

__all__ = ["News"]

logger: logging.Logger = logging.getLogger(__name__)

_TOGETHER = 0.05
"""Seconds in which several changes are told as one."""
_MAX_SESSIONS = 1000


class News:
    """The MCP clients that want to know of changes.

    Attributes:
        bus: Where clients of 2026 subscribe.
    """

    def __init__(self) -> None:
        self.bus: InMemorySubscriptionBus = InMemorySubscriptionBus()
        self._sessions: deque[ServerSession] = deque(maxlen=_MAX_SESSIONS)

    def add(self, session: ServerSession) -> None:
        """Add a client of 2025."""
        self._sessions.append(session)

    async def tell(self, refresh: Callable[[], Awaitable[object]], *changes: AsyncIterator[object]) -> None:
        """Tell the clients of each change, until the task is canceled.

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
                await self._tell_tools()
        finally:
            for each in watching:
                each.cancel()

    async def _tell_tools(self) -> None:
        await self.bus.publish(ToolsListChanged())
        for session in list(self._sessions):
            try:
                await session.send_tool_list_changed()
            except Exception as error:  # a client that is gone must not keep the others from the news
                logger.debug("a client is gone: %r", error)
                with contextlib.suppress(ValueError):
                    self._sessions.remove(session)


async def _try(refresh: Callable[[], Awaitable[object]]) -> None:
    try:
        await refresh()
    except MCPError as error:  # each request says it too
        logger.debug("the tools cannot be looked at: %s", error)


async def _note(changes: AsyncIterator[object], changed: asyncio.Event) -> None:
    async for _ in changes:
        changed.set()
