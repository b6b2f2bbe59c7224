"""Follows calls and tasks to their ends, and tells an MCP client of their progress."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from mqtt_agent.tools import CallHandle
from mqtt_agent.wire import TaskEvent

from mcp_mqtt_agent.agent_task import AgentTask, OnProgress
from mcp_mqtt_agent.call_results import answer_of_call, complete
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.open_calls import OpenCall

__all__ = ["finish_call", "finish_task", "progress_to"]


async def finish_call(ctx: Context, call: OpenCall, handle: CallHandle) -> dict[str, Any]:
    """Follow a call to its end. Returns the result of ``tools/call``."""
    assert call.card is not None
    report = _rising(ctx)
    async for partial in handle.partials():
        # MCP has no place for other partial results.
        if isinstance(partial, dict) and isinstance(partial.get("progress"), (int, float)):
            await report(partial["progress"], partial.get("total"), partial.get("message"))
    try:
        return complete(ctx, await answer_of_call(handle, call.card))
    finally:
        if call.logs is not None:
            await call.logs.sent()


def progress_to(ctx: Context) -> OnProgress:
    """What passes on the progress of a task, if the client wants any."""
    report = _rising(ctx)

    async def pass_on(event: TaskEvent) -> None:
        if event.progress is not None:
            await report(event.progress, event.total, event.content)

    return pass_on


def _rising(ctx: Context) -> Callable[[float, float | None, str | None], Awaitable[None]]:
    """What tells the client of progress, if the client wants any. MCP demands that each value is greater."""
    told = -math.inf

    async def report(progress: float, total: float | None, message: str | None) -> None:
        nonlocal told
        if progress > told:
            told = progress
            await ctx.session.report_progress(progress, total, message)

    return report


async def finish_task(ctx: Context, task: AgentTask) -> dict[str, Any]:
    """Follow a task to its end. Returns the result of ``tools/call``."""
    task.on_progress = progress_to(ctx)
    return complete(ctx, dict(await asyncio.shield(task.outcome)))
