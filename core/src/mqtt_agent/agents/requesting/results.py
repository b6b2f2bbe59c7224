"""Takes results at their requester: a result is stored, then its message is acknowledged. Takes events of tasks too."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import pydantic_core

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.outcome import with_message
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.inputs import Inputs
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.reminders import OpenTask
from mqtt_agent.agents.requesting.repeats import Repeats
from mqtt_agent.agents.requesting.resender import Resender
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import StoreError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import (
    ASKING,
    TaskEvent,
    TaskFault,
    TaskResult,
    TaskState,
    decode,
    encode,
    is_identifier,
    read_result_state,
)
from mqtt_agent.wire.agents import ASK
from mqtt_agent.wire.messages import footprint
from mqtt_agent.wire.tasks import unknown_tasks

__all__ = ["Results"]

logger: logging.Logger = logger_of(__name__)

_UNREADABLE = 3
"""How many unreadable results on plain topics end a task."""


class _Given(NamedTuple):
    """To whom a task was given.

    Attributes:
        peer: The agent that has the task.
        bound: Whether the task was given on a sender-bound topic.
        over: Whether the task is over.
    """

    peer: str
    bound: bool
    over: bool = False


class Results:
    """Takes the results and events of delegated tasks.

    Args:
        scope: The agent's shared values.
        tasks: The delegated tasks.
        resender: Gets the ids of tasks for which a result or an event has arrived.
        inputs: Gets the questions of the peers.
        peers: The other agents of the namespace.

    Attributes:
        handle_of: Makes a handle of a record, for a task that nobody follows in this process.
    """

    def __init__(self, scope: Scope, tasks: DelegatedTasks, resender: Resender, inputs: Inputs, peers: Peers) -> None:
        self._scope = scope
        self._tasks = tasks
        self._resender = resender
        self._inputs = inputs
        self._peers = peers
        self._unreadable: Counter[str] = Counter()  # by task: the unreadable results on plain topics
        self._repeats = Repeats()  # of the tasks for which another member of the pool asks
        self._faults = FaultLog(logger)
        self.handle_of: Callable[[TaskRecord], TaskHandle]

    def on_result(self, message: InboundMessage) -> None:
        """Take a result. The message is acknowledged when the result is stored, or when the message is refused."""
        writer = self._scope.topics.bound.writer(message.topic)
        try:
            result = decode(TaskResult, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable result", error)
            message.hold()
            take = partial(self._take_unreadable, message, str(error), writer)
            self._tasks.background.start(self._take(message, take, "an unreadable result"))
            return
        problem = self._problem(result, message, writer)
        if problem is not None:
            self._faults.refuse(message, *problem)
            message.acknowledge()
            return
        message.hold()
        unknown = unknown_tasks(result)
        if unknown:
            take = partial(self._take_unknown, unknown, result, message, writer)
        else:
            take = partial(self._take_result, result, message, writer)
        self._tasks.background.start(self._take(message, take, f"the result of task {result.task_id:.80}"))

    def _problem(self, result: TaskResult, message: InboundMessage, writer: str | None) -> tuple[str, str] | None:
        """What is wrong with a result message, and the wrong value; None when the message is valid."""
        if writer is not None and result.sender not in (None, writer):
            return "a result in the name of another agent", repr(result.sender)
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

    async def _take_unreadable(self, message: InboundMessage, problem: str, writer: str | None) -> None:
        # The task fails. Otherwise it would be sent again, and each time its peer would send the same result.
        task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id) and not message.retain and await self._is_last_chance(task_id, writer):
            await self._tasks.give_up(task_id, TaskFault(type="unreadable_result", message=problem))
            self._unreadable.pop(task_id, None)
        message.acknowledge()

    async def _is_last_chance(self, task_id: str, writer: str | None) -> bool:
        """Whether an unreadable result ends its task.

        Nothing proves who has sent a message on a plain topic. So the peer is asked again, and the third unreadable
        answer ends the task.
        """
        given = await self._given(task_id)
        if given is None or given.over or writer not in (None, given.peer) or (writer is None and given.bound):
            return False
        if writer is not None:
            return True
        self._unreadable[task_id] += 1
        self._tasks.reminders.soon(task_id)
        return self._unreadable[task_id] >= _UNREADABLE

    async def _take_result(self, result: TaskResult, message: InboundMessage, writer: str | None) -> None:
        if not await self._is_expected(result, message, writer):
            message.acknowledge()
            return
        tasks, task_id = self._tasks, result.task_id
        if await self._is_only_unknown(result):
            entry = tasks.reminders.get(task_id)
            if entry is not None or self._repeats.may(task_id, asyncio.get_running_loop().time()):
                await self._send_whole(task_id, entry)
            message.acknowledge()
            return
        self._unreadable.pop(task_id, None)
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
        if changed is not None and self._scope.pool is not None:
            self._scope.pool.tell_ended(task_id)  # another member may wait for the result
        handle = tasks.handles.get(task_id) or handle  # a handle may have been made meanwhile
        if handle is None:
            return
        if changed is None:  # the task was over already: the stored result stays
            stored = await tasks.get(task_id)
            if stored is None or stored.result is None:
                return
            result = TaskResult.model_validate(stored.result)
        handle.settle(result)

    async def _take_unknown(
        self, task_ids: list[str], result: TaskResult, message: InboundMessage, writer: str | None
    ) -> None:
        """Send tasks as a whole that their peer does not know, because the peer has said so to a question.

        On a plain topic, anybody may say so. A task for which this process asks is then sent at most 20 times more, see
        :meth:`Reminders.soon`; any other task of a pool is read and sent at growing intervals.
        """
        for task_id in task_ids:
            entry = self._tasks.reminders.get(task_id)
            if entry is not None:
                given = _Given(entry.peer, entry.bound)
            elif self._scope.pool is None:
                continue  # the task is over
            elif self._repeats.may(task_id, asyncio.get_running_loop().time()):
                # Another member of the pool may have asked, and the members share the answers.
                given = await self._given(task_id)
            else:
                continue
            if given is None or given.over:
                continue
            if not self._comes_from(given, result, message, writer):
                break
            await self._send_whole(task_id, entry)
        message.acknowledge()

    async def _is_only_unknown(self, result: TaskResult) -> bool:
        """Whether a process of an older version has answered a question like a ``get`` about its first task.

        A pool whose card says ``ask`` may have such members, and an agent may be set back to an older version.
        The task itself was not rejected.
        """
        fault = result.error
        if fault is None or fault.type != "not_found" or fault.code is not None:
            return False
        record = await self._tasks.get(result.task_id)
        if record is None or record.state.terminal or self._tasks.is_bare(record):
            return False
        return bool(self._peers.says(record.peer or "", ASK))

    async def _send_whole(self, task_id: str, entry: OpenTask | None) -> None:
        if entry is not None:
            self._resender.answered(task_id)
            self._tasks.reminders.send_whole(task_id)
            return
        record = await self._tasks.get(task_id)
        if record is not None and not record.state.terminal:
            self._tasks.background.start(self._resender.send_again(record))

    async def _given(self, task_id: str) -> _Given | None:
        """To whom a task was given, and how; None when the task is not known."""
        handle = self._tasks.handles.get(task_id)
        if handle is not None:
            return _Given(handle.peer, handle.bound)
        record = await self._tasks.get(task_id)
        if record is None:
            return None
        return _Given(record.peer or "", record.reply_to is not None, record.state.terminal)

    async def _is_expected(self, result: TaskResult, message: InboundMessage, writer: str | None) -> bool:
        """Whether a result belongs to an open task, and comes from the peer of the task."""
        given = await self._given(result.task_id)
        if given is None:
            self._faults.refuse(message, "a result of a task that was not delegated", result.task_id)
            return False
        if given.over:
            self._tasks.reminders.drop(result.task_id)
            message.refuse("the task is over, and has its result")
            return False
        return self._comes_from(given, result, message, writer)

    def _comes_from(self, given: _Given, result: TaskResult, message: InboundMessage, writer: str | None) -> bool:
        """Whether a result comes from the peer of a task."""
        if writer is None and given.bound:
            what = "a result on a plain topic of a task that was given on a sender-bound topic"
            self._faults.refuse(message, what, repr(result.sender))
            self._tasks.reminders.soon(result.task_id)  # the peer may have changed the topics that it speaks
            return False
        sender = writer or result.sender
        if sender not in (None, given.peer):
            self._faults.refuse(message, "a result from another agent than the task's", repr(sender))
            return False
        return writer is not None or self._names_enough(result, given.peer, message)

    def _names_enough(self, result: TaskResult, peer: str, message: InboundMessage) -> bool:
        """Whether a result on a plain topic has the names that its sender must write.

        Only agents that follow the published specification and none of its additions may leave them out. Others cannot
        name a requester only when its task was unreadable.
        """
        unread = result.error is not None and result.error.type == "invalid_task"
        if result.sender is not None and (result.to is not None or unread):
            return True
        if not self._peers.has_features(peer):
            return True
        missing = "from" if result.sender is None else "to"
        self._faults.refuse(message, f"a result without {missing!r}", result.task_id)
        return False

    def on_event(self, message: InboundMessage) -> None:
        """Take an event. It informs the task's handle; without a handle, the store keeps the state that it tells."""
        try:
            event = decode(TaskEvent, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable event", error)
            return
        handle = self._tasks.handles.get(event.task_id)
        # Without an entry the task is over, or another member of the pool asks for it.
        given = handle or self._tasks.reminders.get(event.task_id)
        if given is None:
            return
        if not self._is_event_of(given, event, message):
            message.refuse("the event does not come from the peer of the task, or names another receiver")
            return
        self._tasks.reminders.put_off(event.task_id)
        self._resender.answered(event.task_id)
        if isinstance(given, OpenTask):
            self._take_unfollowed(given, event)
            return
        before = given.state
        news = given.take_event(event, footprint(message.payload))
        if not given.state.terminal and given.state is not before:
            self._tasks.store_state_soon(given.task_id, given.state)
        if news and given.question is event:
            self._inputs.on_question(given, event)

    def _take_unfollowed(self, entry: OpenTask, event: TaskEvent) -> None:
        """Take an event of a task that has no handle in this process, such as after a restart."""
        try:
            state = TaskState(event.status)
        except ValueError:
            return
        if event.type != "status" or state.terminal:
            return
        if state is not entry.state:
            self._tasks.store_state_soon(event.task_id, state)
        if state in ASKING:
            answer = self._scope.retry.until_stored(
                partial(self._answer_again, event), f"the question of task {event.task_id:.80}"
            )
            self._tasks.background.start(answer)

    async def _answer_again(self, event: TaskEvent) -> None:
        """Send the stored answer to a question again, if there is one."""
        record = await self._tasks.get(event.task_id)
        if record is not None and record.inputs and not record.state.terminal:
            self._inputs.on_question(self.handle_of(record), event)

    def _is_event_of(self, handle: TaskHandle | OpenTask, event: TaskEvent, message: InboundMessage) -> bool:
        """Whether an event belongs to a task, and comes from the peer of the task."""
        topics, me = self._scope.topics, self._scope.agent_id
        if event.sender not in (None, handle.peer) or event.to not in (None, me):
            return False
        if message.topic == topics.bound.events(me, event.task_id, handle.peer):
            return True
        return not handle.bound and message.topic == topics.task_events(event.task_id)
