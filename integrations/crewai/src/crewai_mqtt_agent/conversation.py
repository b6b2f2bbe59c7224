"""Giving a task to a peer and following it: events go to CrewAI's bus, questions to the user or to local tools."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMStreamChunkEvent
from mqtt_agent import Agent, TaskHandle
from mqtt_agent.adapting.asking import answer_from_text
from mqtt_agent.adapting.content import in_words
from mqtt_agent.adapting.delegating import delegated
from mqtt_agent.adapting.following import follow
from mqtt_agent.adapting.parts import answer_of
from mqtt_agent.adapting.threads import run_in_thread
from mqtt_agent.wire import TaskEvent

from crewai_mqtt_agent.asking import TOOL_CALL, current_requester
from crewai_mqtt_agent.assignment import Assignment
from crewai_mqtt_agent.events import (
    RemoteTaskArtifactEvent,
    RemoteTaskProgressEvent,
    RemoteTaskStatusEvent,
    RemoteTaskStreamEvent,
)

if TYPE_CHECKING:
    from crewai import Task

__all__ = ["OnQuestion", "work"]

OnQuestion = Callable[[str, Any], Any]


class Member(Protocol):
    """The attributes of a remote crew member that a conversation needs; see :class:`MQTTAgent`."""

    id: Any
    role: str
    peer: str
    timeout: float | None
    wait_online: bool
    on_question: OnQuestion | None


async def work(
    agent: Agent,
    member: Member,
    task: Task,
    assignment: Assignment,
    data: Any,
    given: set[asyncio.Future[TaskHandle]],
    scope: contextvars.Context,
) -> Any:
    """Give the task to the peer, follow the task to its end, and return its result. Runs on the loop of ``agent``.

    When this function is canceled, the peer's task is canceled. But when the host of a served crew stops, the task
    goes on, since the next attempt at the crew needs its result.
    """
    giving = asyncio.ensure_future(
        agent.delegate(
            member.peer,
            assignment.prompt,
            title=assignment.title,
            messages=assignment.messages,
            data=data,
            task_id=assignment.task_id,
            metadata=assignment.metadata,
            wait_online=member.wait_online,
        )
    )
    given.add(giving)

    async def follow_task(handle: TaskHandle) -> Any:
        result = await follow(handle, lambda event: _tell(handle, event, member, task, scope), answer)
        blocks = answer_of(handle.response)  # an answer is text in CrewAI, so files are named in it
        return result if blocks is None else in_words(blocks)

    async def answer(question: str, schema: Any) -> Any:
        call = schema.get(TOOL_CALL) if isinstance(schema, dict) else None
        if isinstance(call, dict):
            return await _apart(scope, _call_tool, assignment, call)
        requester = scope.get(current_requester)
        on_question = member.on_question or (_ask_at_console if requester is None else requester.ask)
        answered = await _apart(scope, on_question, question, schema)
        return await answered if inspect.isawaitable(answered) else answered

    async def give_up(handle: TaskHandle) -> None:
        requester = scope.get(current_requester)
        if requester is None or not requester.task.interrupted:
            await handle.cancel("the requester gave up")

    try:
        return await delegated(lambda: giving, follow_task, timeout=member.timeout, give_up=give_up)
    finally:
        given.discard(giving)


async def _tell(handle: TaskHandle, event: TaskEvent, member: Member, task: Task, scope: contextvars.Context) -> None:
    for told in _translated(handle, event, member, task):
        await _apart(scope, crewai_event_bus.emit, member, told)


def _apart(scope: contextvars.Context, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
    """Run the user's code in a thread of its own, because it may block, and may call back into this loop."""
    return run_in_thread(partial(scope.copy().run, function, *arguments), "mqtt-agent-crew-member")


def _translated(handle: TaskHandle, event: TaskEvent, member: Member, task: Task) -> list[BaseEvent]:
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
        parts = None if event.parts is None else [part.as_json() for part in event.parts]
        return [RemoteTaskArtifactEvent(name=event.content or "", data=event.data, parts=parts, **about)]
    told: list[BaseEvent] = [RemoteTaskStreamEvent(content=event.content, data=event.data, **about)]
    if event.content:  # so that Crew(stream=True) shows the peer's text with the text of the local agents
        told.append(LLMStreamChunkEvent(chunk=event.content, call_id=handle.task_id, from_task=task, from_agent=member))
    return told


def _call_tool(assignment: Assignment, call: dict[str, Any]) -> str:
    """Run one of the member's own tools for its peer. The peer's language model gets the text of an error."""
    tools, name = assignment.tools, str(call.get("name"))
    tool = tools.get(name)
    if tool is None:
        return f"There is no tool {name!r} here; there are: {', '.join(tools) or 'none'}"
    arguments = call.get("arguments")
    arguments = arguments if isinstance(arguments, dict) else {}
    # CrewAI itself passes hidden arguments on: a peer could set what only this program may set.
    hidden = assignment.hidden(name, arguments)
    if hidden:
        return f"Error executing tool: {name} takes no argument {', '.join(map(repr, hidden))}"
    try:
        return tool.format_output_for_agent(tool.run(**arguments))
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
    return answer_from_text(typed, schema)
