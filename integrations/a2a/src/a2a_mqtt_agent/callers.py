"""The tasks of one identity: gives tasks to agents over the identity's own connection, and finds them again."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from mqtt_agent import Agent
from mqtt_agent.adapting.asking import answer_from_text
from mqtt_agent.adapting.background import within
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents import TaskHandle
from mqtt_agent.agents.store import TaskKey, TaskRecord
from mqtt_agent.errors import TaskNotFound, TaskRejected

from a2a_mqtt_agent.asked import about
from a2a_mqtt_agent.following import Followed
from a2a_mqtt_agent.translating import ASKING, TERMINAL, content_of, derived_id, from_message, from_struct
from a2a_mqtt_agent.views import Update, view_of

__all__ = ["Caller"]

logger: logging.Logger = logger_of(__name__)

TYPE: str = "mqtt-agent/type"
"""The key of a request's metadata that chooses the agent's handler."""
_KEPT = 1000
"""How many ended tasks are kept in memory; the store has them all."""
_MOST_ANSWERED = 100_000
_MOST_REPEATS = 1000
_FORGOTTEN_AFTER = 600.0
"""Seconds after the end of a task in which a message that is sent again means this task."""
_CANCELED_WITHIN = 10.0
"""Seconds to wait until an agent has canceled a task."""

Told = Callable[["Caller", a2a.Task, Update], None]


class Caller:
    """The tasks of one identity.

    Args:
        agent: The agent that speaks for the identity.
        told: Called with each update of each task.

    Attributes:
        agent: The agent that speaks for the identity.
        owner: The name of the agent in its store.
    """

    def __init__(self, agent: Agent, told: Told) -> None:
        self.agent: Agent = agent
        self.owner: str = f"{agent.namespace.strip('/')}/{agent.agent_id}"
        self._told = told
        self._open: dict[str, Followed] = {}
        self._ended: OrderedDict[str, Followed] = OrderedDict()
        self._giving: dict[str, asyncio.Lock] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()

    async def start(self) -> None:
        """Connect, and follow the tasks that an earlier process has left open."""
        await self.agent.start()
        for handle in await self.agent.delegations():
            if not handle.done:
                await self._follow(handle)

    async def stop(self) -> None:
        """Stop following, and disconnect. The tasks themselves go on."""
        await asyncio.gather(*(each.stop() for each in list(self._open.values())))
        await self.agent.stop()

    # Finding tasks

    def key(self, task_id: str) -> TaskKey:
        """The key of a task in the store."""
        return TaskKey(self.owner, "delegated", task_id)

    async def find(self, task_id: str, peer: str) -> Followed | a2a.Task:
        """A task of this identity at one agent: followed while it is open, and as it was stored once it is over.

        Raises:
            TaskNotFoundError: This identity has given no such task to the agent.
        """
        followed = self._open.get(task_id) or self._ended.get(task_id)
        if followed is None:
            record = await self.agent.store.get(self.key(task_id))
            if record is not None and record.peer == peer:
                if record.state.terminal:
                    return view_of(record)
                followed = await self._follow(await self.agent.resume(task_id))
        if followed is None or followed.peer != peer:
            raise TaskNotFoundError(f"Task {task_id} not found")
        return followed

    async def view(self, task_id: str, peer: str) -> a2a.Task:
        """The A2A view of a task; see :meth:`find`."""
        found = await self.find(task_id, peer)
        return found if isinstance(found, a2a.Task) else found.task

    async def views(self, peer: str) -> list[a2a.Task]:
        """The A2A views of all tasks that this identity has given to an agent, oldest first."""
        views, after = list[a2a.Task](), 0
        while records := await self.agent.store.find(self.owner, "delegated", peer=peer, after=after):
            views += [self._view(record) for record in records]
            after = records[-1].position
        return views

    def _view(self, record: TaskRecord) -> a2a.Task:
        followed = self._open.get(record.task_id) or self._ended.get(record.task_id)
        return view_of(record) if followed is None else followed.task

    # Giving tasks

    async def send(self, request: a2a.SendMessageRequest, peer: str) -> Followed:
        """Give the task that a message asks for, or answer the question of a task.

        A message that is sent again, with the same ``messageId``, means the same task, unless the client has got the
        whole answer (see :meth:`note_answered`), or the task has ended more than ten minutes ago: some clients use one
        ``messageId`` for all their messages.

        Raises:
            A2AError: The message does not fit the task.
            MQTTAgentError: The message cannot be sent.
        """
        if request.message.task_id:
            return await self._answer(request.message, peer)
        return await self._give(request, peer)

    async def _give(self, request: a2a.SendMessageRequest, peer: str) -> Followed:
        message = request.message
        same = derived_id("message", self.owner, peer, message.context_id, message.message_id)
        async with self._giving.setdefault(same, asyncio.Lock()):
            try:
                handle = await self._delegate(request, peer, await self._id_for(same))
            except TaskRejected:  # the id was used for another message: the two are different tasks
                handle = await self._delegate(request, peer, uuid.uuid4().hex)
            finally:
                self._giving.pop(same, None)
            return self._open.get(handle.task_id) or self._ended.get(handle.task_id) or await self._follow(handle)

    async def _id_for(self, same: str) -> str:
        """The id of the task for a message: that of an earlier task which the client does not know yet, or a new id."""
        for number in range(_MOST_REPEATS):
            task_id = derived_id("task", same, str(number))
            if task_id in self._answered:
                continue
            record = await self.agent.store.get(self.key(task_id))
            if record is None or not record.state.terminal or time.time() - record.updated_at < _FORGOTTEN_AFTER:
                return task_id
        return uuid.uuid4().hex

    def note_answered(self, task_id: str) -> None:
        """Note that the client has got the whole answer to the message that began a task."""
        self._answered[task_id] = None
        while len(self._answered) > _MOST_ANSWERED:
            self._answered.popitem(last=False)

    async def _delegate(self, request: a2a.SendMessageRequest, peer: str, task_id: str) -> TaskHandle:
        message = from_message(request.message)
        metadata: dict[str, Any] = from_struct(request.metadata) if request.HasField("metadata") else {}
        data = [part.data for part in message.all_parts if part.kind == "data"]
        return await self.agent.delegate(
            peer,
            messages=[message],
            type=metadata.get(TYPE),
            data=data[0] if len(data) == 1 else None,
            task_id=task_id,
            context_id=request.message.context_id or derived_id("context", task_id),
            reference_task_ids=list(request.message.reference_task_ids) or None,
            metadata=metadata or None,
        )

    async def _answer(self, message: a2a.Message, peer: str) -> Followed:
        found = await self.find(message.task_id, peer)
        task = found if isinstance(found, a2a.Task) else found.task
        if message.context_id and message.context_id != task.context_id:
            raise InvalidParamsError(f"Context {message.context_id} does not match the context of task {task.id}")
        if isinstance(found, Followed) and any(_is_repeat(message, each) for each in task.history):
            return found
        if isinstance(found, a2a.Task) or task.status.state in TERMINAL:
            raise UnsupportedOperationError(f"Task {task.id} is over and takes no further message")
        if task.status.state not in ASKING:
            raise UnsupportedOperationError(f"Task {task.id} asks nothing now: send the message when it asks")
        message.context_id = task.context_id
        value = content_of(message.parts)
        if isinstance(value, str):  # most clients are chats
            value = answer_from_text(value, about(task).get("schema"))
        await found.answer(message, value if value is not None else from_message(message).as_json())
        return found

    async def cancel(self, task_id: str, peer: str) -> a2a.Task:
        """Cancel a task. Returns its view once it is canceled, or after 10 s while its agent does not answer.

        Raises:
            A2AError: There is no such task, or it is over.
            MQTTAgentError: The cancellation cannot be sent.
        """
        found = await self.find(task_id, peer)
        if isinstance(found, a2a.Task) or found.over:
            raise TaskNotCancelableError(f"Task {task_id} is over")
        await found.handle.cancel("the A2A client has canceled the task")
        try:
            await within(found.until_over(), _CANCELED_WITHIN)
        except asyncio.TimeoutError:
            logger.info("task %s is not canceled yet: %s has not answered", task_id, peer)
        return found.task

    async def _follow(self, handle: TaskHandle) -> Followed:
        known = self._open.get(handle.task_id)
        if known is not None:
            return known
        record = await self.agent.store.get(self.key(handle.task_id))
        if record is None:
            raise TaskNotFound(f"the store has no task {handle.task_id}", task_id=handle.task_id)
        known = self._open.get(handle.task_id)
        if known is not None:
            return known
        followed = Followed(handle, view_of(record), lambda task, update: self._on_update(task, update), self._leave)
        if followed.over:
            self._keep(handle.task_id, followed)
        else:
            self._open[handle.task_id] = followed
        return followed

    def _leave(self, followed: Followed) -> None:
        """Forget a task that is not followed any more although it is open: whoever asks for it follows it again."""
        if self._open.get(followed.handle.task_id) is followed:
            del self._open[followed.handle.task_id]

    def _on_update(self, task: a2a.Task, update: Update) -> None:
        self._told(self, task, update)
        if task.status.state in TERMINAL:
            followed = self._open.pop(task.id, None)
            if followed is not None:
                self._keep(task.id, followed)

    def _keep(self, task_id: str, followed: Followed) -> None:
        self._ended[task_id] = followed
        while len(self._ended) > _KEPT:
            self._ended.popitem(last=False)


def _is_repeat(message: a2a.Message, earlier: a2a.Message) -> bool:
    """Whether a message is an earlier message that was sent again. Some clients use one id for several messages."""
    return message.message_id == earlier.message_id and list(message.parts) == list(earlier.parts)
