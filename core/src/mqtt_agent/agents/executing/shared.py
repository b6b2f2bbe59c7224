"""Compares the handlers of a pool's member with the store, because other members may change the tasks too."""

from __future__ import annotations

import logging

from mqtt_agent.agents.executing.executor import TaskExecutor
from mqtt_agent.agents.executing.ledger import ReceivedTasks
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.store import ACTIVE, TaskKey, TaskRecord
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import MemberNote, TaskState

__all__ = ["SharedWork"]

logger: logging.Logger = logger_of(__name__)


class SharedWork:
    """Keeps the handlers of one member as the store says.

    Another member may have taken a cancel or an answer, or may have the task now because this member's lease had ended.

    Args:
        pool: This process as a member of the pool.
        executor: The handlers of this process.
        received: The received tasks.
        replies: Knows the topics of events.
    """

    def __init__(self, pool: PoolMember, executor: TaskExecutor, received: ReceivedTasks, replies: Replies) -> None:
        self._pool = pool
        self._executor = executor
        self._received = received
        self._replies = replies
        pool.looks.append(self.look)
        pool.on_note.update({"task": self._on_task, "refused": self._on_refused, "tasks": self._on_tasks})
        pool.on_reaped.append(self._on_reaped)

    async def look(self) -> None:
        """Compare all handlers of this process with the store, and begin the tasks that wait."""
        running = self._executor.runs  # before the store is read: a handler begins when the store has its task
        own = {each.key: each.attempt for each in await self._pool.store.own()}
        for key, run in running.items():
            if own.get(key) != run.attempt.number or run.questions.waiting:
                await self.reread(key)
        for key, attempt in own.items():
            if key not in running and self._executor.executing and await self._executor.find_run(key) is None:
                await self._run_lost(key, attempt)
        await self._executor.recount()

    async def _run_lost(self, key: TaskKey, attempt: int) -> None:
        """Run a task again that this member has begun according to the store, and that no handler works on."""
        record = await self._pool.store.get(key)
        if record is not None and record.state in ACTIVE and record.attempt == attempt:
            await self._executor.run_again(record)

    async def reread(self, key: TaskKey) -> TaskRecord | None:
        """Compare one handler with the store. Returns the task's record."""
        record = await self._pool.store.get(key)
        run = await self._executor.find_run(key)
        if record is None or run is None:
            return record
        if record.attempt != run.attempt.number or record.state is TaskState.SUBMITTED:
            logger.warning(
                "attempt %d at task %.80s is canceled: another member of agent %s has the task now",
                run.attempt.number,
                key.task_id,
                self._pool.agent_id,
            )
            await self._executor.end([run], interrupted=True)
        elif record.state is TaskState.CANCELED:
            await self._received.end_run(key)
        elif record.state.terminal:  # this handler's own result
            return record
        else:
            run.attempt.topic = self._replies.events_topic(record)
            run.questions.take_stored(record.inputs)
        return record

    # Messages of other members

    def _key(self, note: MemberNote) -> TaskKey:
        return self._received.key(note.task_id or "", note.requester)

    async def _on_task(self, note: MemberNote) -> None:
        key = self._key(note)
        if await self._executor.find_run(key) is None:  # anybody may name any task: the store is not asked about it
            return
        record = await self.reread(key)
        if record is None or record.state.terminal:
            return
        run = await self._executor.find_run(key)
        if run is not None and note.listen:
            run.attempt.listening = True
        if run is not None:
            self._replies.say_status(record, run.attempt.status())

    async def _on_refused(self, note: MemberNote) -> None:
        run = await self._executor.find_run(self._key(note))
        if run is not None and run.questions.waiting and note.reason:
            await run.attempt.send_status(note.reason)

    async def _on_tasks(self, note: MemberNote) -> None:
        await self._executor.recount()

    def _on_reaped(self) -> None:
        self._executor.send_unsettled()  # a dead member may have stored results that it has not sent
