"""The verbs ``delegate``, ``resume``, ``show``, ``answer`` and ``cancel``: a task and its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Annotated, Any, cast

import typer

from mqtt_agent.adapting.asking import answer_from_text
from mqtt_agent.adapting.following import follow, unanswerable
from mqtt_agent.agents import TaskHandle
from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.calling import Live
from mqtt_agent.cli.people import read_line, requester
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.values import json_from
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.html import duration
from mqtt_agent.wire import TaskEvent

__all__ = ["add_to"]

_TaskId = Annotated[str, typer.Argument(help="The task's id.")]
_Peer = Annotated[str | None, typer.Option(help="The agent that has the task, if it was given by another program.")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    verb(app, "delegate")(delegate)
    verb(app, "resume")(resume)
    verb(app, "show")(show)
    verb(app, "answer")(answer)
    verb(app, "cancel")(cancel)


async def delegate(
    session: Session,
    agent: Annotated[str, typer.Argument(help="The agent that is to do the task.")],
    prompt: Annotated[str | None, typer.Argument(help="What to do.")] = None,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="Structured input; - or @FILE reads it.")] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="The type of the task.")] = None,
    task_id: Annotated[str | None, typer.Option(help="An id of your own. The same task runs once.")] = None,
    context_id: Annotated[str | None, typer.Option(help="The conversation to which the task belongs.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Also accept an agent that was never seen.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the task's id, and do not wait.")] = False,
) -> None:
    """Give a task to an agent, follow the task, answer its questions, and print the result.

    The task outlives this command: after Ctrl-C, a crash or a reboot, the agent works on, and resume finds the task.
    """
    value = None if data is None else json_from(data, "--data")
    if prompt is None and data is None and task_type is None:
        raise UsageError(f"say what is to be done: mqtt-agent delegate {agent} PROMPT, or give --data or --type")
    async with requester(session) as me:
        handle = await me.delegate(
            agent, prompt, data=value, type=task_type, task_id=task_id, context_id=context_id, wait_online=wait
        )
        if detach:
            if session.out.machine:
                session.out.json(_summary(handle))
            else:
                session.out.text(handle.task_id)
            return
        session.out.note(f"task {handle.task_id}; if this command ends: mqtt-agent resume {handle.task_id}", "dim")
        await _follow(session, handle)


async def resume(session: Session, task_id: _TaskId, peer: _Peer = None) -> None:
    """Follow a task that was given before, answer its questions, and print the result."""
    async with requester(session, again=True) as me:
        await _follow(session, await me.resume(task_id, peer=peer))


async def show(session: Session, task_id: _TaskId, peer: _Peer = None) -> None:
    """Show the state of a task, without waiting."""
    async with requester(session, again=True) as me:
        handle = await me.resume(task_id, peer=peer)
        if handle.question is None and not handle.done:
            with contextlib.suppress(asyncio.TimeoutError):
                await _next_event(handle)
        if session.out.machine:
            session.out.json(_summary(handle))
            return
        session.out.line(f"task {handle.task_id} at {handle.peer}: {handle.state}, {duration(handle.elapsed)}")
        if handle.message:
            session.out.words(handle.message)
        if handle.question is not None:
            session.out.note(f"answer with: mqtt-agent answer {handle.task_id} TEXT")
        if handle.response is not None and handle.response.result is not None:
            session.out.value(handle.response.result)


async def answer(
    session: Session,
    task_id: _TaskId,
    text: Annotated[str | None, typer.Argument(help="The answer, as text.")] = None,
    value: Annotated[
        str | None, typer.Option("--value", metavar="JSON", help="The answer as JSON; - or @FILE reads it.")
    ] = None,
    wait: Annotated[bool, typer.Option("--follow", help="Then wait for the result.")] = False,
) -> None:
    """Answer the question that a task asks."""
    if (text is None) == (value is None):
        raise UsageError(f"give one answer: mqtt-agent answer {task_id} TEXT, or --value JSON")
    given = text if value is None else json_from(value, "--value")
    async with requester(session, again=True) as me:
        handle = await me.resume(task_id)
        while handle.question is None and not handle.done:
            await _next_event(handle, None)
        if handle.done:
            await handle.result()
            raise UsageError(f"task {task_id} is over and asks nothing")
        if value is None and text is not None:
            given = answer_from_text(text, _schema_of(handle))
        await handle.send(given)
        session.out.note("the answer is sent")
        if wait:
            await _follow(session, handle)


def _schema_of(handle: TaskHandle) -> Any:
    about = None if handle.question is None else handle.question.data
    return cast("dict[str, Any]", about).get("schema") if isinstance(about, dict) else None


async def cancel(
    session: Session,
    task_id: _TaskId,
    reason: Annotated[str | None, typer.Option(help="Why; the agent sees it.")] = None,
) -> None:
    """Cancel a task."""
    async with requester(session, again=True) as me:
        handle = await me.resume(task_id)
        if handle.done:
            raise UsageError(f"task {task_id} is over already: {handle.state}")
        await handle.cancel(reason)
        session.out.note(f"task {task_id} is to be canceled; its agent is told")


async def _follow(session: Session, handle: TaskHandle) -> None:
    """Show the events of a task, answer its questions at a terminal, and print the result.

    Raises:
        TaskError: The task has no result; or it asks a question, and there is no terminal for the answer.
    """
    with Live(session.out) as live:

        async def tell(event: TaskEvent) -> None:
            if session.out.machine:
                session.out.json({"event": event.model_dump(mode="json", exclude_none=True)})
            elif event.type == "progress" and event.progress is not None:
                live.advance(event.progress, event.total, event.content)
            elif event.content and event.type == "partial":
                session.out.stream(event.content)
            elif event.data is not None and event.type != "status":
                session.out.note(json.dumps(event.data, ensure_ascii=False), "dim")

        async def answer(question: str, schema: object) -> Any:
            line = ""
            if not session.out.machine and sys.stdin.isatty():
                live.pause()
                session.out.quote(question, "bold")
                line = await read_line()
            if not line:  # there is no terminal, or the person has ended the input with Ctrl-D
                raise unanswerable(handle, question, f"Answer with: mqtt-agent answer {handle.task_id} TEXT --follow")
            return answer_from_text(line.rstrip("\n"), schema)

        result = await follow(handle, tell, answer)
    if session.out.machine:
        session.out.json(_summary(handle))
    else:
        session.out.value(result)


async def _next_event(handle: TaskHandle, patience: float | None = 2.0) -> None:
    async def first() -> None:
        async for _ in handle.events():
            return

    await within(first(), patience)


def _summary(handle: TaskHandle) -> dict[str, Any]:
    facts: dict[str, Any] = {"task_id": handle.task_id, "agent": handle.peer, "state": str(handle.state)}
    if handle.message:
        facts["message"] = handle.message
    if handle.response is not None:
        facts["result"] = handle.response.result
    return facts
