"""Doing the tasks that an agent receives: each once to completion, whatever dies on the way."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic_core

from mqtt_agent.agents.answers import Answers
from mqtt_agent.agents.attempt import Attempt, Slots
from mqtt_agent.agents.context import TaskContext
from mqtt_agent.agents.outcome import deliverable, failure, result_of
from mqtt_agent.agents.router import Router, TaskHandler
from mqtt_agent.agents.store import ACTIVE, OPEN, RESERVED_SEQS, TaskKey, TaskRecord, TaskStore
from mqtt_agent.background_tasks import BackgroundTasks
from mqtt_agent.crashpoints import reached, reached_when_sent
from mqtt_agent.errors import StoreError, TaskCanceled
from mqtt_agent.handlers import run_in_thread
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Task, TaskEvent, TaskFault, TaskState, Topics, encode, to_json

__all__ = ["TaskExecutor"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_FIRST, _RETRY_MAX = 0.5, 30.0
_CONFIRMED_WITHIN = 5.0


@dataclass
class Run:
    """A handler at work on a task.

    Attributes:
        attempt: Its hold on the task.
        context: What the handler has been given.
        work: What can be cancelled.
    """

    attempt: Attempt
    context: TaskContext
    work: asyncio.Task[None] | None = None


class TaskExecutor:
    """Takes tasks into the store, runs their handlers, and stores their results before they are sent.

    Args:
        connection: Where results and events go out.
        topics: The namespace.
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the tasks are kept.
        router: Their handlers.
        answers: Takes results and refusals to the requesters.
        max_concurrent: How many handlers run at once.
        max_waiting: How many more tasks are kept; others are rejected.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        agent: str,
        name: str,
        store: TaskStore,
        router: Router,
        answers: Answers,
        max_concurrent: int,
        max_waiting: int,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._agent = agent
        self._name = name
        self._store = store
        self._router = router
        self._answers = answers
        self._max_waiting = max_waiting
        self._slots = Slots(max_concurrent, self._fill)
        self._runs: dict[str, Run] = {}
        self._waiting = 0
        self._executing = False
        self._stopping = False
        self._tasks = BackgroundTasks(self._on_failure)
        self._answering = asyncio.Lock()

    @property
    def running(self) -> int:
        """How many handlers are at work, those that wait for an answer included."""
        return len(self._runs)

    def key(self, task_id: str) -> TaskKey:
        """The name of a task's record."""
        return TaskKey(self._agent, "received", task_id)

    # Life

    async def begin(self) -> None:
        """Take up what an earlier process left, and begin to run handlers."""
        again = await self._store.reopen(self._agent)
        if again:
            logger.info("%s runs %d tasks again that it had begun with", self._name, again)
        self._waiting = await self._store.count(self._agent, "received", (TaskState.SUBMITTED,))
        self._executing, self._stopping = True, False
        self._tasks.start(self._answers.send_unsettled())
        self._fill()

    async def drain(self, timeout: float) -> None:
        """Begin with nothing more, wait for the handlers that run, and leave the others for the next start."""
        self._executing, self._stopping = False, True
        running = [run.work for run in self._runs.values() if run.work is not None]
        if running and timeout > 0:
            await asyncio.wait(running, timeout=timeout)
        await self._end(list(self._runs.values()), interrupted=True)
        # What the broker does not confirm soon is sent at the next start.
        await self._tasks.wait(_CONFIRMED_WITHIN if self._connection.connected else 0)
        self._tasks.cancel()

    async def abandon(self) -> None:
        """Stop all handlers at once: another process has taken over."""
        self._executing, self._stopping = False, True
        await self._end(list(self._runs.values()), interrupted=True)

    async def _end(self, runs: list[Run], *, interrupted: bool = False) -> None:
        for run in runs:
            run.context.interrupted = interrupted
            run.attempt.over = run.context.cancelled = True
            if run.work is not None:
                run.work.cancel()
        works = [run.work for run in runs if run.work is not None]
        if works:
            await asyncio.wait(works, timeout=2)

    # Taking tasks

    async def take(
        self, task: Task, reply_to: str | None, expires_at: float | None, acknowledge: Callable[[], None]
    ) -> None:
        """Store a task, then acknowledge its message; what is known already gets its answer again.

        Raises:
            StoreError: It could not be stored, and was not acknowledged.
        """
        if task.bare:
            record = await self._store.get(self.key(task.task_id))
            acknowledge()
            if record is None or task.sender not in (None, record.peer):
                self._answers.refuse(task, reply_to, "not_found", f"{self._name} does not know task {task.task_id}")
            elif task.sender is None and record.peer is not None:
                self._tell(record, reply_to)
            else:
                await self.attach(record, reply_to)
            return
        record = TaskRecord(
            key=self.key(task.task_id),
            peer=task.sender,
            task=pydantic_core.from_json(encode(task)),
            digest=task.digest,
            reply_to=reply_to,
            expires_at=expires_at,
        )
        at_once = self._executing and self._waiting == 0 and self._slots.take_now()
        if at_once:
            record.state, record.attempt, record.seq = TaskState.WORKING, 1, RESERVED_SEQS
        elif self._waiting >= self._max_waiting and await self._store.get(record.key) is None:
            acknowledge()
            message = f"{self._name} has {self._waiting} tasks waiting already"
            self._answers.refuse(task, reply_to, "overloaded", message)
            return
        reached("received.before-commit")
        try:
            stored, added = await self._store.add(record)
        except BaseException:
            if at_once:
                self._slots.release()
            raise
        reached("received.after-commit")
        acknowledge()
        await reached_when_sent("received.after-puback")
        if added and at_once and self._executing:
            self._start(stored, task)
        elif added and at_once:
            self._slots.release()  # stopping began meanwhile: the next start does it
        elif added:
            self._waiting += 1
            self._fill()
        else:
            if at_once:
                self._slots.release()
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
        run = self._runs.get(record.task_id)
        if record.result is not None:
            self._tasks.start(self._answers.send(record))
            return
        if run is None and record.state in ACTIVE and self._executing:
            # Another process with this agent id had begun with it, after this one took up what was left.
            state = TaskState.SUBMITTED
            again = await self._store.change(record.key, ACTIVE, expected_attempt=record.attempt, state=state)
            if again is not None:
                logger.info("%s runs task %s again, which no handler has", self._name, record.task_id)
                record = again
                self._waiting += 1
                self._fill()
        if run is not None and task is not None and task.stream is not False:
            run.attempt.listening = True
        self._tell_status(record)

    def _tell_status(self, record: TaskRecord) -> None:
        run = self._runs.get(record.task_id)
        if run is not None:
            event = run.attempt.status()
        else:
            event = TaskEvent(task_id=record.task_id, status=record.state.value, attempt=record.attempt or None)
        self._answers.say(self._topics.task_events(record.task_id), encode(event), record.task_id)

    def _tell(self, record: TaskRecord, reply_to: str | None) -> None:
        """Answer somebody who does not say that the task is theirs: the requester's answer goes where it went."""
        if record.result is None:
            self._tell_status(record)
        else:
            topic = reply_to or self._topics.task_result(record.task_id)
            self._answers.say(topic, pydantic_core.to_json(record.result), record.task_id)

    # Words about tasks

    async def cancel(self, task_id: str, sender: str | None, reason: str | None) -> None:
        """Cancel a task for its requester, also one that has not come yet."""
        record = await self._store.get(self.key(task_id))
        message = f"cancelled by {sender or 'its requester'}" + (f": {reason}" if reason else "")
        result = result_of(task_id, self._name, sender, TaskState.CANCELED, TaskFault(type="canceled", message=message))
        if record is None:
            # It may have overtaken its task, which must find it.
            tombstone = TaskRecord(
                self.key(task_id), sender, {"task_id": task_id}, "", TaskState.CANCELED, result=result
            )
            record, _ = await self._store.add(tombstone)
        elif not record.state.terminal:
            changed = await self._store.change(record.key, OPEN, state=TaskState.CANCELED, result=result)
            run = self._runs.get(task_id)  # asked now: a handler may have begun with it a moment ago
            if changed is not None and run is not None:
                run.attempt.state = TaskState.CANCELED
                with contextlib.suppress(TaskCanceled):  # no event number is left, and none can be set aside any more
                    await run.attempt.tell_status()
                await self._end([run])
            elif changed is not None and changed.attempt == record.attempt and record.state is TaskState.SUBMITTED:
                self._waiting = max(0, self._waiting - 1)
            record = changed or await self._store.get(record.key) or record
        if record.result is not None:
            self._tasks.start(self._answers.send(record))

    async def take_input(self, task_id: str, input_id: str | None, answer: Any) -> bool:
        """Give an answer to the handler that asked, or keep it for when the handler runs again.

        Returns:
            Whether there was such a question.
        """
        run = self._runs.get(task_id)
        if run is not None and await run.attempt.take_input(input_id, answer):
            return True
        async with self._answering:  # two answers at once: the second must see the first
            record = await self._store.get(self.key(task_id))
            if record is None or record.state.terminal:
                return record is not None
            for question in record.inputs:
                if input_id in (None, question["input_id"]) and "answer" not in question and run is None:
                    question["answer"] = answer
                    await self._store.change(record.key, OPEN, expected_attempt=record.attempt, inputs=record.inputs)
                    return True
        return any(question["input_id"] == input_id for question in record.inputs)

    async def find(self, task_id: str) -> TaskRecord | None:
        """The record of a received task."""
        return await self._store.get(self.key(task_id))

    # Running

    def _fill(self) -> None:
        while self._executing and self._waiting > 0 and self._slots.take_now():
            self._waiting -= 1
            self._tasks.start(self._next())

    async def _next(self) -> None:
        try:
            record = await self._store.claim(self._agent)
        except StoreError as error:
            logger.error("%s cannot begin with the next task: %s", self._name, error)
            record = None
            await asyncio.sleep(_RETRY_FIRST)
            self._waiting = max(1, self._waiting)
        else:
            if record is None:  # cancelled meanwhile, or counted twice
                self._waiting = await self._store.count(self._agent, "received", (TaskState.SUBMITTED,))
        if record is None or not self._executing:
            self._slots.release()
        else:
            self._start(record, Task.model_validate(record.task))

    def _start(self, record: TaskRecord, task: Task) -> None:
        topic = self._topics.task_events(record.task_id)
        attempt = Attempt(
            record, self._store, lambda payload: self._connection.publish_soon(topic, payload), self._slots
        )
        run = self._runs[record.task_id] = Run(attempt, TaskContext(task, attempt))
        run.work = self._tasks.start(self._run(run, record, task))

    async def _run(self, run: Run, record: TaskRecord, task: Task) -> None:
        attempt, context = run.attempt, run.context
        expiry: asyncio.TimerHandle | None = None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = context.cancelled = True
            if run.work is not None:
                run.work.cancel()

        try:
            handler = self._router.find(task.type)
            if handler is None:
                what = f"takes no tasks of type {task.type!r}" if self._router else "takes no tasks"
                fault = TaskFault(type="rejected", code="no_handler", message=f"{self._name} {what}")
                await self._finish(run, record, TaskState.REJECTED, fault=fault)
                return
            if record.expires_at is not None:
                left = record.expires_at - time.time()
                if left <= 0:
                    await self._finish(run, record, TaskState.FAILED, fault=_expired(task))
                    return
                expiry = asyncio.get_running_loop().call_later(left, expire)
            try:
                await attempt.tell_status()
                value = to_json(await self._call(handler, context, attempt))
            except asyncio.CancelledError:
                if attempt.over or (self._stopping and not expired):
                    return  # cancelled by its requester, or left for the next start
                fault = _expired(task) if expired else TaskFault(type="CancelledError", message="the handler gave up")
                await self._finish(run, record, TaskState.FAILED, fault=fault)
            except Exception as error:
                if not attempt.over:
                    logger.info("task %s failed at %s", record.task_id, self._name, exc_info=error)
                    state, fault = failure(error)
                    await self._finish(run, record, state, fault=fault)
            else:
                await self._finish(run, record, TaskState.COMPLETED, value=value)
        finally:
            if expiry is not None:
                expiry.cancel()
            if self._runs.get(record.task_id) is run:
                del self._runs[record.task_id]
            attempt.over = True
            if attempt.has_slot:
                self._slots.release()

    async def _call(self, handler: TaskHandler, context: TaskContext, attempt: Attempt) -> Any:
        if self._router.is_async(handler):
            return await handler(context)
        thread = run_in_thread(lambda: handler(context.in_thread()), f"mqtt-agent-task-{context.id[:20]}")
        try:
            result = await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread cannot be stopped; its place is taken until it has seen `cancelled`.
            context.cancelled = True
            if attempt.has_slot:
                attempt.has_slot = False
                thread.add_done_callback(lambda _: self._slots.release())
            thread.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise
        return await result if inspect.isawaitable(result) else result

    async def _finish(
        self, run: Run, record: TaskRecord, state: TaskState, *, value: Any = None, fault: TaskFault | None = None
    ) -> None:
        attempt = run.attempt
        if attempt.over:
            return
        try:
            await self._persist(record, attempt.reserve)
        except TaskCanceled:
            return  # another attempt goes on with it, or it was cancelled
        result = result_of(
            record.task_id,
            self._name,
            record.peer,
            state,
            fault,
            value=value,
            artifacts=attempt.artifacts,
            elapsed_ms=round(run.context.elapsed * 1000, 3),
            seq=attempt.seq + 1 if attempt.listening else None,
        )
        topics = self._answers.topics(record.task_id, record.peer, record.reply_to)
        state, result = deliverable(self._connection, topics, state, result)
        reached("finished.before-commit")
        changed = await self._store_result(record, attempt, state, result)
        reached("finished.after-commit")
        if changed is not None:
            attempt.state = state
            await attempt.tell_status()
            self._tasks.start(self._answers.send(changed))
        attempt.over = True

    async def _store_result(
        self, record: TaskRecord, attempt: Attempt, state: TaskState, result: dict[str, Any]
    ) -> TaskRecord | None:
        return await self._persist(
            record,
            lambda: self._store.change(record.key, ACTIVE, expected_attempt=attempt.number, state=state, result=result),
        )

    async def _persist(self, record: TaskRecord, write: Callable[[], Awaitable[T]]) -> T:
        """Write what must not get lost, over and over until the store takes it or the agent stops."""
        wait = _RETRY_FIRST
        while True:
            try:
                return await write()
            except StoreError as error:
                if self._stopping:
                    raise
                logger.error("the result of task %s cannot be stored yet: %s", record.task_id, error)
                await asyncio.sleep(wait)
                wait = min(_RETRY_MAX, wait * 2)

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.error("%s could not go on with a task", self._name, exc_info=error)


def _expired(task: Task) -> TaskFault:
    return TaskFault(type="expired", message=f"not done by {task.expires_at}")
