"""MCP's extension for tasks (SEP-2663): a call of an agent gives a task, which the client looks at again and again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime, timezone
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import MQTTAgentError
from pydantic import Field

from mcp_mqtt_agent.agent_task import AgentTask
from mcp_mqtt_agent.agent_tools import AgentTools
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.open_calls import OpenCall, may_ask

__all__ = ["TASKS", "TaskExtension", "wants_tasks"]

TASKS: str = "io.modelcontextprotocol/tasks"
"""The identifier of the extension."""
_POLL_MS = 1000
_KEPT = 1000
"""Tasks that are followed here. The store of the agent has them all."""


class _TaskParams(types.RequestParams):
    task_id: str


class _UpdateParams(_TaskParams):
    input_responses: dict[str, Any] = Field(default_factory=dict[str, Any])


def wants_tasks(ctx: Context) -> bool:
    """Whether a client takes a task as the answer to its call."""
    capabilities = ctx.session.client_capabilities
    declared = None if capabilities is None else capabilities.extensions
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS in (declared or {})


class TaskExtension:
    """The tasks of MCP clients.

    A task is in the store of the agent that gives it, so a client finds it after a restart of the face. The id of a
    task cannot be guessed, and finds the task only for the identity that has given it.

    Args:
        agents: Gives and finds the tasks.
    """

    def __init__(self, agents: AgentTools) -> None:
        self._agents = agents
        self._tasks: OrderedDict[str, tuple[AgentTask, OpenCall]] = OrderedDict()

    def add_to(self, server: Server[dict[str, Any]]) -> None:
        """Let a server answer the methods of the extension."""
        server.extensions[TASKS] = {}
        server.add_request_handler("tasks/get", _TaskParams, self._get)
        server.add_request_handler("tasks/update", _UpdateParams, self._update)
        server.add_request_handler("tasks/cancel", _TaskParams, self._cancel)

    def created(self, ctx: Context, handle: TaskHandle) -> dict[str, Any]:
        """The answer to a call that has become a task."""
        return self._view(*self._follow(handle, asks=may_ask(ctx))) | {"resultType": "task"}

    # Requests of MCP clients

    async def _get(self, ctx: Context, params: _TaskParams) -> dict[str, Any]:
        return self._view(*await self._found(ctx, params.task_id)) | {"resultType": "complete"}

    async def _update(self, ctx: Context, params: _UpdateParams) -> dict[str, Any]:
        _, call = await self._found(ctx, params.task_id)
        call.answer(params.input_responses)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: Context, params: _TaskParams) -> dict[str, Any]:
        task, _ = await self._found(ctx, params.task_id)
        try:
            await task.cancel("the MCP client has canceled the task")
        except MQTTAgentError as error:
            raise hidden(error, "the task cannot be canceled now") from error
        return {"resultType": "complete"}

    # Tasks

    async def _found(self, ctx: Context, task_id: str) -> tuple[AgentTask, OpenCall]:
        """A task of this identity.

        Raises:
            MCPError: The client has not declared the extension, or there is no such task.
        """
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", ctx.method)
        if not wants_tasks(ctx):
            needed = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"the client has not declared {TASKS}", needed)
        known = self._tasks.get(task_id)
        if known is not None and not known[0].lost:
            return known
        handle = await self._agents.find(task_id)
        if handle is None:
            raise MCPError(types.INVALID_PARAMS, f"Task not found: {task_id:.80}")
        task, call = self._follow(handle, asks=True)  # whoever only looks must not cancel a task that asks
        if handle.done:
            await asyncio.wait([task.outcome])
        return task, call

    def _follow(self, handle: TaskHandle, *, asks: bool) -> tuple[AgentTask, OpenCall]:
        call = OpenCall(handle.peer)
        call.handle = task = self._agents.follow(handle, call.on_question if asks else None)
        self._tasks[handle.task_id] = task, call
        if len(self._tasks) > _KEPT:
            over = next((each for each, (known, _) in self._tasks.items() if known.done), None)
            self._tasks.pop(over or "", None)
        return task, call

    def _view(self, task: AgentTask, call: OpenCall) -> dict[str, Any]:
        """A task as the extension shows it."""
        handle = task.handle
        view: dict[str, Any] = {
            "taskId": handle.task_id,
            "status": "working",
            "createdAt": _time(handle.created_at),
            "lastUpdatedAt": _time(task.updated_at),
            "ttlMs": None,
            "pollIntervalMs": _POLL_MS,
        }
        if handle.message:
            view["statusMessage"] = handle.message
        if task.done and task.canceled:
            view["status"] = "cancelled"
        elif task.done:
            view |= {"status": "completed", "result": task.outcome.result()}
        elif call.requests:
            view |= {"status": "input_required", "inputRequests": call.requests}
        return view


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
