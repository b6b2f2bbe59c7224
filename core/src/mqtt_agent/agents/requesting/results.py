"""What peers tell of the tasks that they were given: results and events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.requesting.inputs import Inputs
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.resender import Resender
from mqtt_agent.agents.store.patience import Patience
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import WireError
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import (
    TaskEvent,
    TaskFault,
    TaskResult,
    Topics,
    decode,
    encode,
    is_identifier,
    read_result_state,
)

__all__ = ["Incoming"]

logger: logging.Logger = logging.getLogger(__name__)


class Incoming:
    """Takes results into the store, and events to the handles.

    Args:
        topics: The namespace.
        tasks: The tasks that are given away.
        resender: Waits for signs of those that it has sent again.
        inputs: Gets the questions.
        max_payload: Bytes of the largest result that is read.
    """

    def __init__(
        self, topics: Topics, tasks: DelegatedTasks, resender: Resender, inputs: Inputs, max_payload: int
    ) -> None:
        self._topics = topics
        self._tasks = tasks
        self._resender = resender
        self._inputs = inputs
        self._max_payload = max_payload
        self._patience = Patience()
        self._faults = FaultLog(logger)

    def on_result(self, message: InboundMessage) -> None:
        """A result came; it is acknowledged when it is stored."""
        try:
            result = decode(TaskResult, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable result", error)
            self._take_patiently(partial(self._take_unreadable, message, str(error)), "an unreadable result")
            return
        if message.retain or not is_identifier(result.task_id):
            self._faults.tell(message.topic, "a result that cannot be one", repr(result.task_id))
            message.acknowledge()
        elif not read_result_state(result).terminal:
            self._faults.tell(message.topic, "a result of a task that is not over", result.status)
            message.acknowledge()
        elif result.to not in (None, self._tasks.name):
            self._faults.tell(message.topic, "a result for somebody else", repr(result.to))
            message.acknowledge()
        else:
            message.hold()
            self._take_patiently(partial(self._take_result, result, message), f"the result of task {result.task_id}")

    def _take_patiently(self, take: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
        self._tasks.background.start(self._patience.stored(take, what))

    async def _take_unreadable(self, message: InboundMessage, problem: str) -> None:
        """It would come again, as unreadable, whenever its task is asked after."""
        task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id) and not message.retain:
            await self._tasks.give_up(task_id, TaskFault(type="unreadable_result", message=problem))
        message.acknowledge()

    async def _take_result(self, result: TaskResult, message: InboundMessage) -> None:
        tasks, task_id = self._tasks, result.task_id
        handle = tasks.handles.get(task_id)
        peer = handle.peer if handle is not None else None
        if handle is None:
            record = await tasks.get(task_id)
            peer = record.peer if record is not None else None
            if record is None or record.state.terminal:
                if record is None:
                    self._faults.tell(message.topic, "a result of a task that nobody gave away", task_id)
                message.acknowledge()
                return
        if result.sender not in (None, peer):
            self._faults.tell(message.topic, "a result from another agent than the task went to", repr(result.sender))
            message.acknowledge()
            return
        plain: dict[str, Any] = pydantic_core.from_json(encode(result))
        reached("outcome.before-commit")
        changed = await tasks.change(task_id, state=read_result_state(result), result=plain, settled=True)
        reached("outcome.after-commit")
        message.acknowledge()
        tasks.reminders.drop(task_id)
        self._resender.answered(task_id)
        handle = tasks.handles.get(task_id) or handle  # somebody may have begun to follow it meanwhile
        if handle is not None:
            if changed is None:
                stored = await tasks.get(task_id)
                if stored is None or stored.result is None:
                    return
                result = TaskResult.model_validate(stored.result)
            handle.settle(result)

    def on_event(self, message: InboundMessage) -> None:
        """An event came."""
        try:
            event = decode(TaskEvent, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable event", error)
            return
        handle = self._tasks.handles.get(event.task_id)
        if handle is None or message.topic != self._topics.task_events(event.task_id):
            return
        self._tasks.reminders.put_off(event.task_id)  # its peer has it
        self._resender.answered(event.task_id)
        before = handle.state
        news = handle.take_event(event)
        if not handle.state.terminal and handle.state is not before:
            self._tasks.note_soon(handle)
        if news and handle.question is event:
            self._inputs.on_question(handle, event)
