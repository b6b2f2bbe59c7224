"""The verbs ``delegate``, ``resume``, ``show``, ``answer``, ``cancel`` and ``tasks``: a task and its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mqtt_agent.adapting.following import follow, unanswerable
from mqtt_agent.agents import TaskHandle
from mqtt_agent.agents.store import TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.choosing import is_postgres_url, store_at
from mqtt_agent.cli.calling import Live
from mqtt_agent.cli.output import first_line
from mqtt_agent.cli.people import requester
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.values import json_from
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.html import duration
from mqtt_agent.wire import TaskEvent, TaskState

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
    verb(app, "tasks")(tasks)


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
        session.out.text(f"task {handle.task_id} at {handle.peer}: {handle.state}, {duration(handle.elapsed)}")
        if handle.message:
            session.out.text(handle.message)
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
        await handle.send(given)
        session.out.note("the answer is sent")
        if wait:
            await _follow(session, handle)


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


async def tasks(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only tasks in this state, such as working.")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="The store of another program's agent: an SQLite file, or postgresql://USER@HOST/DATABASE."),
    ] = None,
    received: Annotated[bool, typer.Option("--received", help="The tasks that the agent has received.")] = False,
) -> None:
    """List the tasks that a store knows: those that this command line gave, or those of --store."""
    try:
        states = None if state is None else frozenset((TaskState(state),))
    except ValueError:
        known = ", ".join(each.value for each in TaskState)
        raise UsageError(f"there is no state {state!r}; the states are {known}") from None
    if store is not None and session.settings.name is None:
        raise UsageError("name the agent whose tasks are to be listed: add --as AGENT")
    me = requester(session)
    opened = _store_of(store) if store is not None else me.store
    owner = f"{session.settings.place.namespace.strip('/')}/{me.agent_id}"
    role: TaskRole = "received" if received else "delegated"
    async with opened:
        found = await opened.find(owner, role, states=states)
    if session.out.machine:
        for each in found:
            session.out.json(_line(each))
        return
    rows = [(each.task_id, each.peer or "", each.state, _age(each), _about(each)) for each in found]
    which = f"agent {me.agent_id} has {'received' if received else 'given'} no task"
    nothing = f"{which} in state {state}" if state is not None else f"{which} that is still kept"
    session.out.table(("task", "agent", "state", "age", "about"), rows, nothing)


def _store_of(place: str) -> TaskStore:
    """The store of another program's agent. A missing file is not made."""
    if not is_postgres_url(place) and not Path(place).is_file():
        raise UsageError(f"there is no file {place}")
    try:
        return store_at(place)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error


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

        async def answer(question: str, schema: object) -> str:
            line = ""
            if not session.out.machine and sys.stdin.isatty():
                live.pause()
                session.out.note(question, "bold")
                line = await _read_line()
            if not line:  # there is no terminal, or the person has ended the input with Ctrl-D
                raise unanswerable(handle, question, f"Answer with: mqtt-agent answer {handle.task_id} TEXT --follow")
            return line.rstrip("\n")

        result = await follow(handle, tell, answer)
    if session.out.machine:
        session.out.json(_summary(handle))
    else:
        session.out.value(result)


async def _read_line() -> str:
    """Read a line from the terminal, with its end. An empty text is the end of the input.

    No thread waits for the line where the event loop can do so: such a thread would hold a lock of the standard input
    when Ctrl-C ends the process.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), readable.set)
    except NotImplementedError:  # on Windows
        return await loop.run_in_executor(None, sys.stdin.readline)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


async def _next_event(handle: TaskHandle, patience: float | None = 2.0) -> None:
    async def first() -> None:
        async for _ in handle.events():
            return

    await asyncio.wait_for(first(), patience)


def _summary(handle: TaskHandle) -> dict[str, Any]:
    facts: dict[str, Any] = {"task_id": handle.task_id, "agent": handle.peer, "state": str(handle.state)}
    if handle.message:
        facts["message"] = handle.message
    if handle.response is not None:
        facts["result"] = handle.response.result
    return facts


def _line(record: TaskRecord) -> dict[str, Any]:
    result = record.result or {}
    return {
        "task_id": record.task_id,
        "agent": record.peer,
        "state": str(record.state),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "attempt": record.attempt or None,
        "prompt": record.task.get("prompt"),
        "result": result.get("result"),
        "error": result.get("error"),
    }


def _age(record: TaskRecord) -> str:
    return duration(max(0.0, time.time() - record.created_at))


def _about(record: TaskRecord) -> str:
    return first_line(str(record.task.get("title") or record.task.get("prompt") or record.task.get("type") or ""), 60)
