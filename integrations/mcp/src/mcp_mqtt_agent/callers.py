"""Finds the caller for which an MCP server asks or logs. Only servers of 2026 say for which call they do so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Generator
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, ProgressNotificationParams
from mqtt_agent.adapting.background import BackgroundTasks, within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.errors import InputNotGiven, MQTTAgentError
from mqtt_agent.tools import ELICITATION, ToolContext

__all__ = ["Callers"]

logger: logging.Logger = logger_of(__name__)

_CLEAR_WITHIN = 10.0
"""Seconds in which it must become clear for which call the server asks."""
_GOES_ON_FOR = 60.0
"""Seconds for which a server may go on with a call that was canceled."""


class Callers:
    """The calls that run at one MCP server.

    A question of a server of 2025 does not name its call. A call that asks does not end before it has its answer, and a
    call that begins after the question has not asked it. So when all other calls that ran at the question have ended,
    the one that is left has asked. A question that does not become clear in this way is refused, because it could
    belong to another caller.
    """

    def __init__(self) -> None:
        self._running: dict[object, ToolContext | None] = {}
        """What runs at the server: calls, and None for what nobody can be asked about."""
        self._tasks: dict[str, ToolContext] = {}
        """The calls that have become tasks, by the ids of the tasks. A question about a task names the task."""
        self._reporting: dict[str, ToolContext] = {}
        """The calls that have become tasks, by the tokens of their progress."""
        self._reports = BackgroundTasks(lambda task, error: logger.debug("a progress report is lost: %r", error))
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def reporting(self, token: str, context: ToolContext) -> Generator[None]:
        """Note under which token the server reports the progress of a call, until the end of the block."""
        self._reporting[token] = context
        try:
            yield
        finally:
            del self._reporting[token]

    def report(self, params: ProgressNotificationParams) -> None:
        """Pass on a progress report of the server, if it is about a call that has become a task."""
        context = self._reporting.get(str(params.progress_token))
        if context is not None:
            self._reports.start(context.progress(params.progress, params.total, params.message))

    @contextlib.contextmanager
    def following(self, task_id: str, context: ToolContext) -> Generator[None]:
        """Note that a call has become a task, until the end of the block."""
        self._tasks[task_id] = context
        try:
            yield
        finally:
            self._tasks.pop(task_id, None)

    @contextlib.contextmanager
    def running(self, context: ToolContext | None) -> Generator[None]:
        """Note that a call runs at the server, until the end of the block.

        A server may go on with a call that was canceled, and ask about it. So such a call counts for a while longer:
        its question must not go to the caller of another call.

        Args:
            context: The call; None for a request whose caller cannot be asked.
        """
        key = object()
        self._running[key] = context
        try:
            yield
        except asyncio.CancelledError:
            self._running[key] = None
            asyncio.get_running_loop().call_later(_GOES_ON_FOR, self._end, key)
            raise
        except BaseException:
            self._end(key)
            raise
        else:
            self._end(key)

    def _end(self, key: object) -> None:
        del self._running[key]
        self._ended.set()

    @property
    def only(self) -> ToolContext | None:
        """The call that runs; None when there is none, or when more than this call may run."""
        return next(iter(self._running.values())) if len(self._running) == 1 else None

    async def ask(self, params: dict[str, Any], task_id: str | None = None) -> dict[str, Any]:
        """Pass on a question of the server.

        Args:
            params: The parameters of ``elicitation/create``.
            task_id: The task that asks, if the question says it.

        Returns:
            The result of ``elicitation/create``.

        Raises:
            MCPError: The question has no caller, or not only one, or its caller does not answer.
        """
        context = self._tasks.get(task_id or "") or await self._asking()
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
                await within(self._ended.wait(), end - loop.time())
            asked &= self._running.keys()
        context = self._running[asked.pop()] if len(asked) == 1 else None
        if context is None:
            what = "no call runs whose caller it must be for" if not asked else f"{len(asked)} calls run"
            what = f"{what}, and the question does not say which call asks"
            logger.warning("a question of the MCP server is refused, because %s", what)
            raise MCPError(INVALID_REQUEST, f"the question is refused, because {what}")
        return context
