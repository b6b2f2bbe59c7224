"""MCP's tasks: a call gives a task, which the client looks at again and again. Both protocols, which differ much.

In the protocol of 2026, tasks are an extension (SEP-2663), and the server decides which call becomes a task. In the
protocol of 2025, they are an experimental part of the protocol, and the client decides.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import decode_header_value
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import MQTTAgentError
from pydantic import Field

from mcp_mqtt_agent.agent_task import AgentTask
from mcp_mqtt_agent.agent_tools import AgentTools
from mcp_mqtt_agent.call_task import CallTask
from mcp_mqtt_agent.context import Context
from mcp_mqtt_agent.hiding import hidden
from mcp_mqtt_agent.open_calls import OpenCall, may_ask

__all__ = ["RELATED", "TASKS", "TaskExtension", "is_modern", "task_capability", "wants_tasks"]

TASKS: str = "io.modelcontextprotocol/tasks"
"""The identifier of the extension."""
RELATED: str = "io.modelcontextprotocol/related-task"
"""The key in ``_meta`` that names the task, in the protocol of 2025."""
_POLL_MS = 1000
_KEPT = 1000
"""Tasks that are followed here. The store of the agent has all tasks of agents."""
Following = AgentTask | CallTask
OnTask = Callable[[str], None]
"""Is told of the id of a task that has changed."""


class _TaskParams(types.RequestParams):
    task_id: str


class _UpdateParams(_TaskParams):
    input_responses: dict[str, Any] = Field(default_factory=dict[str, Any])


def is_modern(ctx: Context) -> bool:
    """Whether a client speaks the protocol of 2026."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def wants_tasks(ctx: Context) -> bool:
    """Whether a client of 2026 takes a task as the answer to its call."""
    capabilities = ctx.session.client_capabilities
    declared = None if capabilities is None else capabilities.extensions
    return is_modern(ctx) and TASKS in (declared or {})


def task_capability() -> types.ServerTasksCapability:
    """What clients of 2025 are told. Nobody can list the tasks of others: clients may have the same name."""
    call = types.TasksToolsCapability(call=types.TasksCallCapability())
    return types.ServerTasksCapability(
        cancel=types.TasksCancelCapability(), requests=types.ServerTasksRequestsCapability(tools=call)
    )


def needs_tasks() -> MCPError:
    """The error for a client that has not declared the extension."""
    needed = {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"the client has not declared {TASKS}", needed)


