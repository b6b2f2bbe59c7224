"""What becomes of the tasks that an agent receives: stored once, answered, canceled, told what they asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import pydantic_core

from mqtt_agent.agents.crashpoints import reached, reached_when_sent
from mqtt_agent.agents.executing.executor import TaskExecutor
from mqtt_agent.agents.executing.replies import Answers
from mqtt_agent.agents.outcome import result_of
from mqtt_agent.agents.store import ACTIVE, OPEN, RESERVED_SEQS, TaskKey, TaskRecord, TaskStore
from mqtt_agent.errors import TaskCanceled
from mqtt_agent.wire import Task, TaskEvent, TaskFault, TaskState, Topics, encode

__all__ = ["ReceivedTasks"]

logger: logging.Logger = logging.getLogger(__name__)


class ReceivedTasks:
    """Takes tasks into the store, and obeys what their requesters say about them.

    Args:
        topics: The namespace.
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the tasks are kept.
        executor: Runs their handlers.
        answers: Takes results and refusals to the requesters.
        max_waiting: How many tasks are kept for later; others are rejected.
    """

    def __init__(
        self,
        topics: Topics,
        agent: str,
        name: str,
        store: TaskStore,
        executor: TaskExecutor,
        answers: Answers,
        max_waiting: int,
    ) -> None:
        self._topics = topics
        self._agent = agent
        self._name = name
        self._store = store
        self._executor = executor
        self._answers = answers
        self._max_waiting = max_waiting
        self._answering = asyncio.Lock()

    def _key(self, task_id: str) -> TaskKey:
        return TaskKey(self._agent, "received", task_id)

    async def find(self, task_id: str) -> TaskRecord | None:
        """The record of a received task."""
        return await self._store.get(self._key(task_id))

    async def take(
        self, task: Task, reply_to: str | None, expires_at: float | None, acknowledge: Callable[[], None]
    ) -> None:
        """Store a task, then acknowledge its message; what is known already gets its answer again.

        Raises:
            StoreError: It could not be stored, and was not acknowledged.
        """
        if task.bare:
            record = await self.find(task.task_id)
            acknowledge()
            if record is None or task.sender not in (None, record.peer):
                self._answers.refuse(task, reply_to, "not_found", f"{self._name} does not know task {task.task_id}")
            elif task.sender is None and record.peer is not None:
                await self._tell(record, reply_to)
            else:
                await self.attach(record, reply_to)
            return
        record = TaskRecord(
            key=self._key(task.task_id),
            peer=task.sender,
            task=pydantic_core.from_json(encode(task)),
            digest=task.digest,
            reply_to=reply_to,
            expires_at=expires_at,
        )
        place = self._executor.take_place()
        if place is not None:
            record.state, record.attempt, record.seq = TaskState.WORKING, 1, RESERVED_SEQS
        elif self._executor.waiting >= self._max_waiting and await self._store.get(record.key) is None:
            acknowledge()
            message = f"{self._name} has {self._executor.waiting} tasks waiting already"
            self._answers.refuse(task, reply_to, "overloaded", message)
            return
        reached("received.before-commit")
        try:
            stored, added = await self._store.add(record)
        except BaseException:
            if place is not None:
                self._executor.give_back(place)
            raise
        reached("received.after-commit")
        acknowledge()
        await reached_when_sent("received.after-puback")
        if added and place is not None:
            self._executor.start(place, stored, task)
        elif added:
            self._executor.enqueue()
        else:
            if place is not None:
                self._executor.give_back(place)
            a_cancel = not stored.digest and stored.peer in (None, task.sender)
            if stored.digest != record.digest and not a_cancel:
                message = f"{task.task_id} names another task at {self._name} already"
                self._answers.refuse(task, reply_to, "conflict", message)
            else:
                await self.attach(stored, reply_to, task)

    async def attach(self, record: TaskRecord, reply_to: str | None, task: Task | None = None) -> None:
        """Answer somebody who asks for a task that is known: with its result, or with where it stands."""
        if reply_to is not None and reply_to != record.reply_to:
            every = tuple(TaskState)
            record = await self._store.change(record.key, every, reply_to=reply_to) or record
        if record.result is not None:
            self._executor.background.start(self._answers.send(record))
            return
        run = await self._executor.find_run(record.task_id)
        if run is None and record.state in ACTIVE and self._executor.executing:
            # Another process with this agent id had begun with it, after this one took up what was left.
            state = TaskState.SUBMITTED
            again = await self._store.change(record.key, ACTIVE, expected_attempt=record.attempt, state=state)
            if again is not None:
                logger.info("%s runs task %s again, which no handler has", self._name, record.task_id)
                record = again
                self._executor.enqueue()
        if run is not None and task is not None and task.stream is not False:
            run.attempt.listening = True
        await self._tell_status(record)

    async def _tell_status(self, record: TaskRecord) -> None:
        run = await self._executor.find_run(record.task_id)
        if run is not None:
            event = run.attempt.status()
        else:
            event = TaskEvent(task_id=record.task_id, status=record.state.value, attempt=record.attempt or None)
        self._answers.say(self._topics.task_events(record.task_id), encode(event), record.task_id)

    async def _tell(self, record: TaskRecord, reply_to: str | None) -> None:
        """Answer somebody who does not say that the task is theirs: the requester's answer goes where it went."""
        if record.result is None:
            await self._tell_status(record)
        else:
            topic = reply_to or self._topics.task_result(record.task_id)
            self._answers.say(topic, pydantic_core.to_json(record.result), record.task_id)

    # Words about tasks

    async def cancel(self, task_id: str, sender: str | None, reason: str | None) -> None:
        """Cancel a task for its requester, also one that has not come yet."""
        record = await self.find(task_id)
        message = f"canceled by {sender or 'its requester'}" + (f": {reason}" if reason else "")
        result = result_of(task_id, self._name, sender, TaskState.CANCELED, TaskFault(type="canceled", message=message))
        if record is None:
            # It may have overtaken its task, which must find it.
            tombstone = TaskRecord(
                self._key(task_id), sender, {"task_id": task_id}, "", TaskState.CANCELED, result=result
            )
            record, _ = await self._store.add(tombstone)
        elif not record.state.terminal:
            changed = await self._store.change(record.key, OPEN, state=TaskState.CANCELED, result=result)
            run = await self._executor.find_run(task_id)  # asked now: a handler may have begun with it meanwhile
            if changed is not None and run is not None:
                run.attempt.state = TaskState.CANCELED
                with contextlib.suppress(TaskCanceled):  # no event number is left, and none can be set aside any more
                    await run.attempt.tell_status()
                await self._executor.end([run])
            elif changed is not None and changed.attempt == record.attempt and record.state is TaskState.SUBMITTED:
                self._executor.waiting = max(0, self._executor.waiting - 1)
            record = changed or await self._store.get(record.key) or record
        if record.result is not None:
            self._executor.background.start(self._answers.send(record))

    async def take_input(self, task_id: str, input_id: str | None, answer: Any) -> bool:
        """Give an answer to the handler that asked, or keep it for when the handler runs again.

        Returns:
            Whether there was such a question.
        """
        run = await self._executor.find_run(task_id)
        if run is not None and await run.attempt.take_input(input_id, answer):
            return True
        async with self._answering:  # two answers at once: the second must see the first
            while True:
                record = await self.find(task_id)
                if record is None or record.state.terminal:
                    return record is not None
                run = await self._executor.find_run(task_id)
                if run is not None:
                    if await run.attempt.take_input(input_id, answer):
                        return True
                    break
                open_ones = (each for each in record.inputs if "answer" not in each)
                question = next((each for each in open_ones if input_id in (None, each["input_id"])), None)
                if question is None:
                    break
                question["answer"] = answer
                inputs = record.inputs
                if (
                    await self._store.change(record.key, OPEN, expected_attempt=record.attempt, inputs=inputs)
                    is not None
                ):
                    return True
                # A handler has begun with it meanwhile: it gets the answer.
        return any(question["input_id"] == input_id for question in record.inputs)
