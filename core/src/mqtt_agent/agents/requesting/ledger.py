"""The tasks that one agent has given away, as its store and this process know them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Collection
from typing import Any

from typing_extensions import Unpack

from mqtt_agent.agents.outcome import result_of
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.reminders import Reminders
from mqtt_agent.agents.store import OPEN, Changes, TaskKey, TaskRecord, TaskStore
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import MQTTAgentError
from mqtt_agent.wire import TaskFault, TaskResult, TaskState

__all__ = ["DelegatedTasks"]

logger: logging.Logger = logging.getLogger(__name__)

_CHUNK = 100
_NOTED_WITHIN = 0.2


class DelegatedTasks:
    """The records of the tasks that were given away, and the handles of those that are followed.

    Args:
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the records are.

    Attributes:
        handles: By task id.
        reminders: When to ask after those that are open.
        background: What is done for them that nobody awaits.
    """

    def __init__(self, agent: str, name: str, store: TaskStore) -> None:
        self.name = name
        self.handles: dict[str, TaskHandle] = {}
        self.reminders: Reminders = Reminders()
        self.background: BackgroundTasks = BackgroundTasks(self._on_failure)
        self._agent = agent
        self._store = store
        self._unnoted: dict[str, TaskHandle] = {}
        self._noting: asyncio.TimerHandle | None = None

    def key(self, task_id: str) -> TaskKey:
        """The name of a task's record."""
        return TaskKey(self._agent, "delegated", task_id)

    def get(self, task_id: str) -> Awaitable[TaskRecord | None]:
        """The record of a task."""
        return self._store.get(self.key(task_id))

    def add(self, record: TaskRecord) -> Awaitable[tuple[TaskRecord, bool]]:
        """See :meth:`TaskStore.add`."""
        return self._store.add(record)

    def change(self, task_id: str, **changes: Unpack[Changes]) -> Awaitable[TaskRecord | None]:
        """Change the record of a task that is open; None when it is not."""
        return self._store.change(self.key(task_id), OPEN, **changes)

    async def find(self, states: Collection[TaskState] | None) -> AsyncIterator[TaskRecord]:
        """The records of all tasks in these states, in the order in which they were delegated."""
        after = 0
        while True:
            records = await self._store.find(self._agent, "delegated", states=states, after=after, limit=_CHUNK)
            for record in records:
                yield record
            if not records:
                return
            after = records[-1].position

    def remember(self, record: TaskRecord, *, at_once: bool = False) -> None:
        """Have it asked after, at once or after a while."""
        self.reminders.add(record.task_id, record.peer or "", record.expires_at, at_once=at_once)

    def update(self, handle: TaskHandle, record: TaskRecord) -> None:
        """Let a handle know what the store knows."""
        handle.state, handle.saved = record.state, record.saved
        handle.answers = {given["input_id"]: given["answer"] for given in record.inputs}
        if record.result is not None:
            handle.settle(TaskResult.model_validate(record.result))

    def forget(self, task_id: str) -> None:
        """A handle is over: neither its result nor events can come any more."""
        self.handles.pop(task_id, None)
        self._unnoted.pop(task_id, None)
        self.reminders.drop(task_id)

    async def give_up(self, task_id: str, fault: TaskFault) -> None:
        """Store that a task has failed on this side."""
        result = result_of(task_id, self.name, self.name, TaskState.FAILED, fault)
        changed = await self.change(task_id, state=TaskState.FAILED, result=result, settled=True)
        self.reminders.drop(task_id)
        handle = self.handles.get(task_id)  # asked now: somebody may have begun to follow it meanwhile
        if changed is not None and handle is not None:
            handle.settle(TaskResult.model_validate(result))

    # Where they stand

    def note_soon(self, handle: TaskHandle) -> None:
        """Store the state of a task in a moment."""
        # Most tasks are over before: then the result is stored, and where they stood need not be.
        self._unnoted[handle.task_id] = handle
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(_NOTED_WITHIN, self._note_now)

    def _note_now(self) -> None:
        self.background.start(self.note_states())

    async def note_states(self) -> None:
        """Store now what :meth:`note_soon` was told."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        handles, self._unnoted = self._unnoted, {}
        await asyncio.gather(
            *(
                self.change(task_id, state=handle.state)
                for task_id, handle in handles.items()
                if not handle.state.terminal
            )
        )

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        if isinstance(error, MQTTAgentError):
            logger.warning("agent %s: %s", self.name, error)
        else:
            logger.error("agent %s could not go on with a task", self.name, exc_info=error)
