"""Calls the handler of a task, and finds out how the task ends."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.context import TaskContext
from mqtt_agent.agents.executing.questions import Questions
from mqtt_agent.agents.executing.router import Router, TaskHandler
from mqtt_agent.agents.executing.slots import Slot
from mqtt_agent.agents.outcome import Ending, ending_of_exception, ending_of_result, expired, given_up, is_answer
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.handlers import raised_by, run_for_handler
from mqtt_agent.display.failures import log_failure
from mqtt_agent.errors import TaskExpired
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import Task, TaskFault, TaskState

__all__ = ["Handlers", "Run"]

logger: logging.Logger = logger_of(__name__)


@dataclass
class Run:
    """A handler that works on a task.

    Attributes:
        record: The task's record, as it was when the attempt began.
        task: The task.
        attempt: The handler's attempt at the task.
        questions: The handler's questions to the requester.
        context: The argument of the handler.
        slot: The slot that the handler holds.
        expired: Whether the handler was canceled because its task has expired.
        threads: The futures of the threads in which code of the handler runs.
        work: The asyncio task that calls the handler.
    """

    record: TaskRecord
    task: Task
    attempt: Attempt
    questions: Questions
    context: TaskContext
    slot: Slot
    expired: bool = False
    threads: Collection[asyncio.Future[Any]] = ()
    work: asyncio.Task[None] = field(init=False)

    def cancel(self) -> None:
        """Cancel the handler."""
        self.context.canceled = True
        self.work.cancel()
        self.questions.close()  # a handler in a thread may wait for an answer, and a thread cannot be canceled

    def expire(self) -> None:
        """Cancel the handler, because its task has expired."""
        self.expired = True
        self.cancel()


class Handlers:
    """Calls the handlers of tasks.

    Args:
        scope: The agent's shared values.
        router: The handlers.
        max_attempts: How often the handler of a task may begin; None for no limit.
        is_stopping: Whether the agent stops, so that a handler which is canceled will run again.
    """

    def __init__(self, scope: Scope, router: Router, max_attempts: int | None, is_stopping: Callable[[], bool]) -> None:
        self._scope = scope
        self._max_attempts = max_attempts
        self._router = router
        self._is_stopping = is_stopping

    async def ending_of(self, run: Run) -> Ending | None:
        """Call the handler of a task.

        Args:
            run: The run, which has not begun.

        Returns:
            How the task ends; None when the task was canceled, or will run again.
        """
        handler = self._router.find(run.task.type)
        if handler is None:
            return self._no_handler(run.task)
        left = None if run.record.expires_at is None else run.record.expires_at - time.time()
        if left is not None and left <= 0:
            return expired(run.task)
        if self._max_attempts is not None and run.attempt.number > self._max_attempts:
            ending = given_up(run.attempt.number - 1, self._scope.agent_id)
            logger.error("task %.80s failed: %s", run.record.task_id, ending.fault and ending.fault.message)
            return ending
        timer = None if left is None else asyncio.get_running_loop().call_later(left, run.expire)
        try:
            await run.attempt.begin()
            value = await self._call(handler, run)
            return ending_of_result(value, f"task {run.record.task_id} at {self._scope.agent_id}")
        except asyncio.CancelledError:
            if run.attempt.over or (self._is_stopping() and not run.expired):
                return None
            if run.expired:
                self._log_failure(run, TaskExpired(f"not finished by {run.task.expires_at}"), handler)
                return expired(run.task)
            fault = TaskFault(type="CancelledError", message="the handler raised CancelledError")
            self._log_failure(run, asyncio.CancelledError(fault.message), handler)
            return Ending(TaskState.FAILED, fault=fault)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # each exception ends the task, also a panic of Rust code
            error = raised_by(raised)
            if run.attempt.over or self._scope.retry.gave_up(error):
                return None
            if run.expired:
                self._log_failure(run, TaskExpired(f"not finished by {run.task.expires_at}"), handler)
                return expired(run.task)
            self._log_failure(run, error, handler)
            return ending_of_exception(error)
        finally:
            run.attempt.drop_held()
            if timer is not None:
                timer.cancel()

    def _log_failure(self, run: Run, error: BaseException, handler: TaskHandler) -> None:
        log_failure(
            logger,
            f"task {run.record.task_id:.80} from {run.record.peer or 'an unknown agent':.80} "
            f"failed at agent {self._scope.agent_id}",
            error,
            on_purpose=is_answer(error),
            handler=handler,
        )

    def _no_handler(self, task: Task) -> Ending:
        what = f"takes no tasks of type {task.type!r}" if self._router else "takes no tasks"
        fault = TaskFault(type="rejected", code="no_handler", message=f"{self._scope.agent_id} {what}")
        return Ending(TaskState.REJECTED, fault=fault)

    async def _call(self, handler: TaskHandler, run: Run) -> Any:
        context = run.context
        if self._router.is_async(handler):
            return await handler(context)
        name = f"mqtt-agent-task-{context.id[:20]}"
        try:
            result = await run_for_handler(lambda: handler(context.in_thread()), name)
        except asyncio.CancelledError:
            context.canceled = True
            raise
        return await result if inspect.isawaitable(result) else result
