"""Running the handlers of the tasks that an agent receives."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.completion import Completion
from mqtt_agent.agents.executing.context import TaskContext
from mqtt_agent.agents.executing.replies import Answers
from mqtt_agent.agents.executing.router import Router, TaskHandler
from mqtt_agent.agents.executing.slots import Slots
from mqtt_agent.agents.outcome import failure
from mqtt_agent.agents.store import TaskRecord, TaskStore
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.handlers import run_in_thread
from mqtt_agent.errors import StoreError
from mqtt_agent.transport import Connection
from mqtt_agent.wire import Task, TaskFault, TaskState, Topics, to_json

__all__ = ["TaskExecutor"]

logger: logging.Logger = logging.getLogger(__name__)

_CLAIM_AGAIN_AFTER = 0.5
_CONFIRMED_WITHIN = 5.0


Place: TypeAlias = "asyncio.Future[None]"
"""One of the handlers that may run at once, taken for a task; done when the handler runs, or will not."""


@dataclass
class Run:
    """A handler at work on a task.

    Attributes:
        attempt: Its hold on the task.
        context: What the handler has been given.
        work: What can be canceled.
    """

    attempt: Attempt
    context: TaskContext
    work: asyncio.Task[None] | None = None


class TaskExecutor:
    """Runs the handlers of stored tasks, so many at a time, each once to completion, whatever dies on the way.

    Args:
        connection: Where results and events go out.
        topics: The namespace.
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the tasks are kept.
        router: Their handlers.
        answers: Takes results to the requesters.
        max_concurrent: How many handlers run at once.

    Attributes:
        executing: Whether handlers may begin.
        waiting: How many stored tasks wait for a handler.
        background: What is done for tasks that nobody awaits; :meth:`drain` waits for it.
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
    ) -> None:
        self.executing: bool = False
        self.waiting: int = 0
        self.background: BackgroundTasks = BackgroundTasks(self._on_failure)
        self._connection = connection
        self._topics = topics
        self._agent = agent
        self._name = name
        self._store = store
        self._router = router
        self._answers = answers
        self._slots = Slots(max_concurrent, self._fill)
        self._runs: dict[str, Run] = {}
        self._starting: set[Place] = set()
        self._completion = Completion(connection, name, store, answers, self.background)

    @property
    def running(self) -> int:
        """How many handlers are at work, those that wait for an answer included."""
        return len(self._runs)

    async def find_run(self, task_id: str) -> Run | None:
        """The handler at work on a task, or about to be, if there is one."""
        if task_id not in self._runs and self._starting:
            # The store may have it as begun already, and what the store knows is not known here before the next turn.
            await asyncio.wait(tuple(self._starting))
        return self._runs.get(task_id)

    # Life

    async def begin(self) -> None:
        """Take up what an earlier process left, and begin to run handlers."""
        again = await self._store.reopen(self._agent)
        if again:
            logger.info("%s runs %d tasks again that it had begun with", self._name, again)
        self.waiting = await self._store.count(self._agent, "received", (TaskState.SUBMITTED,))
        self.executing = True
        self._completion.begin()
        self.background.start(self._answers.send_unsettled())
        self._fill()

    async def drain(self, timeout: float) -> None:
        """Begin with nothing more, wait for the handlers that run, and leave the others for the next start."""
        self._begin_nothing()
        running = [run.work for run in self._runs.values() if run.work is not None]
        if running and timeout > 0:
            await asyncio.wait(running, timeout=timeout)
        await self.end(list(self._runs.values()), interrupted=True)
        # What the broker does not confirm soon is sent at the next start.
        await self.background.wait(_CONFIRMED_WITHIN if self._connection.connected else 0)
        self.background.cancel()
        for place in tuple(self._starting):
            self._settle(place)

    async def abandon(self) -> None:
        """Stop all handlers at once: another process has taken over."""
        self._begin_nothing()
        await self.end(list(self._runs.values()), interrupted=True)

    def _begin_nothing(self) -> None:
        self.executing = False
        self._completion.end()

    async def end(self, runs: list[Run], *, interrupted: bool = False) -> None:
        """Cancel handlers, and wait a moment until they have seen it."""
        for run in runs:
            run.context.interrupted = interrupted
            run.attempt.over = run.context.canceled = True
            if run.work is not None:
                run.work.cancel()
        works = [run.work for run in runs if run.work is not None]
        if works:
            await asyncio.wait(works, timeout=2)

    # Running

    def take_place(self) -> Place | None:
        """Take a place for a new task, if one is free; :meth:`start` or :meth:`give_back` must follow."""
        if self.executing and self.waiting == 0 and self._slots.take_now():
            return self._new_place()
        return None

    def _new_place(self) -> Place:
        place: Place = asyncio.get_running_loop().create_future()
        self._starting.add(place)
        return place

    def _settle(self, place: Place) -> None:
        self._starting.discard(place)
        if not place.done():
            place.set_result(None)

    def give_back(self, place: Place) -> None:
        """Do without a place that was taken."""
        self._settle(place)
        self._slots.release()

    def enqueue(self) -> None:
        """One more stored task waits for its handler."""
        self.waiting += 1
        self._fill()

    def _fill(self) -> None:
        while self.executing and self.waiting > 0 and self._slots.take_now():
            self.waiting -= 1
            self.background.start(self._next(self._new_place()))

    async def _next(self, place: Place) -> None:
        try:
            record = await self._store.claim(self._agent)
        except StoreError as error:
            logger.error("%s cannot begin with the next task: %s", self._name, error)
            record = None
            await asyncio.sleep(_CLAIM_AGAIN_AFTER)
            self.waiting = max(1, self.waiting)
        else:
            if record is None:  # canceled meanwhile, or counted twice
                self.waiting = await self._store.count(self._agent, "received", (TaskState.SUBMITTED,))
        if record is None:
            self.give_back(place)
        else:
            self.start(place, record, Task.model_validate(record.task))

    def start(self, place: Place, record: TaskRecord, task: Task) -> None:
        """Call the handler of a task in its place."""
        if not self.executing:  # stopping began meanwhile: the next start does it
            self.give_back(place)
            return
        self._settle(place)
        topic = self._topics.task_events(record.task_id)
        attempt = Attempt(
            record, self._store, lambda payload: self._connection.publish_soon(topic, payload), self._slots
        )
        run = self._runs[record.task_id] = Run(attempt, TaskContext(task, attempt))
        run.work = self.background.start(self._run(run, record, task))

    async def _run(self, run: Run, record: TaskRecord, task: Task) -> None:
        attempt, context = run.attempt, run.context
        expiry: asyncio.TimerHandle | None = None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = context.canceled = True
            if run.work is not None:
                run.work.cancel()

        def finish(state: TaskState, *, value: Any = None, fault: TaskFault | None = None) -> Coroutine[Any, Any, None]:
            return self._completion.finish(record, attempt, context.elapsed, state, value=value, fault=fault)

        try:
            handler = self._router.find(task.type)
            if handler is None:
                what = f"takes no tasks of type {task.type!r}" if self._router else "takes no tasks"
                fault = TaskFault(type="rejected", code="no_handler", message=f"{self._name} {what}")
                await finish(TaskState.REJECTED, fault=fault)
                return
            if record.expires_at is not None:
                left = record.expires_at - time.time()
                if left <= 0:
                    await finish(TaskState.FAILED, fault=_expired(task))
                    return
                expiry = asyncio.get_running_loop().call_later(left, expire)
            try:
                await attempt.tell_status()
                value = to_json(await self._call(handler, context, attempt))
            except asyncio.CancelledError:
                if attempt.over or (not self.executing and not expired):
                    return  # canceled by its requester, or left for the next start
                fault = _expired(task) if expired else TaskFault(type="CancelledError", message="the handler gave up")
                await finish(TaskState.FAILED, fault=fault)
            except Exception as error:
                if not attempt.over:
                    logger.info("task %s failed at %s", record.task_id, self._name, exc_info=error)
                    state, fault = failure(error)
                    await finish(state, fault=fault)
            else:
                await finish(TaskState.COMPLETED, value=value)
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
            # A thread cannot be stopped; its place is taken until it has seen `canceled`.
            context.canceled = True
            if attempt.has_slot:
                attempt.has_slot = False
                thread.add_done_callback(lambda _: self._slots.release())
            thread.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise
        return await result if inspect.isawaitable(result) else result

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.error("%s could not go on with a task", self._name, exc_info=error)


def _expired(task: Task) -> TaskFault:
    return TaskFault(type="expired", message=f"not done by {task.expires_at}")
