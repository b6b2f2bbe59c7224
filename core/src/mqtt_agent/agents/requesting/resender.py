"""Sends a task again, at growing intervals, until its result arrives: the task or the result may have been lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import TaskSender
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import OPEN, TaskRecord
from mqtt_agent.errors import MQTTAgentError, PoisonMessage, StoreError
from mqtt_agent.transport import check_reason_code
from mqtt_agent.wire import Control, TaskFault

__all__ = ["Resender"]

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE = 100
"""How many tasks are sent again at the same time. A peer gets less at once after some of its tasks were lost."""
_ANSWERED_WITHIN = 0.5
"""Seconds to wait for the answers, before further tasks are sent again."""


class Resender:
    """Sends open tasks again when they are due.

    Sending a task again never runs it twice. A peer that has the task answers with the result, or with the present
    state.

    Args:
        scope: The agent's shared values.
        tasks: The delegated tasks.
        sender: Sends the tasks.
        is_away: Finds out whether an agent is offline. Nothing is sent again to such a peer until it is back.
    """

    def __init__(
        self, scope: Scope, tasks: DelegatedTasks, sender: TaskSender, is_away: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._scope = scope
        self._tasks = tasks
        self._sender = sender
        self._is_away = is_away
        self._unanswered: set[str] = set()
        self._all_answered = asyncio.Event()
        self._windows: dict[str, int] = {}  # by peer: how many tasks it gets at once, after some were lost

    async def start(self) -> None:
        """Send all open tasks again now. Later, send each open task again whenever the task is due."""
        await self.resend_all()
        self._tasks.background.start(self._run(), name="mqtt-agent resender")

    async def resend_all(self) -> None:
        """Make all open tasks due; in a pool, those for which this member asks."""
        if self._scope.pool is not None:
            self._tasks.reminders.hurry()
            await self.adopt(self._scope.pool)
            return
        async for record in self._tasks.find(OPEN):
            self._tasks.schedule(record, at_once=True)

    async def adopt(self, pool: PoolMember) -> None:
        """Ask from now on for the open tasks of members of the pool that are gone."""
        for record in await pool.store.adopt():
            self._tasks.schedule(record, at_once=True)

    async def _run(self) -> None:
        while True:
            due, expired = await self._tasks.reminders.due(_AT_ONCE)
            for task_id, peer in expired:
                expire = partial(self._expire, task_id, f"no result from {peer} before it expired")
                await self._apart(task_id, expire)
            await self._resend_some(due)

    async def _apart(self, task_id: str, work: Callable[[], Awaitable[T]]) -> T | None:
        """Work on one task. When its record can never be read or written, the work on other tasks goes on."""
        try:
            return await work()
        except StoreError as error:
            if not error.permanent:
                raise
            self._tasks.reminders.drop(task_id)
            logger.error("task %.80s is not sent again, until the next start of its agent: %s", task_id, error)
            return None

    async def _expire(self, task_id: str, message: str) -> None:
        give_up = partial(self._tasks.give_up, task_id, TaskFault(type="expired", message=message))
        await self._scope.retry.until_stored(give_up, f"the note that task {task_id:.80} has expired")

    async def _resend_some(self, task_ids: list[str]) -> None:
        """Send some tasks again, in groups, and wait a moment for the answers to each group.

        Without the wait, many tasks would fill the queues of the broker, and brokers drop messages of full queues.
        """
        by_peer: dict[str, list[str]] = {}
        for task_id in task_ids:
            by_peer.setdefault(self._tasks.reminders.peer_of(task_id), []).append(task_id)
        while by_peer:
            group: dict[str, list[str]] = {}
            for peer, waiting in list(by_peer.items()):
                window = self._windows.get(peer, _AT_ONCE)
                group[peer], by_peer[peer] = waiting[:window], waiting[window:]
                if not by_peer[peer]:
                    del by_peer[peer]
            await self._resend_group(group)

    async def _resend_group(self, group: dict[str, list[str]]) -> None:
        task_ids = [task_id for each in group.values() for task_id in each]
        self._unanswered = set(task_ids)
        self._all_answered.clear()
        asked = await asyncio.gather(*(self._apart(task_id, partial(self.resend, task_id)) for task_id in task_ids))
        sent = {task_id for task_id, was_sent in zip(task_ids, asked, strict=True) if was_sent}
        self._unanswered &= sent
        if self._unanswered:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), _ANSWERED_WITHIN)
        for peer, each in group.items():
            self._adapt(peer, sent.intersection(each))

    def _adapt(self, peer: str, sent: set[str]) -> None:
        """Change how many tasks a peer gets at once.

        A peer that has answered some tasks of a group, and not the others, has probably not got the others, or the
        broker has lost the answers.
        """
        lost = sent & self._unanswered
        window = self._windows.get(peer, _AT_ONCE)
        if not lost:
            self._windows[peer] = window * 2
        elif len(lost) < len(sent):
            self._windows[peer] = min(window, len(sent) - len(lost))
        if self._windows.get(peer, _AT_ONCE) >= _AT_ONCE:
            self._windows.pop(peer, None)
        elif lost:
            for task_id in lost:
                self._tasks.reminders.soon(task_id)

    def answered(self, task_id: str) -> None:
        """Note that a peer has answered: a result or an event of the task has arrived."""
        self._unanswered.discard(task_id)
        if not self._unanswered:
            self._all_answered.set()

    async def resend(self, task_id: str) -> bool:
        """Send a task again, unless the task is over, its peer is offline, or this agent is not connected.

        Returns:
            Whether the task was sent.
        """
        record = await self._scope.retry.until_stored(partial(self._tasks.get, task_id), f"task {task_id:.80}")
        if record is None or record.state.terminal:
            self._tasks.reminders.drop(task_id)
            handle = self._tasks.handles.get(task_id)
            if record is not None and handle is not None:
                self._tasks.update(handle, record)
        elif self._scope.connection.connected and not await self._is_away(record.peer or ""):
            await self.send_again(record)
            return True
        return False

    async def send_again(self, record: TaskRecord) -> None:
        """Send a task again. If the task is to be canceled, send the cancel again instead."""
        peer, handle = record.peer or "", self._tasks.handles.get(record.task_id)
        what = f"the topic of task {record.task_id:.80}"
        await self._is_away(peer)  # the peer's card, which names its topics, has arrived then
        record = await self._scope.retry.until_stored(partial(self._sender.in_dialect, record), what)
        try:
            if record.cancel_requested:
                cancel = Control(task_id=record.task_id, action="cancel", sender=self._scope.agent_id)
                await self._sender.send_control(peer, cancel, record.reply_to is not None)
            else:
                check_reason_code(await self._sender.send(record), self._sender.inbox(record))
        except PoisonMessage as error:
            self._sender.give_up(record, error)
        except MQTTAgentError as error:
            if self._sender.falls_back(record, error):
                self._tasks.reminders.soon(record.task_id)
            logger.info("task %s could not be sent to %s again: %s", record.task_id, peer, error)
        if handle is not None and handle.done:
            self._tasks.reminders.drop(record.task_id)
