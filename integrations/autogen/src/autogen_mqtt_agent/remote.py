"""Giving a turn to a peer and following it, on the loop that the connection lives on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from mqtt_agent import Agent, PeerChange, TaskEvent, TaskHandle
from mqtt_agent.aio.feed import Feed
from mqtt_agent.errors import PeerUnavailable, TaskError, TaskRejected, TaskTimeout

from autogen_mqtt_agent.bridge import Emit
from autogen_mqtt_agent.turns import CONTROL, TURN, Control, Turn

__all__ = ["Assignment", "give", "tell"]

_CONTROL_WITHIN = 5.0

_unfinished: set[asyncio.Future[Any]] = set()


@dataclass(frozen=True)
class Assignment:
    """A turn, and how to wait for it.

    Attributes:
        peer: Who is to take it.
        task_id: Its id.
        turn: What is asked; None for a turn that was given before.
        prompt: The same as text, for people, and for agents that know nothing of AutoGen.
        wait: Whether to wait for a peer that is not there.
        grace: Seconds that a peer may be away in the middle of the turn, unless ``wait``.
        timeout: Seconds that the turn may take; None for no limit.
    """

    peer: str
    task_id: str
    turn: Turn | None
    prompt: str
    wait: bool
    grace: float
    timeout: float | None


async def give(agent: Agent, assignment: Assignment, emit: Emit) -> Any:
    """Give the turn to its peer, emit its events, and return its result. Canceled, it cancels the turn at the peer.

    Raises:
        PeerUnavailable: The peer is not there, or has been away for too long.
        TaskError: The peer did not do it.
        TransportError: The broker is not there, or refuses.
    """
    beginning = asyncio.ensure_future(_begin(agent, assignment))
    try:
        handle = await asyncio.shield(beginning)
    except asyncio.CancelledError:
        beginning.add_done_callback(_cancel_too)  # it may be on its way already
        raise
    reading = asyncio.ensure_future(_read(handle, emit))
    waits: set[asyncio.Future[Any]] = {reading}
    if not assignment.wait:
        waits.add(asyncio.ensure_future(_gone(agent, assignment)))
    try:
        done, _ = await asyncio.wait(waits, timeout=assignment.timeout, return_when=asyncio.FIRST_COMPLETED)
        if reading in done:
            return await reading
        for each in done:
            await each
        what = f"{assignment.peer} has not answered within {assignment.timeout:g} s"
        raise TaskTimeout(what, task_id=handle.task_id, peer=assignment.peer)
    finally:
        # Nothing here may be awaited: a cancel from the other loop breaks every further wait off as well.
        for each in waits:
            each.cancel()
            each.add_done_callback(_forget)
        _cancel(handle)


async def tell(agent: Agent, peer: str, control: Control) -> None:
    """Tell a peer about the turn it is in, and wait a moment for it to follow."""
    await agent.request(peer, type=CONTROL, data=control.model_dump(), timeout=_CONTROL_WITHIN)


async def _begin(agent: Agent, assignment: Assignment) -> TaskHandle:
    turn, task_id = assignment.turn, assignment.task_id
    if turn is None:
        return await agent.resume(task_id, peer=assignment.peer)
    if not assignment.wait:
        await _is_there(agent, assignment.peer)
    try:
        return await agent.delegate(
            assignment.peer,
            assignment.prompt,
            type=TURN,
            data=turn.model_dump(),
            task_id=task_id,
            context_id=turn.conversation,
            wait_online=True,
        )
    except TaskRejected as error:
        if error.code != "conflict":
            raise
        return await agent.resume(task_id)  # the same was asked before, in messages with other ids


def _cancel(handle: TaskHandle) -> None:
    if not handle.done:
        canceling = asyncio.ensure_future(handle.cancel("the caller gave up"))
        _unfinished.add(canceling)
        canceling.add_done_callback(_forget)


def _cancel_too(begun: asyncio.Future[TaskHandle]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        _cancel(begun.result())


def _forget(done: asyncio.Future[Any]) -> None:
    _unfinished.discard(done)
    if not done.cancelled():
        done.exception()  # nobody waits for it any more


async def _is_there(agent: Agent, peer: str) -> None:
    card = await agent.peer(peer)
    if card is None or card.status != "online":
        what = "is offline" if card is not None else "has never been seen"
        hint = "start its host, or have the participant wait for it: absent='wait'"
        raise PeerUnavailable(f"agent {peer!r} {what} in namespace {agent.namespace!r}; {hint}", peer=peer)


async def _read(handle: TaskHandle, emit: Emit) -> Any:
    async for event in handle.events():
        if _asks(event):
            raise TaskError(f"{handle.peer} asks what nobody answers here: {event.content}", peer=handle.peer)
        emit(event)
    return await handle.result()


def _asks(event: TaskEvent) -> bool:
    return event.type == "status" and event.status == "input-required"


async def _gone(agent: Agent, assignment: Assignment) -> None:
    """Wait until the peer has been away for too long."""
    peer = assignment.peer
    changes = cast("Feed[PeerChange]", agent.watch_peers())
    try:
        while True:
            card = await agent.peer(peer)
            online = card is not None and card.status == "online"
            await asyncio.wait_for(_change_of(changes, peer), None if online else assignment.grace)
    except asyncio.TimeoutError:
        what = f"agent {peer!r} went away and has not come back within {assignment.grace:g} s"
        raise PeerUnavailable(what, task_id=assignment.task_id, peer=peer) from None
    finally:
        changes.close()


async def _change_of(changes: Feed[PeerChange], peer: str) -> None:
    async for change in changes:
        if change.name == peer:
            return
    await asyncio.Event().wait()  # this agent was stopped, which ends the turn elsewhere
