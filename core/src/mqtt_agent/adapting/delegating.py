"""Gives tasks for a framework. When the framework cancels its side, the task at the peer is canceled too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from mqtt_agent.agents import Agent, PeerChange, TaskHandle
from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import PeerUnavailable, TaskTimeout

__all__ = ["abandon", "begun", "check_online", "delegated", "while_online"]

T = TypeVar("T")
GiveUp = Callable[[TaskHandle], Awaitable[object]]

_unfinished: set[asyncio.Future[Any]] = set()
"""Cancellations on their way to peers: asyncio itself keeps weak references only."""


async def begun(begin: Callable[[], Awaitable[TaskHandle]], *, give_up: GiveUp | None = None) -> TaskHandle:
    """Wait until a task is given. When the caller is canceled meanwhile, the task is canceled as soon as it is given.

    Args:
        begin: A function that gives the task, or resumes a task that was given before.
        give_up: Called instead of :meth:`TaskHandle.cancel` for a task that nobody waits for any more.
    """
    beginning = asyncio.ensure_future(begin())
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        _keep(beginning, lambda given: abandon(given.result(), give_up or _cancel))
        raise


async def delegated(
    begin: Callable[[], Awaitable[TaskHandle]],
    follow: Callable[[TaskHandle], Awaitable[T]],
    *,
    timeout: float | None = None,
    give_up: GiveUp | None = None,
) -> T:
    """Give a task, follow the task to its end, and cancel the task at the peer when the caller is canceled.

    A caller can be canceled at any moment: before the task is sent, while the task is being sent, and later. In each
    case the peer gets a cancellation, unless the task is over. After ``timeout`` the task is canceled too.

    Args:
        begin: A function that gives the task, or resumes a task that was given before.
        follow: Waits for the end of the task and returns the value for the framework.
        timeout: Seconds that the task may take from the moment it is given; None for no limit.
        give_up: Called instead of :meth:`TaskHandle.cancel` for a task that nobody waits for any more.

    Returns:
        The value that ``follow`` returned.

    Raises:
        TaskTimeout: The task took longer than ``timeout``.
        BaseException: Any error of ``begin`` or ``follow``.
    """
    give_up = give_up or _cancel
    handle = await begun(begin, give_up=give_up)
    following = asyncio.ensure_future(follow(handle))
    try:
        await asyncio.wait({following}, timeout=timeout)
        if following.done():
            return await following
        what = f"{handle.peer} has not answered within {timeout:g} s; the task is canceled"
        raise TaskTimeout(what, task_id=handle.task_id, peer=handle.peer)
    except asyncio.CancelledError:
        # Nothing may be awaited here: a caller on another loop can cancel each further wait as well.
        abandon(handle, give_up)
        raise
    except BaseException:
        if not handle.done:
            await asyncio.shield(asyncio.ensure_future(give_up(handle)))
        raise
    finally:
        following.cancel()
        _keep(following, None)


async def check_online(agent: Agent, peer: str, advice: str) -> None:
    """Make sure that a peer is online before a task is given.

    Args:
        agent: The agent that gives the task.
        peer: The peer's agent id.
        advice: What the user can do when the peer is offline, for the error message.

    Raises:
        PeerUnavailable: The peer is offline, or was never seen.
    """
    card = await agent.peer(peer)
    if card is None or card.status != "online":
        why = "is offline" if card is not None else "has never been seen"
        raise PeerUnavailable(f"agent {peer!r} {why} in namespace {agent.namespace!r}; {advice}", peer=peer)


async def while_online(agent: Agent, handle: TaskHandle, work: Awaitable[T], *, grace: float) -> T:
    """Wait for ``work``, which follows a task, for as long as the task's peer is online.

    Args:
        agent: The agent that gave the task.
        handle: The task.
        work: An awaitable, which is canceled when the peer stays offline.
        grace: Seconds that the peer may be offline. A peer that is online again in time continues the task.

    Returns:
        The value that ``work`` returned.

    Raises:
        PeerUnavailable: The peer has been offline for longer than ``grace``.
        BaseException: Any error of ``work``.
    """
    working, away = asyncio.ensure_future(work), asyncio.ensure_future(_stays_away(agent, handle, grace))
    try:
        await asyncio.wait({working, away}, return_when=asyncio.FIRST_COMPLETED)
        return await (working if working.done() else away)
    finally:
        for each in (working, away):
            each.cancel()
            _keep(each, None)


async def _stays_away(agent: Agent, handle: TaskHandle, grace: float) -> NoReturn:
    peer, changes = handle.peer, agent.watch_peers(handle.peer)
    while True:
        card = await agent.peer(peer)
        online = card is not None and card.status == "online"
        try:
            await within(_next_of(changes), None if online else grace)
        except asyncio.TimeoutError:
            what = f"agent {peer!r} went offline and has not come back within {grace:g} s; the task is given up"
            raise PeerUnavailable(what, task_id=handle.task_id, peer=peer) from None


async def _next_of(changes: AsyncIterator[PeerChange]) -> None:
    async for _ in changes:
        return
    await asyncio.Event().wait()  # the agent was stopped, and the task's handle reports this


async def _cancel(handle: TaskHandle) -> None:
    await handle.cancel("the requester gave up")


def abandon(handle: TaskHandle, give_up: GiveUp | None = None) -> None:
    """Cancel a task in the background, unless the task is over. Nothing is awaited, so nothing can interrupt this.

    Args:
        handle: The task.
        give_up: Called instead of :meth:`TaskHandle.cancel`.
    """
    give_up = give_up or _cancel
    if not handle.done:
        _keep(asyncio.ensure_future(give_up(handle)), None)


def _keep(future: asyncio.Future[T], then: Callable[[asyncio.Future[T]], None] | None) -> None:
    def on_done(done: asyncio.Future[T]) -> None:
        _unfinished.discard(done)
        # Asking for the exception tells asyncio that nobody waits for the future any more.
        if not done.cancelled() and done.exception() is None and then is not None:
            then(done)

    _unfinished.add(future)
    future.add_done_callback(on_done)
