"""Sends results and other replies from an executor to the requesters of its tasks."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pydantic_core

from mqtt_agent.agents.crashpoints import reached, reached_when_sent
from mqtt_agent.agents.outcome import Ending, result_of
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.display.suggestions import counted
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, PoisonMessage
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, PublishProperties
from mqtt_agent.wire import TERMINAL, Task, TaskEvent, TaskFault, TaskState, encode, new_task_id
from mqtt_agent.wire.tasks import UNKNOWN_TASK

__all__ = ["Replies"]

logger: logging.Logger = logger_of(__name__)


class Replies:
    """Sends results until the broker has them. Other replies are sent once.

    Args:
        scope: The agent's shared values.
        background: Runs work that nothing else awaits.
    """

    def __init__(self, scope: Scope, background: BackgroundTasks) -> None:
        self._scope = scope
        self._background = background
        self._sending: set[tuple[TaskKey, str | None]] = set()
        self._settling: set[TaskKey] = set()  # the tasks of which it is being stored that their results were sent
        self._notes: dict[TaskKey, TaskState] = {}
        self._noting: asyncio.Task[None] | None = None
        self._saying: set[tuple[TaskKey, int]] = set()

    async def send_unsettled(self) -> None:
        """Send the results of all tasks that are not settled, because the broker may not have these results."""
        async for records in self._scope.records("received", TERMINAL, unsettled=True):
            sent = await asyncio.gather(*(self._send_unless_sending(record) for record in records))
            for record, has_it in zip(records, sent, strict=True):
                if has_it:
                    self._settle_soon(record.key, record.state)

    async def send(self, record: TaskRecord) -> None:
        """Send the result of a finished task, and store that the broker has it.

        A requester that asks again gets the result also while the store cannot be written.

        Args:
            record: The record of a task in a terminal state.
        """
        if await self._send_unless_sending(record):
            self._settle_soon(record.key, record.state)

    async def _send_unless_sending(self, record: TaskRecord) -> bool:
        """Send a result, unless it is being sent. Returns whether the broker has it and this must be stored."""
        sending = record.key, record.reply_to
        if sending in self._sending:
            return False  # the connection still has the message, and sends it after the reconnect
        self._sending.add(sending)
        try:
            return await self._send_once(record)
        finally:
            self._sending.discard(sending)

    async def _send_once(self, record: TaskRecord) -> bool:
        payload = pydantic_core.to_json(record.result)
        properties = PublishProperties(correlation_data=record.task_id.encode())
        publish = self._scope.connection.publish_soon
        sent: list[asyncio.Future[int]] = []
        try:
            for topic in self.topics(record.task_id, record.peer, record.reply_to):
                sent.append(publish(topic, payload, properties=properties, readers=record.readers))  # noqa: PERF401
            await reached_when_sent("result.published")
            codes = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
        except (PayloadTooLarge, PoisonMessage) as error:
            logger.error("the requester gets an error in place of the result of task %s: %s", record.task_id, error)
            self._send_instead(record, error)
            return False
        except MQTTAgentError as error:
            logger.info("the result of task %s stays in the store and is sent later: %s", record.task_id, error)
            return False
        reached("result.confirmed")
        refused = [code for code in codes if code >= 0x80]
        if refused:
            if self.is_bound(record.reply_to) and not self._scope.dialect.required:
                self._scope.dialect.give_up(f"the broker refused a result (reason code 0x{refused[0]:02x})")
            logger.warning(
                "the broker refused the result of task %s (reason code 0x%02x); the result stays in the store",
                record.task_id,
                refused[0],
            )
        elif any(code != NO_MATCHING_SUBSCRIBERS for code in codes) and not record.settled:
            return True
        return False

    def _send_instead(self, record: TaskRecord, error: MQTTAgentError) -> None:
        """Tell the requester that a task was completed, and that the broker does not take its result."""
        fault = TaskFault(
            type="result_refused", message=f"the task was completed, but its result cannot be sent: {error}"
        )
        requester = record.peer or self._scope.agent_id
        result = result_of(record.task_id, self._scope.agent_id, requester, Ending(TaskState.FAILED, fault=fault))
        for topic in self.topics(record.task_id, record.peer, record.reply_to):
            self.publish(topic, pydantic_core.to_json(result), record.task_id)

    def _settle_soon(self, key: TaskKey, state: TaskState) -> None:
        """Store that the broker has a result, unless this is being stored already.

        The notes of one turn of the event loop are stored together.
        """
        if key in self._settling:
            return
        self._settling.add(key)
        self._notes[key] = state
        if self._noting is None or self._noting.done():
            self._noting = self._background.start(self._settle_all())

    async def _settle_all(self) -> None:
        notes, self._notes, self._noting = self._notes, {}, None
        settle = partial(self._scope.store.settle, list(notes.items()))
        what = f"the note that the result of task {next(iter(notes)).task_id:.80} was sent"
        what = what if len(notes) == 1 else f"{what}, and those of {counted(len(notes) - 1, 'other')}"
        try:
            await self._scope.retry.until_stored(settle, what)
        finally:
            self._settling.difference_update(notes)

    # Topics

    def is_bound(self, reply_to: str | None) -> bool:
        """Whether a task whose result goes to this topic was given on a sender-bound topic."""
        return reply_to is not None and self._scope.topics.bound.writer(reply_to) == self._scope.agent_id

    def bound_topic(self, requester: str) -> str:
        """The sender-bound topic of the results that this agent sends to a requester."""
        return self._scope.topics.bound.results(requester, self._scope.agent_id)

    def may_touch(self, record: TaskRecord, reply_to: str | None) -> bool:
        """Whether a message may be about a task: a message on a plain topic is never about a sender-bound task.

        Args:
            record: The task's record.
            reply_to: The topic to which the answer to the message goes.
        """
        bound = self.is_bound(record.reply_to) and self._scope.dialect.bound
        return not bound or self.is_bound(reply_to)

    def topics(self, task_id: str, requester: str | None, reply_to: str | None) -> list[str]:
        """The topics to which the result of a task goes.

        Args:
            task_id: The task's id.
            requester: The agent that gave the task; None when the task did not name it.
            reply_to: The topic that the requester asked for; None when it asked for none.
        """
        dialect = self._scope.dialect
        if dialect.required:
            return [] if requester is None else [self.bound_topic(requester)]
        if requester is not None and self.is_bound(reply_to) and not dialect.bound:
            return [self._scope.topics.results(requester)]
        return self.default_topics(task_id, requester) if reply_to is None else [reply_to]

    def events_topic(self, record: TaskRecord) -> str | None:
        """The topic of the events of a task; None when nobody can get events."""
        dialect, topics, requester = self._scope.dialect, self._scope.topics, record.peer
        if requester is not None and dialect.bound and (dialect.required or self.is_bound(record.reply_to)):
            return topics.bound.events(requester, record.task_id, self._scope.agent_id)
        return None if dialect.required else topics.task_events(record.task_id)

    def default_topics(self, task_id: str, requester: str | None) -> list[str]:
        """The topics to which a result goes by default. A requester may ask for one of these topics, and no other."""
        topics = [self._scope.topics.task_result(task_id)]
        return topics if requester is None else [*topics, self._scope.topics.results(requester)]

    def publish(self, topic: str, payload: bytes, task_id: str, *, signed: bool = True) -> asyncio.Future[int] | None:
        """Publish a message about a task. The message may get lost: then the requester asks again.

        Returns:
            The future of the broker's confirmation; None when the message cannot be sent.
        """
        try:
            properties = PublishProperties(correlation_data=task_id.encode())
            return self._scope.connection.publish_soon(topic, payload, properties=properties, signed=signed)
        except MQTTAgentError as error:
            logger.info("a reply about task %s was not sent: %s", task_id, error)
            return None

    def say_status(self, record: TaskRecord, event: TaskEvent) -> None:
        """Answer the question about the state of a task, unless the same answer is still on its way to the broker.

        A question is small, and the answer may be large. So a flood of questions must not become a larger flood.
        """
        payload = encode(event.model_copy(update={"timestamp": ""}))
        key, topic = (record.key, hash(payload)), self.events_topic(record)
        if key in self._saying or topic is None:
            return
        confirmed = self.publish(topic, encode(event), event.task_id)
        if confirmed is not None:
            self._saying.add(key)
            confirmed.add_done_callback(lambda _: self._saying.discard(key))

    def say_unknown(self, task_ids: list[str], requester: str, reply_to: str) -> None:
        """Tell a requester which of the tasks that it has asked for this agent does not know.

        Args:
            task_ids: The ids of the unknown tasks.
            requester: The agent that has asked.
            reply_to: The results topic of the requester.
        """
        message = f"{self._scope.agent_id} does not know {len(task_ids)} of the tasks"
        fault = TaskFault(type="not_found", message=message, code=UNKNOWN_TASK, data={"task_ids": task_ids})
        ending = Ending(TaskState.REJECTED, fault=fault)
        no_task = MARKER_PREFIX + new_task_id()  # else readers that do not know the code would take it for a result
        result = result_of(no_task, self._scope.agent_id, requester, ending)
        for topic in self.topics(no_task, requester, reply_to):
            self.publish(topic, pydantic_core.to_json(result), no_task)

    def refuse(
        self,
        task: Task,
        reply_to: str | None,
        kind: str,
        message: str,
        code: str | None = None,
        *,
        signed: bool,
    ) -> None:
        """Reject a task, and store nothing.

        Args:
            task: The task.
            reply_to: The topic that the requester asked for; None when it asked for none.
            kind: The fault's type.
            message: Why the task is rejected.
            code: The fault's code.
            signed: Whether the answer is signed, if the agent has a key.
        """
        ending = Ending(TaskState.REJECTED, fault=TaskFault(type=kind, message=message, code=code))
        result = result_of(task.task_id, self._scope.agent_id, task.sender, ending)
        for topic in self.topics(task.task_id, task.sender, reply_to):
            self.publish(topic, pydantic_core.to_json(result), task.task_id, signed=signed)
