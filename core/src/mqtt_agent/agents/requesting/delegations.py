"""Giving tasks to peers, and seeing to it that each gets its one result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.outcome import with_words
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.inputs import Inputs
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.resender import Resender
from mqtt_agent.agents.requesting.results import Incoming
from mqtt_agent.agents.requesting.sender import CONFIRMED_WITHIN, TaskSender
from mqtt_agent.agents.store import TaskRecord, TaskStore
from mqtt_agent.display import TaskList
from mqtt_agent.errors import ConnectionLost, MQTTAgentError, StoreError, TaskNotFound, TaskRejected
from mqtt_agent.transport import Connection
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Control, Task, TaskState, Topics, encode, to_json

__all__ = ["Delegations"]

_AT_ONCE = 200


class Delegations:
    """Gives tasks away for one agent.

    A task is stored before it is sent. As long as it has no result it is sent again: when this agent starts or
    reconnects, when its peer comes back, and now and then. The task id makes that harmless: who has the task answers
    with its result, or with where it stands.

    Args:
        connection: Where tasks go out and results come in.
        topics: The namespace.
        agent: Whose records they are, see :class:`TaskKey`.
        name: The agent's id.
        store: Where the tasks are kept.
        is_away: Whether a peer is known to be offline: then nothing is sent again until it is back.
        max_payload: Bytes of the largest result that is read.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        agent: str,
        name: str,
        store: TaskStore,
        is_away: Callable[[str], bool],
        max_payload: int,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._name = name
        self._tasks = DelegatedTasks(agent, name, store)
        self._sender = TaskSender(connection, topics, self._tasks)
        self._resender = Resender(connection, topics, self._tasks, self._sender, is_away)
        self._inputs = Inputs(self._tasks, self._sender)
        self.incoming: Incoming = Incoming(topics, self._tasks, self._resender, self._inputs, max_payload)
        """Gets what comes on :attr:`results_topic`."""
        self.results_topic: str = self._sender.results_topic
        self._listening: dict[str, list[tuple[str, Handler]]] = {}
        self._started = False
        self._opening = asyncio.Semaphore(_AT_ONCE)

    # Life

    async def start(self) -> None:
        """Ask after everything that has no result yet."""
        self._started = True
        await self._resender.start()

    async def stop(self, reason: MQTTAgentError | None = None) -> None:
        """Follow nothing any more; the tasks go on."""
        self._started = False
        self._tasks.background.cancel()
        await self._tasks.background.wait()
        with contextlib.suppress(StoreError):
            await self._tasks.note_states()
        for handle in list(self._tasks.handles.values()):
            what = f"task {handle.task_id} goes on: resume() it"
            if reason is None:
                handle.fail(ConnectionLost(f"agent {self._name} was stopped; {what}"))
            else:
                handle.fail(with_words(reason, f"{reason}; {what}"))
        self._tasks.reminders.clear()

    def on_peer_back(self, peer: str) -> None:
        """A peer is there again: it may never have got what was sent meanwhile."""
        self._tasks.reminders.hurry(peer)

    async def on_reconnected(self) -> None:
        """The connection is back: what was sent, or came, may have got lost."""
        await self._resender.ask_after_all()

    # Giving away

    async def open(self, task: Task, *, synchronous: bool, listen: bool, expires_at: float | None) -> TaskHandle:
        """Store a task and send it.

        Args:
            task: Complete, with its peer as ``to``.
            synchronous: Whether the result goes to a topic of the task's own.
            listen: Whether events are wanted.
            expires_at: When it is to be given up, Unix seconds.

        Raises:
            TaskRejected: There is another task with this id.
            StoreError, TransportError, PayloadTooLarge: It could not be stored, or not be sent.
        """
        assert task.to is not None
        async with self._opening:
            return await self._open(task, task.to, synchronous, listen, expires_at)

    async def _open(
        self, task: Task, peer: str, synchronous: bool, listen: bool, expires_at: float | None
    ) -> TaskHandle:
        payload = encode(task)
        self._connection.check_publish(self._topics.inbox(peer), payload)
        record = TaskRecord(
            key=self._tasks.key(task.task_id),
            peer=peer,
            task=pydantic_core.from_json(payload),
            digest=task.digest,
            expires_at=expires_at,
        )
        known = self._tasks.handles.get(task.task_id)
        handle = known or self._follow(record, listen=listen, synchronous=synchronous)
        await self._subscribed()
        reached("delegated.before-commit")
        try:
            stored, added = await self._tasks.add(record)
        except StoreError as error:
            told = with_words(error, f"task {task.task_id} was not stored, and so not sent: {error}")
            if known is None:
                handle.fail(told)
            raise told from error
        except BaseException:
            if known is None:
                handle.fail(ConnectionLost(f"task {task.task_id} was not sent"))
            raise
        reached("delegated.after-commit")
        if not added:
            if stored.digest != record.digest:
                problem = TaskRejected(
                    f"task id {task.task_id} names another task already; it was not sent",
                    task_id=task.task_id,
                    peer=stored.peer,
                    code="conflict",
                )
                if known is None:
                    handle.fail(problem)
                raise problem
            if known is None:
                self._tasks.update(handle, stored)
        if not handle.done:
            self._tasks.remember(stored)
            await self._sender.send_first(handle, stored, synchronous)
        return handle

    # Finding again

    async def resume(self, task_id: str, peer: str | None) -> TaskHandle:
        """A handle on a task that was delegated before.

        Raises:
            TaskNotFound: It is not in the store, and no peer was named.
        """
        known = self._tasks.handles.get(task_id)
        if known is not None:
            await self.listen(known)
            return known
        record = await self._tasks.get(task_id)
        if record is None and peer is None:
            raise TaskNotFound(
                f"agent {self._name} has delegated no task {task_id} that its store knows; name the peer to ask it",
                task_id=task_id,
            )
        if record is None:
            task = Task(task_id=task_id, sender=self._name, to=peer)
            record, _ = await self._tasks.add(
                TaskRecord(self._tasks.key(task_id), peer, pydantic_core.from_json(encode(task)), task.digest)
            )
        handle = self._tasks.handles.get(task_id) or self._follow(record, listen=not record.state.terminal)
        self._tasks.update(handle, record)
        if not handle.done:
            self._tasks.remember(record)
            await self._subscribed()
            sending = self._tasks.background.start(self._resender.send_again(record))
            if self._connection.connected:
                await asyncio.wait([sending], timeout=CONFIRMED_WITHIN)
        return handle

    async def handles(self, states: frozenset[TaskState] | None) -> TaskList[TaskHandle]:
        """Handles on all tasks in these states, in the order in which they were delegated."""
        await self._tasks.note_states()
        found = TaskList[TaskHandle]()
        async for record in self._tasks.find(states):
            handle = self._tasks.handles.get(record.task_id)
            if handle is None:
                over = record.state.terminal
                handle = TaskHandle(record, self) if over else self._follow(record, listen=False)
                self._tasks.update(handle, record)
            found.append(handle)
        return found

    # Following

    def _follow(self, record: TaskRecord, *, listen: bool, synchronous: bool = False) -> TaskHandle:
        handle = self._tasks.handles[record.task_id] = TaskHandle(record, self)
        handle.when_over(partial(self._forget, record.task_id))
        if listen:
            self._listen(record.task_id, self._topics.task_events(record.task_id), self.incoming.on_event)
        if synchronous:
            topic = self._topics.task_result(record.task_id)
            self._listen(record.task_id, topic, self.incoming.on_result, manual=True)
        return handle

    def _listen(self, task_id: str, topic: str, handler: Handler, *, manual: bool = False) -> None:
        self._listening.setdefault(task_id, []).append((topic, handler))
        # Not awaited: the broker reads it before the task that follows on the same connection.
        self._tasks.background.start(self._connection.subscribe(topic, handler, manual=manual))

    async def listen(self, handle: TaskHandle) -> None:
        """Follow the events of a task that is not over; see :meth:`TaskHandle.events`."""
        topic = self._topics.task_events(handle.task_id)
        followed = self._tasks.handles.get(handle.task_id) is handle
        if not followed or any(topic == each for each, _ in self._listening.get(handle.task_id, ())):
            return
        self._listen(handle.task_id, topic, self.incoming.on_event)
        await self._subscribed()
        await self._resender.ask_after(handle.task_id)  # the answer tells where it stands

    async def _subscribed(self) -> None:
        """Let the subscriptions that were begun go out, before anything else does."""
        await asyncio.sleep(0)

    def _forget(self, task_id: str) -> None:
        self._tasks.forget(task_id)
        for topic, handler in self._listening.pop(task_id, ()):
            if self._started:
                self._tasks.background.start(self._connection.unsubscribe(topic, handler))

    # What a handle asks for

    async def cancel(self, handle: TaskHandle, reason: str | None) -> None:
        """See :meth:`TaskHandle.cancel`."""
        if handle.state.terminal:
            return
        changed = await self._tasks.change(handle.task_id, cancel_requested=True)
        if changed is not None:
            self._tasks.remember(changed)
        word = Control(task_id=handle.task_id, action="cancel", sender=self._name, reason=reason)
        await self._sender.say_soon(handle.peer, word)

    async def send_input(self, handle: TaskHandle, value: Any, input_id: str | None) -> None:
        """See :meth:`TaskHandle.send`."""
        await self._inputs.send(handle, value, input_id)

    async def save(self, handle: TaskHandle, value: Any) -> None:
        """See :meth:`TaskHandle.save`."""
        value = to_json(value)
        if await self._tasks.change(handle.task_id, saved=value) is not None:
            handle.saved = value
