"""Asking after the tasks that have no result yet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import TaskSender
from mqtt_agent.agents.store import OPEN, TaskRecord
from mqtt_agent.errors import MQTTAgentError, StoreError
from mqtt_agent.transport import Connection, check_reason_code
from mqtt_agent.wire import Control, TaskFault, Topics

__all__ = ["Resender"]

logger: logging.Logger = logging.getLogger(__name__)

_AT_ONCE = 100
_ANSWERED_WITHIN = 0.5


class Resender:
    """Sends open tasks again, when a reminder says so: who has the task answers with its result, or where it stands.

    Args:
        connection: Nothing is sent while it is away.
        topics: The namespace.
        tasks: The tasks that are given away.
        sender: Sends them.
        is_away: Whether a peer is known to be offline: then nothing is sent again until it is back.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        tasks: DelegatedTasks,
        sender: TaskSender,
        is_away: Callable[[str], bool],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._tasks = tasks
        self._sender = sender
        self._is_away = is_away
        self._unanswered: set[str] = set()
        self._all_answered = asyncio.Event()

    async def start(self) -> None:
        """Ask after all now, and after each when it is time."""
        await self.ask_after_all()
        self._tasks.background.start(self._run(), name="mqtt-agent ask again")

    async def ask_after_all(self) -> None:
        """Have every open task sent again."""
        async for record in self._tasks.find(OPEN):
            self._tasks.remember(record, at_once=True)

    async def _run(self) -> None:
        while True:
            due, expired = await self._tasks.reminders.due(_AT_ONCE)
            for task_id, peer in expired:
                await self._expire(task_id, f"no result from {peer} before it expired")
            await self._ask_after_some(due)

    async def _expire(self, task_id: str, message: str) -> None:
        try:
            await self._tasks.give_up(task_id, TaskFault(type="expired", message=message))
        except StoreError as error:
            logger.error("task %s has expired and could not be closed: %s", task_id, error)

    async def _ask_after_some(self, task_ids: list[str]) -> None:
        """Ask, and wait a moment for the answers: to ask faster would fill the queues that brokers drop from."""
        self._unanswered = set(task_ids)
        self._all_answered.clear()
        asked = await asyncio.gather(*(self.ask_after(task_id) for task_id in task_ids))
        self._unanswered &= {task_id for task_id, sent in zip(task_ids, asked, strict=True) if sent}
        if self._unanswered:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), _ANSWERED_WITHIN)

    def answered(self, task_id: str) -> None:
        """A peer has told something about a task."""
        self._unanswered.discard(task_id)
        if not self._unanswered:
            self._all_answered.set()

    async def ask_after(self, task_id: str) -> bool:
        """Send a task again, if that makes sense now.

        Returns:
            Whether it did.
        """
        try:
            record = await self._tasks.get(task_id)
        except StoreError as error:
            logger.error("task %s cannot be read: %s", task_id, error)
            return False
        if record is None or record.state.terminal:
            self._tasks.reminders.drop(task_id)
            handle = self._tasks.handles.get(task_id)
            if record is not None and handle is not None:
                self._tasks.update(handle, record)
        elif self._connection.connected and not self._is_away(record.peer or ""):
            await self.send_again(record)
            return True
        return False

    async def send_again(self, record: TaskRecord) -> None:
        """Send what of a task the peer does not know yet."""
        peer, handle = record.peer or "", self._tasks.handles.get(record.task_id)
        try:
            if record.cancel_requested:
                word = Control(task_id=record.task_id, action="cancel", sender=self._tasks.name)
                await self._sender.say(peer, word)
            else:
                check_reason_code(await self._sender.send(record), self._topics.inbox(peer))
        except MQTTAgentError as error:
            logger.info("task %s could not be sent to %s again: %s", record.task_id, peer, error)
        if handle is not None and handle.done:
            self._tasks.reminders.drop(record.task_id)
