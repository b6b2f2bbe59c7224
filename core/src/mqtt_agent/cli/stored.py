"""The verb ``tasks``: the tasks that a store knows, and the members of a pool."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from mqtt_agent.agents.store import PostgresStore, TaskKey, TaskRecord, TaskRole, TaskStore
from mqtt_agent.agents.store.pool_view import members as members_in
from mqtt_agent.agents.store.pool_view import members_of
from mqtt_agent.cli.output import first_line
from mqtt_agent.cli.people import requester
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.stores import store_to_read
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.html import duration
from mqtt_agent.wire import TaskState

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``tasks``."""
    verb(app, "tasks")(tasks)


async def tasks(
    session: Session,
    state: Annotated[str | None, typer.Option(help="Only tasks in this state, such as working.")] = None,
    store: Annotated[
        str | None,
        typer.Option(help="The store of another program's agent: an SQLite file, or postgresql://USER@HOST/DATABASE."),
    ] = None,
    received: Annotated[
        bool, typer.Option("--received", help="The tasks that the agent has received, with the member of its pool.")
    ] = False,
    members: Annotated[
        bool, typer.Option("--members", help="The members of the agent's pool, and how many tasks each works on.")
    ] = False,
) -> None:
    """List the tasks that a store knows: those that this command line gave, or those of --store."""
    states = None if state is None else frozenset((_state(state),))
    if store is not None and session.settings.name is None:
        raise UsageError("name the agent whose tasks are to be listed: add --as AGENT")
    me = requester(session)
    opened = store_to_read(store) if store is not None else me.store
    owner = f"{session.settings.place.namespace.strip('/')}/{me.agent_id}"
    if members:
        await _list_members(session, opened, owner, me.agent_id)
        return
    role: TaskRole = "received" if received else "delegated"
    doing: dict[TaskKey, str] = {}
    async with opened:
        found = await opened.find(owner, role, states=states)
        if received and isinstance(opened, PostgresStore):
            doing = await members_of(opened, owner, [each.task_id for each in found])
    if session.out.machine:
        for each in found:
            session.out.json(_line(each, doing.get(each.key)))
        return
    columns = ["task", "agent", "state", "age", "about"]
    rows = [[each.task_id, each.peer or "", each.state, _age(each), _about(each)] for each in found]
    if doing:
        columns.insert(3, "member")
        for row, each in zip(rows, found, strict=True):
            row.insert(3, doing.get(each.key, ""))
    which = f"agent {me.agent_id} has {'received' if received else 'given'} no task"
    nothing = f"{which} in state {state}" if state is not None else f"{which} that is still kept"
    session.out.table(columns, rows, nothing)


async def _list_members(session: Session, store: TaskStore, owner: str, agent_id: str) -> None:
    if not isinstance(store, PostgresStore):
        raise UsageError("only a pool has members: add --store postgresql://USER@HOST/DATABASE, the store of the pool")
    async with store:
        found = await members_in(store, owner)
    if session.out.machine:
        for each in found:
            facts = {"member": each.member, "joined_at": each.joined, "lease": each.lease, "tasks": each.tasks}
            session.out.json(facts)
        return
    rows = [(each.member, _since(each.joined), _lease(each.lease), each.tasks) for each in found]
    nothing = f"agent {agent_id} has no members: it does not run, or it is no pool"
    session.out.table(("member", "joined", "lease", "tasks"), rows, nothing)


def _state(name: str) -> TaskState:
    try:
        return TaskState(name)
    except ValueError:
        known = ", ".join(each.value for each in TaskState)
        raise UsageError(f"there is no state {name!r}; the states are {known}") from None


def _line(record: TaskRecord, member: str | None) -> dict[str, Any]:
    result = record.result or {}
    return {
        "task_id": record.task_id,
        "agent": record.peer,
        "state": str(record.state),
        "member": member,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "attempt": record.attempt or None,
        "prompt": record.task.get("prompt"),
        "result": result.get("result"),
        "error": result.get("error"),
    }


def _age(record: TaskRecord) -> str:
    return _since(record.created_at)


def _since(moment: float) -> str:
    return duration(max(0.0, time.time() - moment))


def _lease(seconds: float) -> str:
    return f"ends in {duration(seconds)}" if seconds >= 0 else f"ended {duration(-seconds)} ago"


def _about(record: TaskRecord) -> str:
    return first_line(str(record.task.get("title") or record.task.get("prompt") or record.task.get("type") or ""), 60)
