"""Sends the cancels of a requester. Cancels of many tasks at the same time share messages."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import CONFIRMED_WITHIN, TaskSender
from mqtt_agent.errors import PayloadTooLarge
from mqtt_agent.wire import Control
from mqtt_agent.wire.agents import ASK
from mqtt_agent.wire.tasks import MOST_ASKED

__all__ = ["Cancels"]


class _Kind(NamedTuple):
    """What cancels must have in common to share a message.

    Attributes:
        peer: The agent that has the tasks.
        bound: Whether the tasks were given on sender-bound topics.
        reason: Why the tasks are canceled.
    """

    peer: str
    bound: bool
    reason: str | None


class _Group(NamedTuple):
    """The cancels of one message.

    Attributes:
        task_ids: The ids of the tasks.
        sending: Sends the message.
    """

    task_ids: list[str]
    sending: asyncio.Task[None]


class Cancels:
    """Sends cancels to the peers that have the tasks.

    A peer that says ``ask`` in its card gets one message about up to 100 tasks that are canceled in the same turn of
    the event loop. Any other peer gets a message about each task.

    Args:
        tasks: The delegated tasks.
        sender: Sends the messages.
        peers: The other agents of the namespace.
    """

    def __init__(self, tasks: DelegatedTasks, sender: TaskSender, peers: Peers) -> None:
        self._tasks = tasks
        self._sender = sender
        self._peers = peers
        self._groups: dict[_Kind, _Group] = {}

    async def send(self, handle: TaskHandle, reason: str | None) -> None:
        """Send the cancel of a task, and wait up to 5 s for the broker.

        When this agent is not connected, this does not wait: the message is sent after the reconnect.

        Args:
            handle: The task's handle.
            reason: Why the task is canceled, as text for the peer.

        Raises:
            TransportError: The message cannot be sent, or the broker refused it.
        """
        kind = _Kind(handle.peer, handle.bound, reason)
        group = self._groups.get(kind)
        if group is None:
            task_ids: list[str] = []
            group = _Group(task_ids, self._tasks.background.start(self._send_soon(kind, task_ids)))
            self._groups[kind] = group
        group.task_ids.append(handle.task_id)
        if len(group.task_ids) >= (MOST_ASKED if self._peers.says(handle.peer, ASK) else 1):
            del self._groups[kind]
        if self._tasks.scope.connection.connected:
            await asyncio.wait([group.sending], timeout=CONFIRMED_WITHIN)
            if group.sending.done() and not group.sending.cancelled():
                group.sending.result()

    async def _send_soon(self, kind: _Kind, task_ids: list[str]) -> None:
        """Send a group. This begins in the next turn of the event loop, when the cancels of this turn have joined."""
        group = self._groups.get(kind)
        if group is not None and group.task_ids is task_ids:
            del self._groups[kind]
        try:
            await self._send_control(kind, task_ids)
        except PayloadTooLarge:
            if len(task_ids) == 1:
                raise
            await asyncio.gather(*(self._send_control(kind, [task_id]) for task_id in task_ids))

    async def _send_control(self, kind: _Kind, task_ids: list[str]) -> None:
        cancel = Control(
            task_id=task_ids[0],
            action="cancel",
            sender=self._tasks.scope.agent_id,
            reason=kind.reason,
            task_ids=task_ids if len(task_ids) > 1 else None,
        )
        await self._sender.send_control(kind.peer, cancel, kind.bound)
