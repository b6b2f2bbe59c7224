"""Asks for open tasks again, at growing intervals, until their results arrive: a task or its result may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import NamedTuple, TypeVar

from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import TaskSender
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import OPEN, TaskRecord
from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, PoisonMessage, StoreError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import check_reason_code
from mqtt_agent.wire import Control, TaskFault
from mqtt_agent.wire.agents import ASK
from mqtt_agent.wire.tasks import MOST_ASKED

__all__ = ["Resender"]

logger: logging.Logger = logger_of(__name__)

T = TypeVar("T")

_AT_ONCE = MOST_ASKED
"""How many tasks are sent again, or are asked for, at the same time: asking costs little, but each answer is a message.
A peer gets less at once after some of its tasks were lost."""
_ANSWERED_WITHIN = 0.5
"""Seconds to wait for the answers, before further tasks are sent again."""


class _Way(NamedTuple):
    """To whom tasks are sent again, and how.

    Attributes:
        peer: The agent that the tasks were given to.
        action: What one message says about many tasks by their ids, ``get`` or ``cancel``; None when each task is sent.
    """

    peer: str
    action: str | None


class Resender:
    """Asks for open tasks again when they are due.

    A peer that says ``ask`` in its card gets one question about many tasks, with their ids. A task that this peer does
    not know is sent again as a whole, and so is each task of another peer. Sending a task again never runs it twice. A
    peer that has the task answers with the result, or with the present state.

    Args:
        scope: The agent's shared values.
        tasks: The delegated tasks.
        sender: Sends the tasks.
        peers: The other agents of the namespace. Nothing is sent again to a peer that is offline until it is back.
    """

    def __init__(self, scope: Scope, tasks: DelegatedTasks, sender: TaskSender, peers: Peers) -> None:
        self._scope = scope
        self._tasks = tasks
        self._sender = sender
        self._peers = peers
        self._unanswered: set[str] = set()
        self._all_answered = asyncio.Event()
        self._windows: dict[str, int] = {}  # by peer: how many tasks it gets at once, after some were lost

    async def start(self) -> None:
        """Ask for all open tasks now. Later, ask for each open task whenever it is due."""
        await self.resend_all()
        self._tasks.background.start(self._run(), name="mqtt-agent resender")

    async def resend_all(self) -> None:
        """Make all open tasks due; in a pool, those for which this member asks."""
        if self._scope.pool is not None:
            self._tasks.reminders.hurry()
            await self.adopt(self._scope.pool)
            return
        async for outlines in self._scope.outlines("delegated", OPEN):
            for outline in outlines:
                self._tasks.schedule(outline, at_once=True)

    async def adopt(self, pool: PoolMember) -> None:
        """Ask from now on for the open tasks of members of the pool that are gone."""
        for record in await pool.store.adopt():
            self._tasks.schedule(record, at_once=True)

    async def _run(self) -> None:
        while True:
            due, expired = await self._tasks.reminders.due(_AT_ONCE)
            await asyncio.gather(
                *(
                    self._apart(task_id, partial(self._expire, task_id, f"no result from {peer} before it expired"))
                    for task_id, peer in expired
                )
            )
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

    # Groups

    async def _resend_some(self, task_ids: list[str]) -> None:
        """Send some tasks again, in groups, and wait a moment for the answers to each group.

        Without the wait, many tasks would fill the queues of the broker, and brokers drop messages of full queues.
        """
        by_way = await self._by_way(task_ids)
        while by_way:
            group: dict[_Way, list[str]] = {}
            for way, waiting in list(by_way.items()):
                window = self._windows.get(way.peer, _AT_ONCE)
                group[way], by_way[way] = waiting[:window], waiting[window:]
                if not by_way[way]:
                    del by_way[way]
            await self._resend_group(group)

    async def _by_way(self, task_ids: list[str]) -> dict[_Way, list[str]]:
        """Sort tasks by their peers, and by how they are sent again. The tasks of absent peers are left out."""
        by_peer: dict[str, list[str]] = {}
        for task_id in task_ids:
            entry = self._tasks.reminders.get(task_id)
            if entry is not None:
                by_peer.setdefault(entry.peer, []).append(task_id)
        by_way: dict[_Way, list[str]] = {}
        if not self._scope.connection.connected:
            return by_way  # the tasks are due again when the connection is back
        # All at once: to find out about a peer may take some seconds.
        away = await asyncio.gather(*map(self._peers.is_away, by_peer))
        for (peer, theirs), is_away in zip(by_peer.items(), away, strict=True):
            for task_id in () if is_away else theirs:  # else the task is due again when the peer is back
                by_way.setdefault(_Way(peer, self._action(task_id)), []).append(task_id)
        return by_way

    def _action(self, task_id: str) -> str | None:
        """What the peer of a task is told about the task by its id; see :class:`_Way`. The peer's card has arrived."""
        entry = self._tasks.reminders.get(task_id)
        if entry is None or not self._peers.says(entry.peer, ASK):
            return None
        # A task that changes its topics is sent as a whole, so that the change is stored before.
        if self._scope.dialect.bound_with(entry.peer, entry.bound) != entry.bound:
            return None
        if entry.unknown:
            return None
        if entry.canceled:
            return "cancel"
        return None if entry.whole else "get"

    async def _resend_group(self, group: dict[_Way, list[str]]) -> None:
        self._unanswered = {task_id for each in group.values() for task_id in each}
        self._all_answered.clear()
        sent = set[str]().union(*await asyncio.gather(*(self._resend_by(way, each) for way, each in group.items())))
        self._unanswered &= sent
        if self._unanswered:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._all_answered.wait(), _ANSWERED_WITHIN)
        for way, each in group.items():
            self._adapt(way.peer, sent.intersection(each))

    async def _resend_by(self, way: _Way, task_ids: list[str]) -> Collection[str]:
        """Send tasks again in one way. Returns the ids of those that were sent."""
        if way.action is None:
            sent = await asyncio.gather(*(self._apart(each, partial(self._resend_whole, each)) for each in task_ids))
            return [task_id for task_id, was_sent in zip(task_ids, sent, strict=True) if was_sent]
        return task_ids if await self._tell(way.peer, way.action, task_ids) else ()

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

    # Single tasks

    async def resend(self, task_id: str) -> None:
        """Ask for a task now, unless it is over, its peer is offline, or this agent is not connected."""
        if self._tasks.reminders.get(task_id) is None and self._scope.pool is not None:
            await self._resend_of_other(task_id)  # another member of the pool asks for the task
        for way, task_ids in (await self._by_way([task_id])).items():
            await self._resend_by(way, task_ids)

    async def _resend_of_other(self, task_id: str) -> None:
        record = await self._scope.retry.until_stored(partial(self._tasks.get, task_id), f"task {task_id:.80}")
        if record is None or record.state.terminal or not self._scope.connection.connected:
            return
        if not await self._peers.is_away(record.peer or ""):
            await self.send_again(record)

    async def ask_again(self, record: TaskRecord) -> None:
        """Ask for a task now, also when its peer is offline: the broker may keep the message for the peer."""
        await self._peers.is_away(record.peer or "")  # the peer's card has arrived then
        action = self._action(record.task_id)
        if action is None:
            await self.send_again(record)
        else:
            await self._tell(record.peer or "", action, [record.task_id])

    async def _tell(self, peer: str, action: str, task_ids: list[str]) -> bool:
        """Ask a peer for some tasks, or cancel them, with one message. Returns whether the message was sent."""
        control = Control(task_id=task_ids[0], action=action, sender=self._scope.agent_id, task_ids=task_ids)
        bound = self._scope.dialect.bound_with(peer)
        try:
            await self._sender.send_control(peer, control, bound)
        except (PayloadTooLarge, PoisonMessage):
            for task_id in task_ids:
                self._tasks.reminders.send_whole(task_id)
        except MQTTAgentError as error:
            if self._sender.gives_up_bound(bound, error):
                for task_id in task_ids:
                    self._tasks.reminders.soon(task_id)
            logger.info("agent %s could not be asked for %d tasks: %s", peer, len(task_ids), error)
        else:
            return True
        return False

    async def _resend_whole(self, task_id: str) -> bool:
        """Send a task again, unless it is over. Returns whether it was sent."""
        record = await self._scope.retry.until_stored(partial(self._tasks.get, task_id), f"task {task_id:.80}")
        if record is None or record.state.terminal:
            self._tasks.reminders.drop(task_id)
            handle = self._tasks.handles.get(task_id)
            if record is not None and handle is not None:
                self._tasks.update(handle, record)
            return False
        await self.send_again(record)
        return True

    async def send_again(self, record: TaskRecord) -> None:
        """Send a task again. If the task is to be canceled, send the cancel again instead."""
        peer, handle = record.peer or "", self._tasks.handles.get(record.task_id)
        what = f"the topic of task {record.task_id:.80}"
        await self._peers.is_away(peer)  # the peer's card, which names its topics, has arrived then
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
