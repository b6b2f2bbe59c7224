"""What peers send to an agent: read, checked, and passed on. Nothing that comes in here can hurt the agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.executing.ledger import ReceivedTasks
from mqtt_agent.agents.executing.replies import Answers
from mqtt_agent.agents.store.patience import Patience
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.retained import BARRIER
from mqtt_agent.errors import StoreError, WireError
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Control, Task, Topics, decode, is_identifier, read_time

__all__ = ["Inbox"]

logger: logging.Logger = logging.getLogger(__name__)


class Inbox:
    """Takes the messages on an agent's inbox and control topics.

    Args:
        topics: The namespace.
        name: The agent's id.
        received: Gets what is in order.
        answers: Refuses the rest.
        max_payload: Bytes of the largest message that is read.
    """

    def __init__(self, topics: Topics, name: str, received: ReceivedTasks, answers: Answers, max_payload: int) -> None:
        self._topics = topics
        self._name = name
        self._received = received
        self._answers = answers
        self._max_payload = max_payload
        self._tasks = BackgroundTasks(self._on_failure)
        self._patience = Patience()
        self._faults = FaultLog(logger)

    def on_task(self, message: InboundMessage) -> None:
        """A task came; it is acknowledged when it is stored."""
        if message.retain:
            self._faults.tell(message.topic, "a retained task was ignored", "tasks are never retained")
            message.acknowledge()
            return
        try:
            task = decode(Task, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable task", error)
            self._refuse_unreadable(message, error)
            message.acknowledge()
            return
        problem = self._problem(task, message)
        if problem is None:
            expires_at = None if task.expires_at is None else read_time(task.expires_at)
            message.hold()
            take = partial(self._received.take, task, message.response_topic, expires_at, message.acknowledge)
            self._tasks.start(self._patience.stored(take, f"task {task.task_id:.80}"), name=task.task_id)
            return
        self._faults.tell(message.topic, "a task that is refused", problem)
        if is_identifier(task.task_id):
            sender = task.sender if is_identifier(task.sender) else None
            honest = message.response_topic in self._honoured(task.task_id, sender)
            reply_to = message.response_topic if honest else None
            task = task.model_copy(update={"sender": sender})
            self._answers.refuse(task, reply_to, "invalid_task", problem)
        message.acknowledge()

    def _problem(self, task: Task, message: InboundMessage) -> str | None:
        if not is_identifier(task.task_id):
            return f"task id {task.task_id!r:.80} cannot be a topic level"
        if task.task_id.startswith(BARRIER):
            return f"task ids that begin with {BARRIER!r} are kept for words to oneself"
        if task.sender is not None and not is_identifier(task.sender):
            return f"agent id {task.sender!r:.80} cannot be a topic level"
        if task.to is not None and task.to != self._name:
            return f"the task is for {task.to!r:.80}, not for {self._name!r}"
        reply_to = message.response_topic
        honoured = self._honoured(task.task_id, task.sender)
        if reply_to is not None and reply_to not in honoured:
            return f"the Response Topic must be one of {', '.join(honoured)}, not {reply_to!r:.200}"
        if task.expires_at is not None and read_time(task.expires_at) is None:
            return f"expires_at {task.expires_at!r:.80} is no ISO 8601 time"
        return None

    def _honoured(self, task_id: str, sender: str | None) -> list[str]:
        topics = [self._topics.task_result(task_id)]
        return topics if sender is None else [*topics, self._topics.results(sender)]

    def _refuse_unreadable(self, message: InboundMessage, error: WireError) -> None:
        fields: Any = None
        if len(message.payload) <= self._max_payload:
            with contextlib.suppress(ValueError, RecursionError):
                fields = pydantic_core.from_json(message.payload)
        told: dict[str, Any] = fields if isinstance(fields, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        task_id = told.get("task_id")
        if not is_identifier(task_id):
            task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id):
            reply_to = message.response_topic
            if reply_to != self._topics.task_result(str(task_id)) and not self._topics.agent_of_results(reply_to or ""):
                reply_to = None
            self._answers.refuse(Task(task_id=str(task_id)), reply_to, "invalid_task", str(error))

    def on_control(self, message: InboundMessage) -> None:
        """A word about a task came."""
        try:
            word = decode(Control, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable control message", error)
            return
        if message.retain or word.task_id.startswith(BARRIER):
            return
        if not is_identifier(word.task_id) or not (word.sender is None or is_identifier(word.sender)):
            self._faults.tell(message.topic, "a control message with impossible names", repr(word.task_id))
            return
        self._tasks.start(self._obey(word, message), name=word.task_id)

    async def _obey(self, word: Control, message: InboundMessage) -> None:
        record = await self._received.find(word.task_id)
        if record is not None and record.peer is not None and word.sender != record.peer:
            self._faults.tell(message.topic, "a control message from another agent than the task's", repr(word.sender))
        elif word.action == "cancel":
            await self._received.cancel(word.task_id, word.sender, word.reason)
        elif word.action == "input":
            if not await self._received.take_input(word.task_id, word.input_id, word.input):
                self._faults.tell(message.topic, "an answer that nobody has asked for", repr(word.input_id))
        elif word.action == "get":
            honoured = self._honoured(word.task_id, word.sender)
            reply_to = message.response_topic if message.response_topic in honoured else None
            if record is not None:
                await self._received.attach(record, reply_to)
            else:
                task = Task(task_id=word.task_id, sender=word.sender)
                self._answers.refuse(task, reply_to, "not_found", f"{self._name} does not know task {word.task_id}")
        else:
            self._faults.tell(message.topic, "an unknown action", repr(word.action))

    def _on_failure(self, work: asyncio.Task[Any], error: BaseException) -> None:
        if isinstance(error, StoreError):
            # The broker, or the requester, says it again.
            logger.error("a message about task %.80s was not taken: %s", work.get_name(), error)
        else:
            logger.error("a message about task %.80s was not understood", work.get_name(), exc_info=error)

    async def settle(self) -> None:
        """Wait for what has come and is being stored."""
        self._patience.end()
        await self._tasks.wait()
        self._patience.begin()
