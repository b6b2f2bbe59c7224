"""While a peer works: what it tells becomes events, what it asks is answered."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMStreamChunkEvent
from mqtt_agent import Agent, TaskHandle, TaskState
from mqtt_agent.errors import TaskTimeout
from mqtt_agent.wire import TaskEvent

from crewai_mqtt_agent.assignment import TOOL_CALL, Assignment, current_run
from crewai_mqtt_agent.events import (
    RemoteTaskArtifactEvent,
    RemoteTaskProgressEvent,
    RemoteTaskStatusEvent,
    RemoteTaskStreamEvent,
)

if TYPE_CHECKING:
    from crewai import Task

    from crewai_mqtt_agent.member import MQTTAgent

__all__ = ["OnQuestion", "work"]

OnQuestion = Callable[[str, Any], Any]


async def work(
    agent: Agent,
    member: MQTTAgent,
    task: Task,
    assignment: Assignment,
    data: Any,
    handles: set[TaskHandle],
    scope: contextvars.Context,
) -> Any:
    """Give the task, follow it to its end, and return its result. Runs on the loop of ``agent``.

    Canceling this cancels the peer's task.
    """
    handle = await agent.delegate(
        member.peer,
        assignment.prompt,
        title=assignment.title,
        data=data,
        task_id=assignment.task_id,
        metadata=assignment.metadata,
        wait_online=member.wait_online,
    )
    handles.add(handle)
    questions: asyncio.Queue[TaskEvent] = asyncio.Queue()
    following = asyncio.ensure_future(_follow(handle, member, task, questions, scope))
    answering = asyncio.ensure_future(_answer_all(handle, member, assignment, questions, scope))
    try:
        # A question may wait for a person; the task may be canceled meanwhile.
        done, _ = await asyncio.wait({following, answering}, timeout=member.timeout, return_when="FIRST_COMPLETED")
        if not done:
            message = f"{member.peer} had no answer after {member.timeout:g} s; the task was canceled"
            raise TaskTimeout(message, task_id=handle.task_id, peer=member.peer)
        return await (following if following in done else answering)
    finally:
        handles.discard(handle)
        following.cancel()
        answering.cancel()
        run = scope.get(current_run)
        if not handle.done and not (run is not None and run.interrupted):
            await asyncio.shield(handle.cancel("the requester gave up"))


async def _follow(
    handle: TaskHandle, member: MQTTAgent, task: Task, questions: asyncio.Queue[TaskEvent], scope: contextvars.Context
) -> Any:
    async for event in handle.events():
        for told in _translated(handle, event, member, task):
            # In a thread: what listens may block, and may call back into this loop.
            await asyncio.to_thread(scope.copy().run, crewai_event_bus.emit, member, told)
        if event.status == TaskState.INPUT_REQUIRED and isinstance(event.data, dict):
            questions.put_nowait(event)
    return await handle.result()


async def _answer_all(
    handle: TaskHandle,
    member: MQTTAgent,
    assignment: Assignment,
    questions: asyncio.Queue[TaskEvent],
    scope: contextvars.Context,
) -> Any:
    while True:
        await _answer(handle, await questions.get(), member, assignment, scope)


def _translated(handle: TaskHandle, event: TaskEvent, member: MQTTAgent, task: Task) -> list[BaseEvent]:
    about: dict[str, Any] = {
        "peer": handle.peer,
        "remote_task_id": handle.task_id,
        "task_id": str(task.id),
        "task_name": task.name or task.description,
        "agent_id": str(member.id),
        "agent_role": member.role,
    }
    if event.type == "status":
        return [RemoteTaskStatusEvent(status=event.status or "", attempt=event.attempt, message=event.content, **about)]
    if event.type == "progress":
        progress = event.progress or 0.0
        return [RemoteTaskProgressEvent(progress=progress, total=event.total, message=event.content, **about)]
    if event.type == "artifact":
        return [RemoteTaskArtifactEvent(name=event.content or "", data=event.data, **about)]
    told: list[BaseEvent] = [RemoteTaskStreamEvent(content=event.content, data=event.data, **about)]
    if event.content:  # so that Crew(stream=True) shows it among the words of the local agents
        told.append(LLMStreamChunkEvent(chunk=event.content, call_id=handle.task_id, from_task=task, from_agent=member))
    return told


async def _answer(
    handle: TaskHandle, event: TaskEvent, member: MQTTAgent, assignment: Assignment, scope: contextvars.Context
) -> None:
    input_id = event.data.get("input_id")
    fault = event.data.get("fault")
    if input_id in handle.answers and fault is None:
        return  # told once more; the answer is on its way
    schema = event.data.get("schema")
    question = event.content or ""
    call = schema.get(TOOL_CALL) if isinstance(schema, dict) else None
    if isinstance(call, dict):
        answer = await asyncio.to_thread(scope.copy().run, _call_tool, assignment.tools, call)
    else:
        asked = question if fault is None else f"{question}\n({fault})"
        on_question = member.on_question or _ask_at_console
        answer = await asyncio.to_thread(scope.copy().run, on_question, asked, schema)
        if inspect.isawaitable(answer):
            answer = await answer
    await handle.send(answer, input_id)


def _call_tool(tools: dict[str, Any], call: dict[str, Any]) -> str:
    """Run one of the member's own tools for its peer. What goes wrong is told to the peer's language model."""
    tool = tools.get(str(call.get("name")))
    if tool is None:
        return f"There is no tool {call.get('name')!r} here; there are: {', '.join(tools) or 'none'}"
    arguments = call.get("arguments")
    try:
        return tool.format_output_for_agent(tool.run(**(arguments if isinstance(arguments, dict) else {})))
    except Exception as error:
        return f"Error executing tool: {error}"


def _ask_at_console(question: str, schema: Any) -> Any:
    from crewai.events.event_listener import event_listener

    formatter = event_listener.formatter
    formatter.pause_live_updates()
    try:
        typed = input(f"\n{question}\n> ")
    finally:
        formatter.resume_live_updates()
    if schema is None:
        return typed
    try:
        return json.loads(typed)
    except ValueError:
        return typed
