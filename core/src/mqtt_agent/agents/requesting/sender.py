"""Tasks, and words about them, on their way to the peers that are to do them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import partial

import pydantic_core

from mqtt_agent.agents.crashpoints import reached_when_sent
from mqtt_agent.agents.outcome import with_words
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.errors import QueueFull, TransportError
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, Connection, PublishProperties, check_reason_code
from mqtt_agent.wire import Control, TaskFault, Topics, encode

__all__ = ["CONFIRMED_WITHIN", "TaskSender"]

logger: logging.Logger = logging.getLogger(__name__)

CONFIRMED_WITHIN = 5.0
"""Seconds to wait for the broker's word; without it, what was sent is sent again when the connection is back."""

_MAX_EXPIRY = 2**32 - 1  # what fits into MQTT's property


class TaskSender:
    """Publishes to the inboxes and control topics of peers.

    Args:
        connection: Where it goes out.
        topics: The namespace.
        tasks: The tasks that are given away.

    Attributes:
        results_topic: Where the answers come in.
    """

    def __init__(self, connection: Connection, topics: Topics, tasks: DelegatedTasks) -> None:
        self.results_topic: str = topics.results(tasks.name)
        self._connection = connection
        self._topics = topics
        self._tasks = tasks

    async def send_first(self, handle: TaskHandle, record: TaskRecord, synchronous: bool) -> None:
        """Send a task for the first time.

        Args:
            handle: Fails when the broker refuses the task.
            record: Its record.
            synchronous: Whether the result goes to a topic of the task's own; then this does not wait for the broker.

        Raises:
            TransportError: It cannot be sent, or the broker refused it.
        """
        try:
            confirmed = self.send(record, self._topics.task_result(record.task_id) if synchronous else None)
        except QueueFull as error:
            logger.info("task %s is sent later: %s", record.task_id, error)
            return
        await reached_when_sent("delegated.published")
        confirmed.add_done_callback(partial(self._on_confirmed, handle, record))
        if not synchronous and self._connection.connected:
            await asyncio.wait([confirmed], timeout=CONFIRMED_WITHIN)
            handle.raise_failure()

    def _on_confirmed(self, handle: TaskHandle, record: TaskRecord, confirmed: asyncio.Future[int]) -> None:
        if confirmed.cancelled() or confirmed.exception() is not None:
            return  # it is sent again when the connection is back
        code = confirmed.result()
        if code == NO_MATCHING_SUBSCRIBERS:
            logger.info("nobody has an inbox for %s: task %s waits for it", record.peer, record.task_id)
        try:
            check_reason_code(code, self._topics.inbox(record.peer or ""))
        except TransportError as error:
            # Refused, and so never seen by its peer: it is over.
            handle.fail(with_words(error, f"task {record.task_id}: {error}"))
            fault = TaskFault(type=type(error).__name__, message=str(error))
            self._tasks.background.start(self._tasks.give_up(record.task_id, fault))

    def send(self, record: TaskRecord, reply_to: str | None = None) -> asyncio.Future[int]:
        """Send a task.

        Args:
            record: Its record.
            reply_to: The topic for its result; None for this agent's own.

        Returns:
            The broker's reason code.

        Raises:
            TransportError, QueueFull: It cannot be sent.
        """
        left = None if record.expires_at is None else math.ceil(record.expires_at - time.time())
        expiry = None if left is None or left > _MAX_EXPIRY else max(1, left)
        properties = PublishProperties(
            response_topic=reply_to or self.results_topic,
            correlation_data=record.task_id.encode(),
            message_expiry=expiry,
        )
        payload = pydantic_core.to_json(record.task)
        return self._connection.publish_soon(self._topics.inbox(record.peer or ""), payload, properties=properties)

    async def say_soon(self, peer: str, word: Control) -> None:
        """Say something about a task; while the connection is away, when it is back."""
        saying = self._tasks.background.start(self.say(peer, word))
        if self._connection.connected:
            await asyncio.wait([saying], timeout=CONFIRMED_WITHIN)
            if saying.done() and not saying.cancelled():
                saying.result()

    async def say(self, peer: str, word: Control) -> None:
        """Say something about a task, and wait until the broker has it."""
        properties = PublishProperties(response_topic=self.results_topic, correlation_data=word.task_id.encode())
        await self._connection.publish(self._topics.control(peer), encode(word), properties=properties)
