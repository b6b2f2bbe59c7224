"""Passes on the log messages of tools to the MCP clients that want them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.wire import LOG_LEVELS, StreamMessage

from mcp_mqtt_agent.context import Context

__all__ = ["Logs", "add_levels", "level_of"]

_KEY = "mqtt-agent/log-level"
_MOST = 1000
"""How many messages of one call wait for a client that reads slowly. The oldest are dropped."""


async def _set_level(ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
    _state_of(ctx)[_KEY] = params.level
    return types.EmptyResult()


def add_levels(server: Server[dict[str, Any]]) -> None:
    """Let a server keep the level that a client of 2025 wants. A client of 2026 says the level with each request."""
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, _set_level)


def level_of(ctx: Context) -> str | None:
    """The lowest level of the log messages that the client wants; None when the client wants none."""
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        level = (ctx.meta or {}).get(types.LOG_LEVEL_META_KEY)
    else:
        level = _state_of(ctx).get(_KEY)
    return level if level in LOG_LEVELS else None


def _state_of(ctx: Context) -> dict[str, Any]:
    return ctx.session._connection.state  # pyright: ignore[reportPrivateUsage]


class Logs:
    """The log messages of one call, in order.

    Args:
        ctx: The request that the messages belong to.
        level: The lowest level that the client wants.

    Attributes:
        ctx: The request that the messages belong to from now on.
    """

    def __init__(self, ctx: Context, level: str) -> None:
        self.ctx: Context = ctx
        self._from = LOG_LEVELS.index(level)
        self._said: deque[StreamMessage] = deque(maxlen=_MOST)
        self._sending: asyncio.Task[None] | None = None

    def add(self, said: StreamMessage) -> None:
        """Pass on a message, after the messages before it."""
        if said.level not in LOG_LEVELS or LOG_LEVELS.index(said.level) < self._from:
            return
        self._said.append(said)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def sent(self) -> None:
        """Wait until all messages are sent, because no message may follow the result."""
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        while self._said:
            said = self._said.popleft()
            params = {"level": said.level, "logger": said.logger, "data": said.data}
            message = types.LoggingMessageNotification(
                params=types.LoggingMessageNotificationParams.model_validate(params)
            )
            with contextlib.suppress(Exception):  # the client may be gone; its call is not
                await self.ctx.session.send_notification(message, self.ctx.request_id)