class TaskExtension:
    """The tasks of MCP clients.

    A task of an agent is in the store of the agent that gives it, so a client finds it after a restart of the face. A
    task of a tool is a call of this process. The id of a task cannot be guessed, and finds the task only for the
    identity that has given it.

    Args:
        agents: Gives and finds the tasks of agents; None when agents are not shown.
        on_change: Called when a task has changed.
    """

    def __init__(self, agents: AgentTools | None, on_change: OnTask) -> None:
        self._agents = agents
        self._on_change = on_change
        self._tasks: OrderedDict[str, tuple[Following, OpenCall]] = OrderedDict()

    def add_to(self, server: Server[dict[str, Any]]) -> None:
        """Let a server answer the methods of both protocols."""
        server.extensions[TASKS] = {}
        server.add_request_handler("tasks/get", _TaskParams, self._get)
        server.add_request_handler("tasks/update", _UpdateParams, self._update)
        server.add_request_handler("tasks/cancel", _TaskParams, self._cancel)
        server.add_request_handler("tasks/result", _TaskParams, self._result)

    def created(self, ctx: Context, handle: TaskHandle) -> dict[str, Any]:
        """The answer to a call of an agent that has become a task."""
        return self._created(ctx, self._follow(handle, asks=may_ask(ctx)))

    def created_call(self, ctx: Context, call: OpenCall, task: CallTask) -> dict[str, Any]:
        """The answer to a call of a tool that has become a task."""
        return self._created(ctx, self._keep(task, call))

    async def close(self) -> None:
        """Cancel the calls of tools: nobody can ask for their results any more."""
        calls = [task for task, _ in self._tasks.values() if isinstance(task, CallTask) and not task.done]
        await asyncio.gather(*(task.stop() for task in calls))

    def view(self, task_id: str) -> dict[str, Any] | None:
        """A task as a client of 2026 sees it; None when the task is not followed here."""
        known = self._tasks.get(task_id)
        return None if known is None else _view(*known)

    # Requests of MCP clients

    async def _get(self, ctx: Context, params: _TaskParams) -> dict[str, Any]:
        found = await self._found(ctx, params.task_id)
        return _view(*found) | {"resultType": "complete"} if is_modern(ctx) else _old_view(*found)

    async def _update(self, ctx: Context, params: _UpdateParams) -> dict[str, Any]:
        if not is_modern(ctx):
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", ctx.method)
        _, call = await self._found(ctx, params.task_id)
        call.answer(params.input_responses)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: Context, params: _TaskParams) -> dict[str, Any]:
        task, call = await self._found(ctx, params.task_id)
        if task.done and not is_modern(ctx):
            raise MCPError(types.INVALID_PARAMS, f"the task is over: {_old_view(task, call)['status']}")
        try:
            await task.cancel("the MCP client has canceled the task")
        except MQTTAgentError as error:
            raise hidden(error, "the task cannot be canceled now") from error
        if is_modern(ctx):
            return {"resultType": "complete"}
        return _old_view(task, call) | {"status": "cancelled"}

    async def _result(self, ctx: Context, params: _TaskParams) -> dict[str, Any]:
        """Wait for the result of a task, and ask a client of 2025 meanwhile what the tool asks."""
        if is_modern(ctx):
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found", ctx.method)
        task, call = await self._found(ctx, params.task_id)
        while not task.done:
            asking = asyncio.ensure_future(_ask(ctx, call))
            try:
                # The task may end while the client has a question, for example because it was canceled.
                await asyncio.wait([task.outcome, asking], return_when=asyncio.FIRST_COMPLETED)
            finally:
                asking.cancel()
                await asyncio.wait([asking])
            error = None if asking.cancelled() else asking.exception()
            if error is not None and not task.done:
                raise error
        result = task.outcome.result()
        return result | {"_meta": {**(result.get("_meta") or {}), RELATED: {"taskId": params.task_id}}}

    # Tasks

    async def _found(self, ctx: Context, task_id: str) -> tuple[Following, OpenCall]:
        """A task of this identity.

        Raises:
            MCPError: The client has not declared the extension, or there is no such task.
        """
        if is_modern(ctx):
            _check_header(ctx, task_id)
            if not wants_tasks(ctx):
                raise needs_tasks()
        known = self._tasks.get(task_id)
        if known is not None and not known[0].lost:
            return known
        handle = None if self._agents is None else await self._agents.find(task_id)
        if handle is None:
            raise MCPError(types.INVALID_PARAMS, f"Task not found: {task_id:.80}")
        task, call = self._follow(handle, asks=True)  # whoever only looks must not cancel a task that asks
        if handle.done:
            await asyncio.wait([task.outcome])
        return task, call

    def _follow(self, handle: TaskHandle, *, asks: bool) -> tuple[Following, OpenCall]:
        assert self._agents is not None
        call = OpenCall(handle.peer)
        call.handle = task = self._agents.follow(handle, call.on_question if asks else None)
        task.on_change = lambda: self._on_change(task.task_id)
        return self._keep(task, call)

    def _keep(self, task: Following, call: OpenCall) -> tuple[Following, OpenCall]:
        call.on_asked = lambda: self._on_change(task.task_id)
        self._tasks[task.task_id] = task, call
        if len(self._tasks) > _KEPT:
            over = next((each for each, (known, _) in self._tasks.items() if known.done), None)
            self._tasks.pop(over or "", None)
        return task, call

    def _created(self, ctx: Context, made: tuple[Following, OpenCall]) -> dict[str, Any]:
        if not is_modern(ctx):
            return {"task": _old_view(*made)}
        base = {key: each for key, each in _view(*made).items() if key not in ("result", "error", "inputRequests")}
        return base | {"resultType": "task"}


async def _ask(ctx: Context, call: OpenCall) -> None:
    await call.asked()
    await call.ask_now(ctx)


def _check_header(ctx: Context, task_id: str) -> None:
    """Refuse a request over HTTP whose header names another task than its body."""
    headers = getattr(ctx.request, "headers", None)
    if headers is None:
        return
    named = headers.get("mcp-name")
    if named is None or decode_header_value(named) != task_id:
        raise MCPError(types.HEADER_MISMATCH, f"the header Mcp-Name does not name the task {task_id:.80}")


def _view(task: Following, call: OpenCall) -> dict[str, Any]:
    """A task as the extension shows it."""
    view: dict[str, Any] = {
        "taskId": task.task_id,
        "status": "working",
        "createdAt": _time(task.created_at),
        "lastUpdatedAt": _time(task.updated_at),
        "ttlMs": None,
        "pollIntervalMs": _POLL_MS,
    }
    if task.message:
        view["statusMessage"] = task.message
    if task.done and task.canceled:
        view["status"] = "cancelled"
    elif task.done:
        view |= _ended(task.outcome)
    elif call.requests:
        view |= {"status": "input_required", "inputRequests": call.requests}
    return view


def _ended(outcome: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
    error = None if outcome.cancelled() else outcome.exception()
    if isinstance(error, MCPError):
        return {"status": "failed", "error": error.error.model_dump(by_alias=True, exclude_none=True)}
    if outcome.cancelled() or error is not None:
        return {"status": "failed", "error": {"code": types.INTERNAL_ERROR, "message": "the task is not followed now"}}
    return {"status": "completed", "result": outcome.result()}


def _old_view(task: Following, call: OpenCall) -> dict[str, Any]:
    """A task as the protocol of 2025 shows it. There, a tool that has failed has a failed task."""
    view = _view(task, call)
    result, error = view.pop("result", None), view.pop("error", None)
    view.pop("inputRequests", None)
    if result is not None and result.get("isError"):
        view["status"] = "failed"
    if error is not None:
        view["statusMessage"] = error["message"]
    return view | {"ttl": view.pop("ttlMs"), "pollInterval": view.pop("pollIntervalMs")}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
