"""Stores arriving tasks before their messages are acknowledged. Stores cancels and answers too."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pydantic_core

from mqtt_agent.agents.crashpoints import reached, reached_when_sent
from mqtt_agent.agents.executing.early_cancels import EarlyCancels
from mqtt_agent.agents.executing.executor import TaskExecutor
from mqtt_agent.agents.executing.questions import fault_of
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.executing.shares import Shares
from mqtt_agent.agents.executing.slots import Slot
from mqtt_agent.agents.outcome import Ending, result_of
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import ACTIVE, OPEN, RESERVED_SEQS, TaskKey, TaskRecord
from mqtt_agent.agents.store.base import VERIFIED
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ASKING, Task, TaskEvent, TaskFault, TaskState, encode
from mqtt_agent.wire.tasks import digest_of

__all__ = ["ReceivedTasks"]

logger: logging.Logger = logger_of(__name__)

_FRESH = 5.0
"""Seconds for which a result is left to the member that has worked on the task. A requester asks again after 10 s."""


class _Canceled(NamedTuple):
    """A task after a cancel.

    Attributes:
        record: The task as it is stored now. It may have ended otherwise.
        waited: Whether the task waited for a slot before this cancel.
    """

    record: TaskRecord
    waited: bool = False


class ReceivedTasks:
    """The tasks that an agent has received.

    Args:
        scope: The agent's shared values.
        executor: Runs the handlers of the tasks.
        replies: Sends results and rejections to the requesters.
        max_waiting: How many tasks may wait for a slot. Further tasks are rejected, see :class:`Shares`.
        early: Bounds the cancels of tasks that have not arrived.
    """

    def __init__(
        self, scope: Scope, executor: TaskExecutor, replies: Replies, max_waiting: int, early: EarlyCancels
    ) -> None:
        self._scope = scope
        self._executor = executor
        self._replies = replies
        self._shares = Shares(scope, max_waiting)
        self._early = early
        self._answering = asyncio.Lock()
        self._many = asyncio.Lock()  # of the messages about many tasks, one has its turn
        self._pool = scope.pool

    def key(self, task_id: str, sender: str | None) -> TaskKey:
        """The key of a received task's record."""
        return self._scope.key("received", task_id, sender)

    async def find(self, task_id: str, sender: str | None) -> TaskRecord | None:
        """The record of a received task; None when this requester has given no such task.

        Args:
            task_id: The task's id.
            sender: The requester; None finds only a task that did not name its requester.
        """
        return await self._scope.store.get(self.key(task_id, sender))

    # Taking a task

    async def take(
        self,
        task: Task,
        reply_to: str | None,
        expires_at: float | None,
        message: InboundMessage,
        *,
        verified: bool,
    ) -> None:
        """Store a task, then acknowledge its message.

        A task that is stored already is not run again: its requester gets the result, or the present state.

        Args:
            task: The task; its message has been checked.
            reply_to: The topic that the requester asked for; None when it asked for none.
            expires_at: When the task expires, Unix seconds; None for never.
            message: Its message, which is acknowledged, and refused if the task is.
            verified: Whether a signature has proven the requester.

        Raises:
            StoreError: The task could not be stored, and its message was not acknowledged.
        """
        if task.bare:
            await self._take_bare(task, reply_to, message)
            return
        content = pydantic_core.from_json(encode(task))
        digest = digest_of(content)
        if verified:
            content[VERIFIED] = True
        record = TaskRecord(
            key=self.key(task.task_id, task.sender),
            peer=task.sender,
            task=content,
            digest=digest,
            reply_to=reply_to,
            expires_at=expires_at,
        )
        waits = self._pool is not None and self._pool.waits_for_turn(task.context_id)
        slot = None if waits else self._executor.take_slot()
        if slot is not None:  # the first attempt begins at once, which saves a second change in the store
            record.state, record.attempt, record.seq = TaskState.WORKING, 1, RESERVED_SEQS
        elif await self._is_one_too_many(record):
            whose = f", of {task.sender} or of others" if task.sender else ""
            why = f"agent {self._scope.agent_id} has too many waiting tasks ({self._waiting}{whose}); try later"
            self._refuse(message, task, reply_to, "overloaded", why)
            return
        stored, added = await self._add(record, slot, message.acknowledge)
        if not added:
            if slot is not None:
                self._executor.give_back(slot)
            await self._take_known(stored, record.digest, task, reply_to, message)
        elif slot is not None:
            self._executor.start(slot, stored, task)
        else:
            self._executor.enqueue(stored)

    def _refuse(self, message: InboundMessage, task: Task, reply_to: str | None, kind: str, why: str) -> None:
        message.refuse(why)
        message.acknowledge()
        self._replies.refuse(task, reply_to, kind, why, signed=message.may_be_signed_for(task.sender))

    async def _take_bare(self, task: Task, reply_to: str | None, message: InboundMessage) -> None:
        """Take a message that has only a task id. Such a message asks for the task's result or state."""
        record = await self.find(task.task_id, task.sender)
        if record is None or not self._replies.may_touch(record, reply_to):
            why = f"{self._scope.agent_id} does not know task {task.task_id}"
            self._refuse(message, task, reply_to, "not_found", why)
        else:
            record = await self._redirect(record, reply_to)
            message.acknowledge()
            await self.attach(record, None)

    @property
    def _waiting(self) -> int:
        """How many tasks wait, also for their turn."""
        ordered = self._pool is not None and self._pool.store.ordered
        return self._executor.backlog if ordered else self._executor.waiting

    async def _is_one_too_many(self, record: TaskRecord) -> bool:
        """Whether a task must be rejected, because the task is new and too many tasks wait already."""
        if await self._shares.has_room(record.peer, self._waiting):
            return False
        return await self._scope.store.get(record.key) is None

    async def _add(
        self, record: TaskRecord, slot: Slot | None, acknowledge: Callable[[], None]
    ) -> tuple[TaskRecord, bool]:
        """Store a task unless its id is known; see :meth:`TaskStore.add`. Acknowledge the message of a stored task."""
        reached("received.before-commit")
        try:
            stored, added = await self._scope.store.add(record)
        except BaseException:
            if slot is not None:
                self._executor.give_back(slot)
            raise
        reached("received.after-commit")
        if added:
            acknowledge()
        await reached_when_sent("received.after-puback")
        return stored, added

    async def _take_known(
        self, record: TaskRecord, digest: str, task: Task, reply_to: str | None, message: InboundMessage
    ) -> None:
        """Take a task whose id is stored already: a repeat, or another task with the same id."""
        canceled_early = not record.digest  # see cancel()
        # An older version stored another digest for a prompt without messages.
        same = digest == record.digest or digest == Task.model_validate(record.task).digest
        if not self._replies.may_touch(record, reply_to):
            why = f"{task.sender} gave task {task.task_id} on a sender-bound topic: ask on that topic"
            self._refuse(message, task, reply_to, "conflict", why)
        elif same or canceled_early:
            record = await self._redirect(record, reply_to)
            message.acknowledge()
            await self.attach(record, None, task)
        else:
            why = f"task id {task.task_id} names another task at {self._scope.agent_id} already: choose another id"
            self._refuse(message, task, reply_to, "conflict", why)

    # Telling the result or the state

    async def attach(self, record: TaskRecord, reply_to: str | None, task: Task | None = None) -> None:
        """Send the result of a known task, or the task's present state, to the requester.

        Args:
            record: The task's record.
            reply_to: The topic to which the result goes from now on; None leaves it as it is.
            task: The task, when the requester has sent it again.
        """
        record = await self._redirect(record, reply_to)
        if record.result is not None:
            if not await self._another_sends(record):
                self._executor.background.start(self._replies.send(record))
            return
        run = await self._executor.find_run(record.key)
        if run is None and record.state in ACTIVE and self._executor.executing:
            if self._pool is None:
                record = await self._executor.run_again(record)
            elif await self._pool.wake(record.key, listen=task is not None and task.stream is not False, asked=True):
                return  # the member that works on the task answers
            else:
                self._pool.look_soon()
        if run is not None and task is not None and task.stream is not False:
            run.attempt.listening = True
        await self._say_status(record)

    async def answer(self, task_ids: list[str], sender: str, reply_to: str) -> None:
        """Answer a question about many tasks: each known task by itself, and all others in one message.

        A task of another requester is answered like a task that nobody has given.

        Args:
            task_ids: The ids of the tasks.
            sender: The requester that asks.
            reply_to: The results topic of the requester, to which the results go from now on.
        """
        known: list[TaskRecord] = []
        unknown: list[str] = []
        async with self._many:
            for task_id, record in (await self._find_all(task_ids, sender)).items():
                if record is not None and self._replies.may_touch(record, reply_to):
                    known.append(record)
                else:
                    unknown.append(task_id)
            await asyncio.gather(*(self.attach(record, reply_to) for record in known))
        if unknown:
            self._replies.say_unknown(unknown, sender, reply_to)

    async def _another_sends(self, record: TaskRecord) -> bool:
        """Whether another member of the pool sends the result of a task, because it has got the same message.

        A result that is older than a moment is sent by every member that is asked: its own member may be cut off.
        """
        if self._pool is None or self._scope.connection.shared_subscriptions:
            return False
        fresh = time.time() - record.updated_at < _FRESH
        return fresh and await self._pool.wake(record.key, asked=True)

    async def _redirect(self, record: TaskRecord, reply_to: str | None) -> TaskRecord:
        """Store the topic to which the result of a known task goes from now on; None leaves it as it is.

        A result that goes to the requester's own topic never moves to the task's result topic, which others may read:
        a repeat on a plain topic does not prove who has sent it.
        """
        if reply_to is None or reply_to == record.reply_to:
            return record
        if reply_to == self._scope.topics.task_result(record.task_id) and record.reply_to is not None:
            return record
        changed = await self._scope.store.change(record.key, tuple(TaskState), reply_to=reply_to)
        if changed is None:
            return record
        run = await self._executor.find_run(record.key)
        if run is not None:
            run.attempt.topic = self._replies.events_topic(changed)
        return changed

    async def _say_status(self, record: TaskRecord) -> None:
        run = await self._executor.find_run(record.key)
        if run is not None:
            event = run.attempt.status()
        else:
            event = TaskEvent(
                task_id=record.task_id,
                sender=self._scope.agent_id,
                to=record.peer,
                status=record.state.value,
                attempt=record.attempt or None,
            )
        self._replies.say_status(record, event)

    # Control messages

    async def cancel_all(self, task_ids: list[str], sender: str, reason: str | None, reply_to: str) -> bool:
        """Cancel many tasks of one requester; see :meth:`cancel`. The store writes the changes together.

        A message on a plain topic does not cancel a task that was given on a sender-bound topic.

        Returns:
            Whether all cancels were stored.
        """
        async with self._many:  # not while the handlers end, which others need not wait for
            records = await self._find_all(task_ids, sender)
            stored = await asyncio.gather(
                *(
                    self._store_cancel(task_id, sender, reason, reply_to, record)
                    for task_id, record in records.items()
                    if record is None or self._replies.may_touch(record, reply_to)
                ),
                return_exceptions=True,
            )
        await asyncio.gather(*(self._end_canceled(each) for each in stored if isinstance(each, _Canceled)))
        for each in stored:
            if isinstance(each, BaseException):  # the handlers of the other tasks have ended nevertheless
                raise each
        return None not in stored

    async def _find_all(self, task_ids: list[str], sender: str) -> dict[str, TaskRecord | None]:
        """The records of several tasks of one requester, by their ids. The store reads them together."""
        found = await asyncio.gather(*(self.find(task_id, sender) for task_id in task_ids))
        return dict(zip(task_ids, found, strict=True))

    async def cancel(
        self,
        task_id: str,
        sender: str | None,
        reason: str | None,
        reply_to: str | None,
        record: TaskRecord | None,
    ) -> bool:
        """Cancel a task. A task that has not arrived yet is stored as canceled, unless there are too many of them.

        Args:
            task_id: The task's id.
            sender: The agent that cancels the task; None when the message did not name it.
            reason: Why, as text for people.
            reply_to: The topic to which the result goes from now on; None leaves it as it is.
            record: The task's record; None when the store has none.

        Returns:
            Whether the cancel was stored.
        """
        stored = await self._store_cancel(task_id, sender, reason, reply_to, record)
        if stored is not None:
            await self._end_canceled(stored)
        return stored is not None

    async def _store_cancel(
        self, task_id: str, sender: str | None, reason: str | None, reply_to: str | None, record: TaskRecord | None
    ) -> _Canceled | None:
        """Store a cancel; see :meth:`cancel`. None when it is not stored."""
        message = f"canceled by {sender or 'its requester'}" + (f": {reason}" if reason else "")
        ending = Ending(TaskState.CANCELED, fault=TaskFault(type="canceled", message=message))
        result = result_of(task_id, self._scope.agent_id, sender, ending)
        if record is not None:
            record = await self._redirect(record, reply_to)
        elif (early := self._early.admit(sender)) is not None:
            # The cancel may arrive before its task. When the task arrives, this record prevents the task from running.
            canceled = TaskRecord(
                self.key(task_id, sender),
                sender,
                {"task_id": task_id},
                "",
                ending.state,
                result=result,
                reply_to=reply_to,
                updated_at=self._early.ended_at,
            )
            try:
                record, _ = await self._scope.store.add(canceled)
            except BaseException:
                self._early.withdraw(early)  # the cancel is tried again
                raise
        else:
            return None
        if record.state.terminal:
            return _Canceled(record)
        changed = await self._scope.store.change(record.key, OPEN, state=TaskState.CANCELED, result=result)
        if changed is None:
            return _Canceled(await self._scope.store.get(record.key) or record)
        return _Canceled(changed, waited=changed.attempt == record.attempt and record.state is TaskState.SUBMITTED)

    async def _end_canceled(self, canceled: _Canceled) -> None:
        """End the handler of a task whose cancel is stored, and tell the result."""
        record = canceled.record
        if record.state is TaskState.CANCELED:
            # The handler is looked up only after the change, because it may have begun meanwhile. Also, an earlier
            # cancel may be stored although the store's answer was lost.
            ended = await self.end_run(record.key)
            if canceled.waited and not ended:
                self._executor.dequeue(record.key)
        if record.result is not None:
            self._executor.background.start(self._replies.send(record))

    async def end_run(self, key: TaskKey) -> bool:
        """End the handler of a canceled task, also at another member of the pool.

        Returns:
            Whether a handler of this process worked on the task.
        """
        run = await self._executor.find_run(key)
        if run is None:
            if self._pool is not None:
                await self._pool.wake(key)
            return False
        run.attempt.state = TaskState.CANCELED
        await self._executor.end([run])
        return True

    async def take_input(self, key: TaskKey, input_id: str | None, answer: Any) -> bool:
        """Store an answer to a question. A waiting handler gets the answer at once, another handler at its next run.

        Args:
            key: The key of the task's record.
            input_id: The question's id; None means the open question.
            answer: The answer, any JSON value.

        Returns:
            Whether the task has asked this question. True also for a task that is over: the answer may come late.
        """
        run = await self._executor.find_run(key)
        if run is not None and await run.questions.take_input(input_id, answer):
            return True
        async with self._answering:  # a second answer must see the first answer in the store
            while True:
                record = await self._scope.store.get(key)
                if record is None or record.state.terminal:
                    return record is not None
                run = await self._executor.find_run(key)
                if run is not None:
                    if await run.questions.take_input(input_id, answer):
                        return True
                    run.questions.take_stored(record.inputs)
                    break
                unanswered = (each for each in record.inputs if "answer" not in each)
                question = next((each for each in unanswered if input_id in (None, each["input_id"])), None)
                if question is None:
                    break
                if await self._refuses(record, question, answer):
                    return True
                question["answer"] = answer
                if await self._store_answer(record):
                    return True
                # A handler has begun meanwhile: the next turn of the loop gives the answer to the handler.
        return any(question["input_id"] == input_id for question in record.inputs)

    async def _refuses(self, record: TaskRecord, question: dict[str, Any], answer: Any) -> bool:
        """Whether another member of the pool refuses an answer, which does not match the schema of the question."""
        if self._pool is None or record.state not in ASKING:
            return False
        fault = fault_of(answer, question.get("schema"))
        return fault is not None and await self._pool.wake(record.key, fault=fault)

    async def _store_answer(self, record: TaskRecord) -> bool:
        """Store an answer to a question of a task that no handler of this process works on.

        In a pool, an answer to the open question also ends the state of the question. So of two answers that arrive
        at two members, one is stored.

        Returns:
            Whether the answer was stored. Not when the task has changed meanwhile.
        """
        change = partial(self._scope.store.change, record.key, expected_attempt=record.attempt, inputs=record.inputs)
        if self._pool is None:
            return await change(OPEN) is not None
        if record.state in ASKING:
            stored = await change((record.state,), state=TaskState.WORKING)
        else:
            stored = await change((record.state,))
        if stored is not None:
            await self._pool.wake(record.key)
        return stored is not None
