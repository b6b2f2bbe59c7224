"""Follows the tasks that an MCP server makes of calls, in both protocols, until they have results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, cast

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from mqtt_agent.adapting.background import within
from mqtt_agent.errors import ToolError
from mqtt_agent.tools import ToolContext

from mcp_mqtt_agent.questions import answers_of
from mcp_mqtt_agent.session import Session

__all__ = ["follow", "takes_tasks", "task_of"]

_SHORTEST_POLL, _LONGEST_POLL, _USUAL_POLL = 0.1, 10.0, 1.0
_CANCELED_WITHIN = 5.0


def takes_tasks(session: Session) -> bool:
    """Whether a server of 2025 makes tasks of calls for clients that ask for it."""
    offered = getattr(session.server_capabilities, "tasks", None)
    requests = None if offered is None else offered.requests
    return (
        not session.modern and requests is not None and requests.tools is not None and requests.tools.call is not None
    )


def task_of(session: Session, raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The task that a server has answered a call with; None when the answer is the result."""
    if session.modern:
        return dict(raw) if raw.get("resultType") == "task" else None
    task = raw.get("task")
    return cast("dict[str, Any]", task) if isinstance(task, dict) and "content" not in raw else None


async def follow(session: Session, task: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """Wait for the result of a task. A caller that gives up cancels the task.

    Args:
        session: The session with the server.
        task: The task, as the server has shown it.
        context: The call over MQTT. Its caller gets the questions, and what the server says about its progress.

    Returns:
        The result of ``tools/call``.

    Raises:
        MCPError: The task has failed, or the connection has ended.
        ToolError: The server asks for something that no caller can give, or has canceled the task.
        InputNotGiven: The caller does not answer.
    """
    task_id = task.get("taskId")
    if not isinstance(task_id, str):
        raise MCPError(INTERNAL_ERROR, "the MCP server has answered with a task without an id")
    with session.callers.following(task_id, context):
        try:
            return await (_poll(session, task, context) if session.modern else _wait(session, task_id))
        except BaseException:
            if not session.ended.is_set():
                await asyncio.shield(_cancel(session, task_id))
            raise


async def _cancel(session: Session, task_id: str) -> None:
    with contextlib.suppress(MCPError, asyncio.TimeoutError):  # a task that is over cannot be canceled
        await within(session.request("tasks/cancel", {"taskId": task_id}), _CANCELED_WITHIN)


async def _wait(session: Session, task_id: str) -> dict[str, Any]:
    """The result of a task of the protocol of 2025. The server asks meanwhile with requests of its own."""
    result = await session.request("tasks/result", {"taskId": task_id})
    meta = {key: each for key, each in (result.get("_meta") or {}).items() if not key.startswith("io.modelcontext")}
    return {**result, "_meta": meta}


async def _poll(session: Session, task: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    """The result of a task of the protocol of 2026."""
    task_id, said, told = task["taskId"], task.get("statusMessage"), 0
    answered = set[str]()
    while True:
        status = task.get("status")
        if status == "completed":
            return cast("dict[str, Any]", task.get("result") or {})
        if status == "failed":
            error = cast("dict[str, Any]", task.get("error") or {})
            raise MCPError(
                error.get("code", INTERNAL_ERROR), error.get("message", "the task failed"), error.get("data")
            )
        if status == "cancelled":
            raise ToolError("the MCP server has canceled the task", code="TASK_CANCELED")
        asked = cast("dict[str, Any]", task.get("inputRequests") or {}) if status == "input_required" else {}
        answered &= asked.keys()
        new = {key: each for key, each in asked.items() if key not in answered}
        if new:
            answers = await answers_of(context, new)
            await session.request("tasks/update", {"taskId": task_id, "inputResponses": answers})
            answered |= new.keys()  # the server may show them again until it has taken the answers
        else:
            await asyncio.sleep(_pause_of(task))
        task = await session.request("tasks/get", {"taskId": task_id}, answers=context.answers)
        message = task.get("statusMessage")
        if isinstance(message, str) and message != said:
            said, told = message, told + 1
            await context.progress(told, None, message)


def _pause_of(task: Mapping[str, Any]) -> float:
    poll = task.get("pollIntervalMs")
    seconds = poll / 1000 if isinstance(poll, (int, float)) and not isinstance(poll, bool) else _USUAL_POLL
    return min(max(seconds, _SHORTEST_POLL), _LONGEST_POLL)
