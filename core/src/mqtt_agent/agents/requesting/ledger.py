"""The tasks that an agent has delegated: their records in the store, and their handles in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection
from itertools import islice
from typing import Any

from typing_extensions import Unpack

from mqtt_agent.agents.outcome import Ending, result_of
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.reminders import Reminders
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import OPEN, Changes, Outline, TaskKey, TaskRecord
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import MQTTAgentError, StoreError
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import Task, TaskFault, TaskResult, TaskState

__all__ = ["DelegatedTasks"]

logger: logging.Logger = logger_of(__name__)

_STORED_WITHIN = 0.2
"""Seconds until the state of a task is stored, unless the task has ended by then."""
_STORED_AT_ONCE = 500
"""How many states are stored together. The store writes them in one commit, and the event loop goes on meanwhile."""


class DelegatedTasks:
    """The tasks that an agent has delegated.

    Args:
        scope: The agent's shared values.

    Attributes:
        scope: The agent's shared values.
        handles: The handles of the followed tasks, by task id.
        reminders: Decides when each open task is sent again.
        background: The asyncio tasks that work for delegated tasks in the background.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope: Scope = scope
        self.handles: dict[str, TaskHandle] = {}
        self.reminders: Reminders = Reminders()
        self.background: BackgroundTasks = BackgroundTasks(self._on_failure)
        self._unstored: dict[str, TaskState] = {}
        self._bare = Task(task_id="-", sender=scope.agent_id).digest
        self._storing: asyncio.TimerHandle | None = None

    # Records

    def key(self, task_id: str) -> TaskKey:
        """The key of a task's record."""
        return self.scope.key("delegated", task_id)

    def get(self, task_id: str) -> Awaitable[TaskRecord | None]:
        """The record of a task; None when the store does not know the task."""
        return self.scope.store.get(self.key(task_id))

    def add(self, record: TaskRecord) -> Awaitable[tuple[TaskRecord, bool]]:
        """See :meth:`TaskStore.add`."""
        return self.scope.store.add(record)

    def change(self, task_id: str, **changes: Unpack[Changes]) -> Awaitable[TaskRecord | None]:
        """Change the record of an open task. Returns None, and changes nothing, when the task is not open."""
        return self.scope.store.change(self.key(task_id), OPEN, **changes)

    async def find(self, states: Collection[TaskState] | None) -> AsyncIterator[TaskRecord]:
        """The records of all tasks in these states, in the order in which the tasks were delegated."""
        async for records in self.scope.records("delegated", states):
            for record in records:
                yield record

    # Reminders and handles

    def schedule(self, record: TaskRecord | Outline, *, at_once: bool = False) -> None:
        """Ask for an open task again, at once or after 10 s."""
        self.reminders.add(
            record.task_id,
            record.peer or "",
            record.expires_at,
            at_once=at_once,
            bound=record.reply_to is not None,
            state=record.state,
            whole=self.is_bare(record),
            canceled=record.cancel_requested,
        )

    def is_bare(self, record: TaskRecord | Outline) -> bool:
        """Whether this agent knows only the id of a task, and no content."""
        return record.digest == self._bare

    def update(self, handle: TaskHandle, record: TaskRecord) -> None:
        """Copy what the store knows of a task to the task's handle."""
        handle.state, handle.saved, handle.bound = record.state, record.saved, record.reply_to is not None
        handle.answers = {given["input_id"]: given["answer"] for given in record.inputs}
        if record.result is not None:
            handle.settle(TaskResult.model_validate(record.result), stored=True)

    def forget(self, task_id: str) -> None:
        """Drop the handle of a task, because neither a result nor events can arrive any more."""
        self.handles.pop(task_id, None)
        self._unstored.pop(task_id, None)
        self.reminders.drop(task_id)

    async def give_up(self, task_id: str, fault: TaskFault) -> None:
        """Store that a task has failed at its requester, without a result from the peer.

        Args:
            task_id: The task's id.
            fault: Why the task has failed.
        """
        result = result_of(task_id, self.scope.agent_id, self.scope.agent_id, Ending(TaskState.FAILED, fault=fault))
        changed = await self.change(task_id, state=TaskState.FAILED, result=result, settled=True)
        self.reminders.drop(task_id)
        handle = self.handles.get(task_id)  # looked up after the change: a handle may have been made meanwhile
        # When the task is over already, the stored result counts. An earlier try may have stored it.
        stored = changed or await self.get(task_id)
        if stored is not None and handle is not None:
            self.update(handle, stored)

    # States

    def store_state_soon(self, task_id: str, state: TaskState) -> None:
        """Store the state of a task after 0.2 s.

        Most tasks end earlier. Then only the result is stored, and the store has less to write.
        """
        self._unstored[task_id] = state
        entry = self.reminders.get(task_id)
        if entry is not None:
            entry.state = state
        if self._storing is None:
            self._storing = asyncio.get_running_loop().call_later(_STORED_WITHIN, self._store_now)

    def _store_now(self) -> None:
        self.background.start(self.scope.retry.until_stored(self.store_states, "the states of tasks"))

    async def store_states(self) -> None:
        """Store the states of all tasks for which :meth:`store_state_soon` was called."""
        if self._storing is not None:
            self._storing.cancel()
            self._storing = None
        while self._unstored:
            some = [(task_id, self._unstored.pop(task_id)) for task_id in list(islice(self._unstored, _STORED_AT_ONCE))]
            await self._store_some([(task_id, state) for task_id, state in some if not self._has_ended(task_id)])

    def _has_ended(self, task_id: str) -> bool:
        handle = self.handles.get(task_id)
        return handle is not None and handle.state.terminal

    async def _store_some(self, states: list[tuple[str, TaskState]]) -> None:
        answers = await asyncio.gather(
            *(self.change(task_id, state=state) for task_id, state in states), return_exceptions=True
        )
        for (task_id, state), error in zip(states, answers, strict=True):
            if isinstance(error, StoreError) and error.permanent:  # one such task must not stop the other tasks
                logger.warning("the state of task %.80s was not stored: %s", task_id, error)
            elif isinstance(error, StoreError):
                self._unstored.setdefault(task_id, state)
        for error in answers:
            if isinstance(error, BaseException) and not (isinstance(error, StoreError) and error.permanent):
                raise error

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        if self.scope.retry.gave_up(error):
            return  # StoreRetry has logged this once for all tasks, and the next start does this work
        if isinstance(error, MQTTAgentError):
            logger.warning("agent %s could not continue a delegated task: %s", self.scope.agent_id, error)
        else:
            logger.error("agent %s could not continue a delegated task", self.scope.agent_id, exc_info=error)
