"""Finds the caller for which an MCP server asks or logs. Only servers of 2026 say for which call they do so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST
from mqtt_agent.errors import InputNotGiven, MQTTAgentError
from mqtt_agent.tools import ELICITATION, ToolContext

__all__ = ["Callers"]

logger: logging.Logger = logging.getLogger(__name__)

_CLEAR_WITHIN = 10.0
"""Seconds in which it must become clear for which call the server asks."""


class Callers:
    """The calls that run at one MCP server.

    A question of a server of 2025 does not name its call. A call that asks does not end before it has its answer, and a
    call that begins after the question has not asked it. So when all other calls that ran at the question have ended,
    the one that is left has asked. A question that does not become clear in this way is refused, because it could
    belong to another caller.
    """

    def __init__(self) -> None:
        self._running: dict[object, ToolContext] = {}
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def running(self, context: ToolContext) -> Generator[None]:
        """Note that a call runs at the server, until the end of the block."""
        key = object()
        self._running[key] = context
        try:
            yield
        finally:
            del self._running[key]
            self._ended.set()

    @property
    def only(self) -> ToolContext | None:
        """The call that runs; None when there is none, or several."""
        return next(iter(self._running.values())) if len(self._running) == 1 else None

    async def ask(self, params: dict[str, Any]) -> dict[str, Any]:
        """Pass on a question of the server.

        Args:
            params: The parameters of ``elicitation/create``.

        Returns:
            The result of ``elicitation/create``.

        Raises:
            MCPError: The question has no caller, or not only one, or its caller does not answer.
        """
        context = await self._asking()
        # A task of its own: a call that is canceled must not cancel the session with the server.
        asking = asyncio.ensure_future(context.request_input(ELICITATION, params))
        try:
            await asyncio.wait([asking])
        finally:
            asking.cancel()
        if asking.cancelled():
            raise MCPError(INTERNAL_ERROR, "the call is over, and nobody answers its question")
        error = asking.exception()
        if isinstance(error, (InputNotGiven, MQTTAgentError)):
            raise MCPError(INVALID_REQUEST, str(error)) from error
        result = asking.result()
        return result if isinstance(result, dict) else {"action": "cancel"}

    async def _asking(self) -> ToolContext:
        """The call that has asked just now."""
        loop, asked = asyncio.get_running_loop(), set(self._running)
        end = loop.time() + _CLEAR_WITHIN
        while len(asked) > 1 and loop.time() < end:
            self._ended.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), end - loop.time())
            asked &= self._running.keys()
        if len(asked) != 1:
            what = f"{len(asked)} calls run, and the question does not say which of them asks"
            logger.warning("a question of the MCP server is refused, because %s", what)
            raise MCPError(INVALID_REQUEST, f"the question is refused, because {what}")
        return self._running[asked.pop()]
