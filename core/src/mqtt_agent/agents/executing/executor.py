"""Runs the handlers of received tasks, at most as many at once as there are slots."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Collection
from functools import partial

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.completion import Completion
from mqtt_agent.agents.executing.context import TaskContext
from mqtt_agent.agents.executing.expiry import ExpiryTimers
from mqtt_agent.agents.executing.questions import Questions
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.executing.router import Router
from mqtt_agent.agents.executing.run import Handlers, Run
from mqtt_agent.agents.executing.seats import Seats
from mqtt_agent.agents.executing.slots import Slot, Slots
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import ACTIVE, TaskKey, TaskRecord
from mqtt_agent.agents.store.base import VERIFIED
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.handlers import follow_threads
from mqtt_agent.logs import logger_of
from mqtt_agent.metering import Durations, Levels
from mqtt_agent.wire import Task, TaskState

__all__ = ["TaskExecutor"]

logger: logging.Logger = logger_of(__name__)

_CONFIRMED_WITHIN = 5.0
"""Seconds to wait until the broker has confirmed the last results of an agent that stops."""
_CANCELED_WITHIN = 2.0
"""Seconds to wait until a canceled handler has ended."""
_COUNTED_EVERY = 2.0
"""Seconds between two counts of all tasks that wait in a pool with ordered contexts."""
_durations = Durations(
    "messaging.process.duration",
    "How long the handler of a task ran, in one attempt at the task.",
    "gen_ai.agent.name",
    {"messaging.system": "mqtt", "messaging.operation.name": "execute_task", "messaging.operation.type": "process"},
)
_tasks: Levels[TaskExecutor] = Levels(
    "mqtt_agent.agent.tasks",
    "{task}",
    "The tasks that an agent has: running, or waiting for a free handler.",
    lambda executor: executor.levels(),
)


class TaskExecutor:
    """Runs the handlers of stored tasks. Each task is completed once, even when a process dies.

    Args:
        scope: The agent's shared values.
        router: The handlers.
        replies: Sends results to the requesters.
        background: Runs the handlers, and other work that nothing else awaits.
        max_concurrency: How many handlers run at once.
        max_attempts: How often the handler of a task may begin; None for no limit.

    Attributes:
        executing: Whether handlers may begin.
        waiting: How many stored tasks wait for a slot.
        backlog: How many stored tasks wait in a pool with ordered contexts, for a slot or for their turn. It
            is counted in the store every two seconds, and this member's own tasks are added between two counts.
        background: The running handlers, and other work that nothing else awaits. :meth:`drain` waits for this work.
    """

    def __init__(
        self,
        scope: Scope,
        router: Router,
        replies: Replies,
        background: BackgroundTasks,
        max_concurrency: int,
        max_attempts: int | None,
    ) -> None:
        self.executing: bool = False
        self.waiting: int = 0
        self.backlog: int = 0
        self._counted_at = -math.inf
        self.background: BackgroundTasks = background
        self._scope = scope
        self._pool = scope.pool
        self._handlers = Handlers(scope, router, max_attempts, lambda: not self.executing)
        self._replies = replies
        self._slots = Slots(max_concurrency, self._fill)
        self._seats = Seats(scope.agent_id)
        self._runs: dict[TaskKey, Run] = {}
        self._undecided: set[Slot] = set()
        self._completion = Completion(scope, replies, self.background)
        scope.retry.on_recovered.append(self._on_store_recovered)
        self._timers = ExpiryTimers(self._on_expired)
        _tasks.watch(self)

    def levels(self) -> list[tuple[int, dict[str, str]]]:
        """How many tasks run and wait, for the metrics."""
        counts, name = {"running": self.running, "waiting": self.waiting}, self._scope.agent_id
        return [(number, {"gen_ai.agent.name": name, "mqtt_agent.state": state}) for state, number in counts.items()]

    @property
    def running(self) -> int:
        """How many handlers are running, including handlers that wait for an answer."""
        return len(self._runs)

    @property
    def runs(self) -> dict[TaskKey, Run]:
        """The running handlers, by the keys of their tasks."""
        return dict(self._runs)

    async def find_run(self, key: TaskKey) -> Run | None:
        """The handler that works on a task; None when there is none. Waits for a handler that begins at this moment."""
        if key not in self._runs and self._undecided:
            # The task may be ``working`` in the store already, a moment before its handler begins.
            await asyncio.wait([slot.decided for slot in self._undecided])
        return self._runs.get(key)

    # Life

    async def begin(self) -> None:
        """Begin to run handlers. Tasks that an earlier process did not finish are run again."""
        again = await self._scope.store.reopen(self._scope.owner)
        if again:
            logger.info(
                "agent %s runs %d tasks again, because their handlers had not finished", self._scope.agent_id, again
            )
        self.waiting = await self._count_waiting()
        self.executing = True
        self.send_unsettled()
        what = "the list of the tasks that wait"
        self.background.start(self._scope.retry.until_stored(self._watch_waiting, what))
        self._fill()

    def send_unsettled(self) -> None:
        """Send the results of all tasks that are not settled, in the background."""
        what = "the list of the results to send"
        self.background.start(self._scope.retry.until_stored(self._replies.send_unsettled, what))

    async def drain(self, timeout: float) -> None:
        """Start no further task, and wait for running handlers.

        Handlers that still run after ``timeout`` seconds are canceled: the agent's next start runs their tasks again.
        """
        self._begin_nothing()
        running = [run.work for run in self._runs.values()]
        if running and timeout > 0:
            await asyncio.wait(running, timeout=timeout)
        await self.end(list(self._runs.values()), interrupted=True)
        # A result that the broker does not confirm in time is sent again at the next start.
        await self._finish_background(_CONFIRMED_WITHIN if self._scope.connection.connected else 0)
        self.background.cancel()
        for slot in tuple(self._undecided):
            self._decide(slot)

    async def _finish_background(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await self.background.wait(timeout)
        while len(self.background) and (left := until - loop.time()) > 0:  # a result that was sent is then settled
            await self.background.wait(left)

    async def abandon(self) -> None:
        """Start no further task, and cancel all handlers at once.

        Called when the agent must stop without waiting for its handlers, or when the connection has ended for good. The
        tasks run again at the agent's next start, or in a process that has taken over the session.
        """
        self._begin_nothing()
        await self.end(list(self._runs.values()), interrupted=True)

    def _begin_nothing(self) -> None:
        self.executing = False
        self._timers.stop()

    async def end(self, runs: Collection[Run], *, interrupted: bool = False) -> None:
        """Cancel handlers, and wait up to two seconds until they have ended.

        Args:
            runs: The handlers.
            interrupted: Whether the tasks will run again at the agent's next start.
        """
        for run in runs:
            run.context.interrupted = interrupted
            run.attempt.over = True
            run.cancel()
        if runs:
            await asyncio.wait([run.work for run in runs], timeout=_CANCELED_WITHIN)

    # Slots

    def take_slot(self) -> Slot | None:
        """Take a slot for a new task; None when the task must wait. :meth:`start` or :meth:`give_back` must follow."""
        return self._take_slot() if self.executing and self.waiting == 0 else None

    def _take_slot(self) -> Slot | None:
        slot = self._slots.take_now()
        if slot is not None:
            self._undecided.add(slot)
        return slot

    def _decide(self, slot: Slot) -> None:
        self._undecided.discard(slot)
        slot.decide()

    def give_back(self, slot: Slot) -> None:
        """Give back a slot in which no handler has begun."""
        self._decide(slot)
        slot.release()

    def enqueue(self, record: TaskRecord) -> None:
        """Add a stored task to the tasks that wait for a slot, and start it when a slot is free.

        Args:
            record: The task's record, in state ``submitted``.
        """
        self.waiting += 1
        self.backlog += 1
        if self.executing:
            self._timers.watch(record)
        self._fill()
        if self._pool is not None and self.waiting:
            self._pool.tell_waiting()

    def dequeue(self, key: TaskKey) -> None:
        """Note that a task which waited for a slot is over, because it was canceled or has expired."""
        self.waiting, self.backlog = max(0, self.waiting - 1), max(0, self.backlog - 1)
        self._timers.forget(key)

    async def _watch_waiting(self) -> None:
        """Set the timers of the tasks that an earlier process has left waiting."""
        async for outlines in self._scope.outlines("received", (TaskState.SUBMITTED,)):
            for outline in outlines:
                if self.executing and outline.expires_at is not None:
                    self._timers.watch(outline)

    def _on_expired(self, key: TaskKey) -> None:
        self.background.start(self._expire(key))

    async def _expire(self, key: TaskKey) -> None:
        read = partial(self._scope.store.get, key)
        record = await self._scope.retry.until_stored(read, f"the end of task {key.task_id:.80}, which has expired")
        if record is not None and await self._completion.expire(record):
            self.dequeue(key)

    def _fill(self) -> None:
        while self.executing and self.waiting > 0 and (slot := self._take_slot()) is not None:
            self.waiting -= 1
            self.background.start(self._start_next(slot))

    async def _start_next(self, slot: Slot) -> None:
        record: TaskRecord | None = None
        try:
            record = await self._scope.retry.until_stored(self._claim, "the start of the next task")
        finally:
            if record is None:
                self.give_back(slot)
        if record is not None:
            self.start(slot, record, Task.model_validate(record.task))

    async def _claim(self) -> TaskRecord | None:
        record = await self._scope.store.claim(self._scope.owner)
        if record is None:  # the task was canceled meanwhile, or was counted twice
            self.waiting = await self._count_waiting()
        else:
            self.backlog = max(0, self.backlog - 1)
        return record

    async def recount(self) -> None:
        """Count the tasks that wait, because other members of the pool add and begin tasks too, and begin some."""
        if self.executing:
            self.waiting = await self._count_waiting()
            self._fill()

    async def _count_waiting(self) -> int:
        store, owner = self._scope.store, self._scope.owner
        if self._pool is not None and self._pool.store.ordered:
            now = time.monotonic()
            if now - self._counted_at >= _COUNTED_EVERY:
                self._counted_at = now
                self.backlog = await store.count(owner, "received", (TaskState.SUBMITTED,))
            return await self._pool.store.count_in_turn(owner)
        return await self._scope.store.count(owner, "received", (TaskState.SUBMITTED,))

    async def run_again(self, record: TaskRecord) -> TaskRecord:
        """Run again a task that has begun according to the store, although no handler of this process works on it.

        This happens when the store began the task and the store's answer was lost, or when another process with this
        agent id began the task after the start of this process. A task whose handler has ended, and whose end can never
        be stored, is not run again.

        Returns:
            The task's record.
        """
        if self._completion.is_unstorable(record.key):
            return record
        again = await self._scope.store.change(
            record.key, ACTIVE, expected_attempt=record.attempt, state=TaskState.SUBMITTED
        )
        if again is None:
            return record
        logger.info("agent %s runs task %s again: no handler works on it", self._scope.agent_id, record.task_id)
        self.enqueue(again)
        return again

    def _on_store_recovered(self) -> None:
        if self._pool is not None:
            self._pool.look_soon()
        elif self.executing:
            what = "the list of the tasks that have begun"
            self.background.start(self._scope.retry.until_stored(self._find_lost, what))

    async def _find_lost(self) -> None:
        """Find the tasks that the store has added or begun, although the store reported a failure."""
        async for records in self._scope.records("received", ACTIVE):
            for record in records:
                if await self.find_run(record.key) is None and self.executing:
                    await self.run_again(record)
        self.waiting = await self._count_waiting()
        self._fill()

    # Running

    def start(self, slot: Slot, record: TaskRecord, task: Task) -> None:
        """Call the handler of a task in a slot, unless the agent has begun to stop.

        Args:
            slot: A slot from :meth:`take_slot`.
            record: The task's record, in state ``working``.
            task: The task.
        """
        if not self.executing:
            self.give_back(slot)
            return
        self._decide(slot)
        self._timers.forget(record.key)
        scope, topic = self._scope, self._replies.events_topic(record)
        send = partial(scope.connection.publish_soon, readers=record.readers)
        attempt = Attempt(record, scope.store, scope.retry, send, scope.agent_id, topic)
        attempt.shared = scope.pool is not None
        limit = scope.connection.max_payload
        max_result = limit if task.max_result is None else min(limit, task.max_result)
        bound = self._replies.is_bound(record.reply_to)
        verified = task.sender if record.task.get(VERIFIED) is True else None
        seat = self._seats.seat(task, proven=bound or verified is not None)
        questions = Questions(attempt, record.inputs, slot, seat)
        context = TaskContext(task, attempt, questions, max_result, bound, verified)
        run = Run(record, task, attempt, questions, context, slot)
        self._runs[record.key] = run
        # Not in a `finally` of the coroutine, which does not begin when it is canceled before its first step.
        run.work = self.background.start(self._run(run), on_end=partial(self._on_run_end, run))

    async def _run(self, run: Run) -> None:
        run.threads = follow_threads()
        begun = time.perf_counter()
        ending = await self._handlers.ending_of(run)
        if _durations.wanted:
            state = TaskState.CANCELED if ending is None else ending.state
            error = None if state is TaskState.COMPLETED else state.value
            _durations.record(time.perf_counter() - begun, self._scope.agent_id, error)
        if ending is not None:
            await self._completion.finish(run.record, run.attempt, run.context.elapsed, ending)

    def _on_run_end(self, run: Run) -> None:
        if self._runs.get(run.record.key) is run:
            del self._runs[run.record.key]
        run.attempt.over = True
        run.questions.close()
        run.slot.end(run.threads)
        if self._pool is not None:
            self._pool.on_run_end()
