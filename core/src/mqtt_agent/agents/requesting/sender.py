"""Sends a requester's tasks and control messages to the inboxes and control topics of its peers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import pydantic_core

from mqtt_agent.agents.crashpoints import reached_when_sent
from mqtt_agent.agents.outcome import with_message
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.waiting import Patience, release
from mqtt_agent.errors import (
    MQTTAgentError,
    PayloadTooLarge,
    PoisonMessage,
    QueueFull,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, PublishProperties, check_reason_code
from mqtt_agent.transport.packing import message_expiry
from mqtt_agent.wire import Control, TaskFault, encode

__all__ = ["CONFIRMED_WITHIN", "TaskSender"]

logger: logging.Logger = logger_of(__name__)

CONFIRMED_WITHIN = 5.0
"""Seconds to wait for the broker's confirmation. An unconfirmed message is sent again after a reconnect."""


class TaskSender:
    """Publishes tasks and control messages to peers.

    Args:
        scope: The agent's shared values.
        tasks: The delegated tasks.

    Attributes:
        results_topic: The plain topic on which this agent gets results.
        on_changed: Called with the handle of a task that is sent on another kind of topic from now on.
    """

    def __init__(self, scope: Scope, tasks: DelegatedTasks) -> None:
        self.results_topic: str = scope.topics.results(scope.agent_id)
        self._scope = scope
        self._tasks = tasks
        self.on_changed: Callable[[TaskHandle], None] = lambda handle: None
        self._patience = Patience(CONFIRMED_WITHIN)
        self._falling: dict[str, asyncio.Task[None]] = {}  # by task: the second try, on a plain topic

    # Sender-bound topics

    def bound_results(self, peer: str) -> str | None:
        """The sender-bound topic of a peer's results, for a new task; None when the peer speaks only plain topics."""
        return self._bound_results(peer) if self._scope.dialect.bound_with(peer) else None

    def _bound_results(self, peer: str) -> str:
        return self._scope.topics.bound.results(self._scope.agent_id, peer)

    def inbox(self, record: TaskRecord) -> str:
        """The topic on which a task is sent to its peer."""
        peer, topics = record.peer or "", self._scope.topics
        return topics.inbox(peer) if record.reply_to is None else topics.bound.inbox(peer, self._scope.agent_id)

    async def in_dialect(self, record: TaskRecord) -> TaskRecord:
        """Store on which kind of topic a task is sent from now on, if the peer has changed the topics that it speaks.

        Returns:
            The record after the change.
        """
        peer, before = record.peer or "", record.reply_to is not None
        bound = self._scope.dialect.bound_with(peer, before)
        if bound == before:
            return record
        reply_to = self._bound_results(peer) if bound else None
        changed = await self._tasks.change(record.task_id, reply_to=reply_to)
        entry = self._tasks.reminders.get(record.task_id)
        if entry is not None and changed is not None:
            entry.bound = bound
        handle = self._tasks.handles.get(record.task_id)
        if handle is not None and changed is not None:
            handle.bound = bound
            self.on_changed(handle)
            await asyncio.sleep(0)  # a subscription that begins now is sent before the task
        return changed or record

    # Tasks

    def check(self, record: TaskRecord, payload: bytes, synchronous: bool) -> None:
        """Raise the errors that :meth:`send` would raise immediately, without sending the task.

        Args:
            record: The task's record.
            payload: The task, as bytes.
            synchronous: As for :meth:`send_first`.

        Raises:
            TransportError, PayloadTooLarge, WireError: The task cannot be sent.
        """
        # A repeat of a synchronous task asks for its result on the results topic too.
        topics = [record.reply_to or self.results_topic]
        if synchronous:
            topics.append(self._scope.topics.task_result(record.task_id))
        longest = max(topics, key=lambda topic: len(topic.encode()))
        self._scope.connection.check_publish(self.inbox(record), payload, self._properties(record, longest))

    def _properties(self, record: TaskRecord, reply_to: str) -> PublishProperties:
        expiry = None if record.expires_at is None else message_expiry(record.expires_at - time.time())
        return PublishProperties(
            response_topic=reply_to, correlation_data=record.task_id.encode(), message_expiry=expiry
        )

    async def send_first(self, handle: TaskHandle, record: TaskRecord, synchronous: bool) -> None:
        """Send a task for the first time.

        Args:
            handle: The task's handle, which fails when the broker refuses the task.
            record: The task's record.
            synchronous: Whether the caller waits for the result. Then this does not wait for the broker's confirmation,
                and the result of a task on a plain topic goes to a topic of the task's own.

        Raises:
            TransportError, PayloadTooLarge: The task cannot be sent, or the broker refused it.
        """
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            own = synchronous and record.reply_to is None
            topic = self._scope.topics.task_result(record.task_id) if own else None
            confirmed = self.send(record, topic, partial(self._on_sent, handle, record, waiting))
        except QueueFull as error:
            logger.info("task %s is stored, and is sent later: %s", record.task_id, error)
            return
        except (PayloadTooLarge, PoisonMessage) as error:  # the connection has learned of a limit since the check
            self._refuse(handle, record, error)
            raise
        await reached_when_sent("delegated.published")
        if not synchronous and self._scope.connection.connected:
            if not confirmed.done():
                self._patience.limit(waiting)
                await waiting
            if record.task_id in self._falling:
                await asyncio.wait([self._falling[record.task_id]], timeout=CONFIRMED_WITHIN)
            handle.raise_failure()

    def _on_sent(
        self, handle: TaskHandle, record: TaskRecord, waiting: asyncio.Future[None], confirmed: asyncio.Future[int]
    ) -> None:
        self._on_confirmed(handle, record, confirmed)
        release(waiting, None)

    def _on_confirmed(self, handle: TaskHandle, record: TaskRecord, confirmed: asyncio.Future[int]) -> None:
        if confirmed.cancelled():
            return
        error = confirmed.exception()
        if isinstance(error, PoisonMessage):
            self._refuse(handle, record, error)
        if error is not None:
            return  # otherwise the task is sent again when the connection is back
        code, inbox = confirmed.result(), self.inbox(record)
        if code == NO_MATCHING_SUBSCRIBERS:
            logger.info("nobody is subscribed to the inbox of agent %s: task %s waits", record.peer, record.task_id)
        try:
            check_reason_code(code, inbox)
        except TransportError as error:
            if self.falls_back(record, error):
                again = self._tasks.background.start(self._send_plain(handle, record))
                self._falling[record.task_id] = again
                again.add_done_callback(lambda _: self._falling.pop(record.task_id, None))
            else:
                self._refuse(handle, record, error)

    async def _send_plain(self, handle: TaskHandle, record: TaskRecord) -> None:
        """Send a task for the first time again, on a plain topic."""
        what = f"the topic of task {record.task_id:.80}"
        record = await self._scope.retry.until_stored(partial(self.in_dialect, record), what)
        confirmed = self.send(record)
        await asyncio.wait([confirmed])
        self._on_confirmed(handle, record, confirmed)

    def falls_back(self, record: TaskRecord, error: MQTTAgentError) -> bool:
        """Whether a task is sent again on a plain topic, because the broker forbids the sender-bound topic."""
        return self.gives_up_bound(record.reply_to is not None, error)

    def gives_up_bound(self, bound: bool, error: MQTTAgentError) -> bool:
        """Use only plain topics from now on, if an error says that the broker forbids the sender-bound topics.

        Args:
            bound: Whether the message that has failed was sent on a sender-bound topic.
            error: Why the message has failed.

        Returns:
            Whether plain topics are used in the place of the sender-bound topics from now on.
        """
        if not bound or self._scope.dialect.required or not isinstance(error, TopicNotAuthorized):
            return False
        self._scope.dialect.give_up(error)
        return True

    def _refuse(self, handle: TaskHandle, record: TaskRecord, error: MQTTAgentError) -> None:
        handle.fail(with_message(error, f"task {record.task_id}: {error}"))
        self.give_up(record, error)

    def give_up(self, record: TaskRecord, error: MQTTAgentError) -> None:
        """End a task that its peer never gets, because the broker has refused the task.

        Args:
            record: The task's record.
            error: Why the broker has refused the task.
        """
        fault = TaskFault(type=type(error).__name__, message=str(error))
        give_up = partial(self._tasks.give_up, record.task_id, fault)
        what = f"that the broker refused task {record.task_id:.80}"
        self._tasks.background.start(self._scope.retry.until_stored(give_up, what))

    def send(
        self,
        record: TaskRecord,
        reply_to: str | None = None,
        on_confirmed: Callable[[asyncio.Future[int]], None] | None = None,
    ) -> asyncio.Future[int]:
        """Send a task to its peer's inbox.

        Args:
            record: The task's record.
            reply_to: The topic to which the result is to go; None means the results topic of this agent.
            on_confirmed: See :meth:`Connection.publish_soon`.

        Returns:
            A future of the broker's reason code.

        Raises:
            TransportError, QueueFull: The task cannot be sent.
        """
        properties = self._properties(record, reply_to or record.reply_to or self.results_topic)
        payload = pydantic_core.to_json(record.task)
        publish = self._scope.connection.publish_soon
        return publish(
            self.inbox(record), payload, properties=properties, on_confirmed=on_confirmed, readers=record.readers
        )

    async def send_control_soon(self, peer: str, control: Control, bound: bool) -> None:
        """Send a control message, and wait up to 5 s for the broker.

        When this agent is not connected, this does not wait: the message is sent after the reconnect.

        Args:
            peer: The agent that has the task.
            control: The message.
            bound: Whether the task was given on a sender-bound topic.

        Raises:
            TransportError: The message cannot be sent, or the broker refused it.
        """
        sending = self._tasks.background.start(self.send_control(peer, control, bound))
        if self._scope.connection.connected:
            await asyncio.wait([sending], timeout=CONFIRMED_WITHIN)
            if sending.done() and not sending.cancelled():
                sending.result()

    async def send_control(self, peer: str, control: Control, bound: bool) -> None:
        """Send a control message, and wait until the broker has it. See :meth:`send_control_soon`."""
        topics = self._scope.topics
        if self._scope.dialect.bound_with(peer, bound):
            topic, reply_to = topics.bound.control(peer, self._scope.agent_id), self._bound_results(peer)
        else:
            topic, reply_to = topics.control(peer), self.results_topic
        properties = PublishProperties(response_topic=reply_to, correlation_data=control.task_id.encode())
        await self._scope.connection.publish(topic, encode(control), properties=properties, readers=(peer,))
