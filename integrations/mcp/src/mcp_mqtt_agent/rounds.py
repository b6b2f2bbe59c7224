"""Answers what an MCP server of 2026 asks in the middle of a call, and makes the call again with the answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any, cast

from mcp_types import LOG_LEVEL_META_KEY
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ToolContext

from mcp_mqtt_agent.child_tasks import follow, takes_tasks, task_of
from mcp_mqtt_agent.questions import answers_of
from mcp_mqtt_agent.session import Session

__all__ = ["finish"]

_MOST_ROUNDS = 100
_PAUSE = 1.0
"""Seconds before a call is made again for a server that asks nothing and is not ready."""


async def finish(
    session: Session, params: Mapping[str, Any], context: ToolContext, *, as_task: bool = False
) -> dict[str, Any]:
    """Call a tool of an MCP server, and pass on its questions until it has a result.

    Args:
        session: The session with the server.
        params: The parameters of ``tools/call``.
        context: The call over MQTT.
        as_task: Whether a server of 2025 can make a task of this call.

    Returns:
        The result of ``tools/call`` as it arrived.

    Raises:
        MCPError: See :meth:`Session.request`.
        ToolError: The server asks for something that no caller can give.
        InputNotGiven: The caller does not answer.
    """
    params = dict(params)
    if session.modern and context.log_level is not None:
        params["_meta"] = {**params.get("_meta", {}), LOG_LEVEL_META_KEY: context.log_level}
    if as_task and takes_tasks(session):
        return await _as_task(session, params, context)
    for _ in range(_MOST_ROUNDS):
        raw = await session.request("tools/call", params, context.progress, answers=context.answers)
        task = task_of(session, raw)
        if task is not None:
            return await follow(session, task, context)
        if raw.get("resultType") != "input_required":
            return raw
        asked = cast("dict[str, Any]", raw.get("inputRequests") or {})
        if asked:
            params["inputResponses"] = await answers_of(context, asked)
        else:
            params.pop("inputResponses", None)
            await asyncio.sleep(_PAUSE)
        if raw.get("requestState") is not None:
            params["requestState"] = raw["requestState"]
    raise ToolError(f"the MCP server has asked {_MOST_ROUNDS} times, and has no result", code="TOO_MANY_ROUNDS")


async def _as_task(session: Session, params: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Let a server of 2025 make a task of a call. The progress of the task has the token of the call."""
    token = uuid.uuid4().hex
    params |= {"task": {}, "_meta": {**params.get("_meta", {}), "progressToken": token}}
    with session.callers.reporting(token, context):
        raw = await session.request("tools/call", params, answers=context.answers)
        task = task_of(session, raw)
        return raw if task is None else await follow(session, task, context)
