"""Takes results at their requester: a result is stored, then its message is acknowledged. Takes events of tasks too."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.outcome import with_message
from mqtt_agent.agents.requesting.inputs import Inputs
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.resender import Resender
from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import StoreError, WireError
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import TaskEvent, TaskFault, TaskResult, decode, encode, is_identifier, read_result_state

__all__ = ["Results"]

logger: logging.Logger = logging.getLogger(__name__)


class Results:
    """Takes the results and events of delegated tasks.

    Args:
        scope: The agent's shared values.
        tasks: The delegated tasks.
        resender: Gets the ids of tasks for which a result or an event has arrived.
        inputs: Gets the questions of the peers.
    """

    def __init__(self, scope: Scope, tasks: DelegatedTasks, resender: Resender, inputs: Inputs) -> None:
        self._scope = scope
        self._tasks = tasks
        self._resender = resender
        self._inputs = inputs
        self._faults = FaultLog(logger)

    def on_result(self, message: InboundMessage) -> None:
        """Take a result. The message is acknowledged when the result is stored, or when the message is refused."""
        try:
            result = decode(TaskResult, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable result", error)
            message.hold()
            take = partial(self._take_unreadable, message, str(error))
            self._tasks.background.start(self._take(message, take, "an unreadable result"))
            return
        problem = self._problem(result, message)
        if problem is not None:
            self._faults.tell(message.topic, *problem)
            message.acknowledge()
            return
        message.hold()
        take = partial(self._take_result, result, message)
        self._tasks.background.start(self._take(message, take, f"the result of task {result.task_id:.80}"))

    def _problem(self, result: TaskResult, message: InboundMessage) -> tuple[str, str] | None:
        """What is wrong with a result message, and the wrong value; None when the message is valid."""
        if message.retain or not is_identifier(result.task_id):
            return "a result that is retained, or has an impossible task id", repr(result.task_id)
        if not read_result_state(result).terminal:
            return "a result of a task that is not over", str(result.status)
        if result.to not in (None, self._scope.agent_id):
            return "a result for another agent", repr(result.to)
        return None

    async def _take(self, message: InboundMessage, take: Callable[[], Awaitable[None]], what: str) -> None:
        try:
            await self._scope.retry.until_stored(take, what)
        except StoreError as error:
            if error.permanent:  # a repeat would fail too, and without its PUBACK the broker sends nothing more
                message.acknowledge()
            raise

    async def _take_unreadable(self, message: InboundMessage, problem: str) -> None:
        # The task fails. Otherwise it would be sent again, and each time its peer would send the same result.
        task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id) and not message.retain:
            await self._tasks.give_up(task_id, TaskFault(type="unreadable_result", message=problem))
        message.acknowledge()

    async def _take_result(self, result: TaskResult, message: InboundMessage) -> None:
        if not await self._is_expected(result, message):
            message.acknowledge()
            return
        tasks, task_id = self._tasks, result.task_id
        handle = tasks.handles.get(task_id)
        plain: dict[str, Any] = pydantic_core.from_json(encode(result))
        reached("outcome.before-commit")
        try:
            changed = await tasks.change(task_id, state=read_result_state(result), result=plain, settled=True)
        except StoreError as error:
            if error.permanent and handle is not None:  # the caller must not wait for a result that is never stored
                handle.fail(with_message(error, f"task {task_id}: its result arrived, but was not stored: {error}"))
            raise
        reached("outcome.after-commit")
        message.acknowledge()
        tasks.reminders.drop(task_id)
        self._resender.answered(task_id)
        handle = tasks.handles.get(task_id) or handle  # a handle may have been made meanwhile
        if handle is None:
            return
        if changed is None:  # the task was over already: the stored result stays
            stored = await tasks.get(task_id)
            if stored is None or stored.result is None:
                return
            result = TaskResult.model_validate(stored.result)
        handle.settle(result)

    async def _is_expected(self, result: TaskResult, message: InboundMessage) -> bool:
        """Whether a result belongs to an open task, and comes from the peer of the task."""
        handle = self._tasks.handles.get(result.task_id)
        if handle is not None:
            peer: str | None = handle.peer
        else:
            record = await self._tasks.get(result.task_id)
            if record is None:
                self._faults.tell(message.topic, "a result of a task that was not delegated", result.task_id)
                return False
            if record.state.terminal:
                return False
            peer = record.peer
        if result.sender not in (None, peer):
            self._faults.tell(message.topic, "a result from another agent than the task's", repr(result.sender))
            return False
        return True

    def on_event(self, message: InboundMessage) -> None:
        """Take an event, and give it to the task's handle."""
        try:
            event = decode(TaskEvent, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable event", error)
            return
        handle = self._tasks.handles.get(event.task_id)
        if handle is None or message.topic != self._scope.topics.task_events(event.task_id):
            return
        self._tasks.reminders.put_off(event.task_id)
        self._resender.answered(event.task_id)
        before = handle.state
        news = handle.take_event(event)
        if not handle.state.terminal and handle.state is not before:
            self._tasks.store_state_soon(handle)
        if news and handle.question is event:
            self._inputs.on_question(handle, event)
