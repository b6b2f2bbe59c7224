"""Follows one call of a tool that an MCP client has made as a task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from mcp.shared.exceptions import MCPError
from mqtt_agent.errors import CallCanceled, MQTTAgentError
from mqtt_agent.tools import CallHandle
from mqtt_agent.wire import ToolCard

from mcp_mqtt_agent.call_results import answer_of_call, showable

__all__ = ["CallTask"]


class CallTask:
    """A call that goes on in the background until its end. It lives as long as this process.

    Args:
        handle: The call.
        card: The card of the tool.
        on_change: Called when the task has changed.

    Attributes:
        handle: The call.
        created_at: When the call began, Unix seconds.
        updated_at: When the task has changed last, Unix seconds.
        message: What the tool has said last about its progress.
        canceled: Whether the call was canceled.
        outcome: Ends with the result of ``tools/call``, or raises :class:`MCPError`.
    """

    lost = False

    def __init__(self, handle: CallHandle, card: ToolCard, on_change: Callable[[], None]) -> None:
        self.handle: CallHandle = handle
        self.created_at: float = time.time()
        self.updated_at: float = self.created_at
        self.message: str | None = None
        self.canceled: bool = False
        self._card = card
        self._on_change = on_change
        self.outcome: asyncio.Task[dict[str, Any]] = asyncio.create_task(
            self._follow(), name=f"mcp-mqtt-agent call {handle.call_id}"
        )
        self.outcome.add_done_callback(self._on_done)

    @property
    def task_id(self) -> str:
        """The id of the task, which nobody can guess."""
        return self.handle.call_id

    @property
    def done(self) -> bool:
        """Whether the task is over."""
        return self.outcome.done()

    async def cancel(self, reason: str) -> None:
        """Cancel the call; see :meth:`CallHandle.cancel`."""
        await self.handle.cancel(reason)

    async def stop(self) -> None:
        """Cancel the call, because nobody can ask for its result any more."""
        self.outcome.cancel()
        await asyncio.gather(self.outcome, self.handle.cancel("the MCP server was stopped"), return_exceptions=True)

    async def _follow(self) -> dict[str, Any]:
        async for partial in self.handle.partials():
            message = partial.get("message") if isinstance(partial, dict) else None
            if isinstance(message, str) and message != self.message:
                self.message, self.updated_at = message, time.time()
                self._on_change()
        try:
            await self.handle.result()
        except CallCanceled:
            self.canceled = True
        except MQTTAgentError:
            pass  # the answer says it
        return showable(await answer_of_call(self.handle, self._card))

    def _on_done(self, outcome: asyncio.Task[dict[str, Any]]) -> None:
        self.updated_at = time.time()
        if not outcome.cancelled():
            error = outcome.exception()  # so that asyncio does not complain when nobody asks
            assert error is None or isinstance(error, MCPError)
            self._on_change()
