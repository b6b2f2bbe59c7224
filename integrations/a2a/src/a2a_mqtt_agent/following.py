"""Follows one delegated task, keeps its A2A view in the store, and passes on each change to its listeners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import InternalError
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import MQTTAgentError, StoreError
from mqtt_agent.wire import TaskResult

from a2a_mqtt_agent.translating import ASKING, TERMINAL
from a2a_mqtt_agent.views import Update, apply, saved_of, updates_at_end, updates_of
from a2a_mqtt_agent.waiting import Waiting

__all__ = ["Followed"]

logger: logging.Logger = logger_of(__name__)


_MOST_WAITING, _MOST_BYTES = 10_000, 16 * 1024 * 1024
"""How many changes of a task, and how many bytes of them, may wait for one client."""


class Followed:
    """A task that is followed until its end.

    What a listener is told is stored before, except for parts of a result and progress, which are only shown.

    Args:
        handle: The task.
        task: The A2A view of the task, as it was stored last.
        told: Called with each update and the view after it.
        left: Called with this object when the task is not followed any more, although it is open.

    Attributes:
        handle: The task.
        task: The A2A view of the task. It is replaced by a new object at each change.
        result: The result message, once the task is over.
    """

    def __init__(
        self,
        handle: TaskHandle,
        task: a2a.Task,
        told: Callable[[a2a.Task, Update], None],
        left: Callable[[Followed], None],
    ) -> None:
        self.handle: TaskHandle = handle
        self.task: a2a.Task = task
        self.result: TaskResult | None = handle.response
        self._told = told
        self._left = left
        self._listeners: set[Waiting] = set()
        self._changed = asyncio.Event()
        self._stopped = False
        self._changing = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        if not self.over:
            self._following = asyncio.create_task(self._follow(), name=f"a2a task {handle.task_id}")

    @property
    def peer(self) -> str:
        """The agent that does the task."""
        return self.handle.peer

    @property
    def waits(self) -> bool:
        """Whether nothing happens before the user says something: the task is over, or asks."""
        return self.task.status.state in TERMINAL | ASKING

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.task.status.state in TERMINAL

    async def listen(self) -> AsyncGenerator[a2a.Task | Update]:
        """The task as it is now, and then each update, without a gap, until the task is over or asks.

        A task that asks already is followed until it asks again or is over.

        Raises:
            InternalError: The client reads too slowly. It can listen again, which begins with the task as it is then.
        """
        waiting = Waiting(_MOST_WAITING, _MOST_BYTES)
        self._listeners.add(waiting)  # in the same step as the view: no update comes between
        try:
            yield self.task
            if self.over or self._stopped:
                return
            while (update := await waiting.get()) is not None:
                yield update
                if isinstance(update, a2a.TaskStatusUpdateEvent) and update.status.state in TERMINAL | ASKING:
                    return
            if waiting.dropped:
                raise InternalError(
                    f"The client reads too slowly: {waiting.dropped} changes of the task waited, and were dropped. "
                    "Subscribe to the task again: the stream then begins with the task as it is"
                )
        finally:
            self._listeners.discard(waiting)

    async def until_it_waits(self) -> a2a.Task:
        """Wait until the task is over or asks, and return its view."""
        while not self.waits and not self._stopped:
            await self._changed.wait()
        return self.task

    async def until_over(self) -> None:
        """Wait until the task is over."""
        while not self.over and not self._stopped:
            await self._changed.wait()

    async def answer(self, message: a2a.Message, value: object) -> None:
        """Answer the question of the task.

        The message is stored before the answer is sent. A gateway that dies in between finds the question again.

        Args:
            message: The message of the user, for the history.
            value: The answer, any JSON value.
        """
        async with self._changing:
            task = a2a.Task()
            task.CopyFrom(self.task)
            update = a2a.TaskStatusUpdateEvent(task_id=task.id, context_id=task.context_id)
            update.status.state = a2a.TASK_STATE_WORKING
            update.status.timestamp.GetCurrentTime()
            apply(task, update)
            task.history.append(message)
            await self.handle.save(saved_of(task))
            self._publish(task, [update])
        await self.handle.send(value)

    async def stop(self) -> None:
        """Stop following. The task itself goes on."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._end_listeners()

    async def _follow(self) -> None:
        try:
            async for event in self.handle.events():
                data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
                if data.get("input_id") in self.handle.answers and "fault" not in data:
                    continue  # the agent asks again while the answer is on its way
                stored = event.type in ("status", "artifact")
                try:
                    await self._change(lambda task, event=event: updates_of(task, event), stored=stored)
                except Exception:  # one event must not cost the result
                    logger.exception("an event of task %s is left out, because A2A cannot show it", self.handle.task_id)
                await asyncio.sleep(0)  # the listeners run between two events that have arrived together
            await self.handle.result()
        except MQTTAgentError as error:
            if self.handle.response is None:
                logger.info("task %s is not followed any more: %s", self.handle.task_id, error)
        except Exception:
            logger.exception("task %s cannot be followed any more", self.handle.task_id)
        self.result = result = self.handle.response
        if result is not None:
            await self._change(lambda task: updates_at_end(task, result), stored=False)
        if not self.over:
            self._left(self)
        self._end_listeners()

    async def _change(self, updates_for: Callable[[a2a.Task], list[Update]], *, stored: bool) -> None:
        async with self._changing:
            updates = updates_for(self.task)
            if not updates:
                return
            task = a2a.Task()
            task.CopyFrom(self.task)
            for update in updates:
                apply(task, update)
            if stored:
                try:
                    await self.handle.save(saved_of(task))
                except StoreError as error:  # the result tells all of it again
                    logger.warning("a change of task %s is not stored: %s", self.handle.task_id, error)
            self._publish(task, updates)

    def _publish(self, task: a2a.Task, updates: list[Update]) -> None:
        self.task = task
        for update in updates:
            self._told(task, update)
            for waiting in list(self._listeners):
                if not waiting.put(update):
                    logger.warning("a client of task %s reads too slowly, and its stream ends", self.handle.task_id)
                    self._listeners.discard(waiting)
                    waiting.end()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _end_listeners(self) -> None:
        self._stopped = True
        self._wake()
        for waiting in self._listeners:
            waiting.end()
