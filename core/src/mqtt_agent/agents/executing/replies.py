"""What an agent answers to those who gave it tasks."""

from __future__ import annotations

import asyncio
import logging

import pydantic_core

from mqtt_agent.agents.crashpoints import reached, reached_when_sent
from mqtt_agent.agents.store import TaskRecord, TaskStore
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, Connection, PublishProperties
from mqtt_agent.wire import TERMINAL, Task, TaskFault, TaskResult, TaskState, Topics, encode

__all__ = ["Answers"]

logger: logging.Logger = logging.getLogger(__name__)

_CHUNK = 100


class Answers:
    """Sends results until the broker has them, and refusals once.

    Args:
        connection: Where they go out.
        topics: The namespace.
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the results are.
    """

    def __init__(self, connection: Connection, topics: Topics, agent: str, name: str, store: TaskStore) -> None:
        self._connection = connection
        self._topics = topics
        self._agent = agent
        self._name = name
        self._store = store
        self._sending: set[tuple[str, str | None]] = set()

    async def send_unsettled(self) -> None:
        """Send the results that the broker may not have."""
        after = 0
        while True:
            records = await self._store.find(
                self._agent, "received", states=TERMINAL, unsettled=True, after=after, limit=_CHUNK
            )
            await asyncio.gather(*(self.send(record) for record in records))
            if not records:
                return
            after = records[-1].position

    async def send(self, record: TaskRecord) -> None:
        """Send the result of a task that is over, and note in the store when the broker has it."""
        sending = record.task_id, record.reply_to
        if sending in self._sending:
            return  # still with the connection, which sends it again when it is back
        self._sending.add(sending)
        try:
            await self._send_once(record)
        finally:
            self._sending.discard(sending)

    async def _send_once(self, record: TaskRecord) -> None:
        payload = pydantic_core.to_json(record.result)
        properties = PublishProperties(correlation_data=record.task_id.encode())
        sent: list[asyncio.Future[int]] = []
        try:
            for topic in self.topics(record.task_id, record.peer, record.reply_to):
                sent.append(self._connection.publish_soon(topic, payload, properties=properties))  # noqa: PERF401
            await reached_when_sent("result.published")
            codes = await asyncio.gather(*sent)
        except PayloadTooLarge as error:
            logger.error("the result of task %s cannot be sent: %s", record.task_id, error)
            return
        except MQTTAgentError as error:
            logger.info("the result of task %s waits in the store: %s", record.task_id, error)
            return
        reached("result.confirmed")
        refused = [code for code in codes if code >= 0x80]
        if refused:
            logger.warning("the broker refused the result of task %s (0x%02x)", record.task_id, refused[0])
        elif any(code != NO_MATCHING_SUBSCRIBERS for code in codes) and not record.settled:
            await self._store.change(record.key, (record.state,), settled=True)

    def topics(self, task_id: str, requester: str | None, reply_to: str | None) -> list[str]:
        """Where the answers to a task go."""
        if reply_to is not None:
            return [reply_to]
        topics = [self._topics.task_result(task_id)]
        return topics if requester is None else [*topics, self._topics.results(requester)]

    def say(self, topic: str, payload: bytes, task_id: str) -> None:
        """Send something about a task that may get lost: who misses it asks again."""
        try:
            properties = PublishProperties(correlation_data=task_id.encode())
            self._connection.publish_soon(topic, payload, properties=properties)
        except MQTTAgentError as error:
            logger.info("an answer about task %s was not sent: %s", task_id, error)

    def refuse(self, task: Task, reply_to: str | None, kind: str, message: str) -> None:
        """Answer that a task is rejected, and store nothing."""
        result = TaskResult(
            task_id=task.task_id,
            sender=self._name,
            to=task.sender,
            status=TaskState.REJECTED.value,
            error=TaskFault(type=kind, message=message),
        )
        for topic in self.topics(task.task_id, task.sender, reply_to):
            self.say(topic, encode(result), task.task_id)
