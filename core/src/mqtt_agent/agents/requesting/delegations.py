"""Delegates tasks: a task is stored, then sent to its peer. Makes the handles of earlier tasks too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.crashpoints import reached
from mqtt_agent.agents.outcome import with_message
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.requesting.cancels import Cancels
from mqtt_agent.agents.requesting.handle import TaskHandle
from mqtt_agent.agents.requesting.inputs import Inputs
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.resender import Resender
from mqtt_agent.agents.requesting.results import Results
from mqtt_agent.agents.requesting.sender import CONFIRMED_WITHIN, TaskSender
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import TaskRecord
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.display import TaskList
from mqtt_agent.errors import ConnectionLost, MQTTAgentError, StoreError, TaskNotFound, TaskRejected
from mqtt_agent.metering import Durations
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import MemberNote, Task, TaskState, checked_json, encode
from mqtt_agent.wire.tasks import digest_of

__all__ = ["Delegations"]

_AT_ONCE = 200
"""How many tasks are stored and sent, or canceled, at the same time; further calls wait."""
_ADOPT_EVERY = 10.0
"""Seconds between two looks for the tasks of members of the pool that have left. Deaths are noticed earlier."""
_ADOPT_AT_MOST_EVERY = 1.0
"""Seconds between two such looks when members say that they have left, as anybody may do at any time."""
_durations = Durations(
    "mqtt_agent.task.duration",
    "How long a task took for its requester, from its delegation to its result.",
    "gen_ai.agent.name",
    {"gen_ai.operation.name": "invoke_agent", "messaging.system": "mqtt"},
)


class Delegations:
    """Delegates the tasks of one agent.

    A task is stored before it is sent. Until its result arrives, the task is sent again: when this agent starts or
    reconnects, when the peer comes back, and at growing intervals. The task's id makes this harmless: a peer that has
    the task answers with the result, or with the present state.

    Args:
        scope: The agent's shared values.
        peers: The other agents of the namespace. Nothing is sent again to a peer that is offline until it is back.

    Attributes:
        results: Takes the results and events.
    """

    def __init__(self, scope: Scope, peers: Peers) -> None:
        self._scope = scope
        self._peers = peers
        self._tasks = DelegatedTasks(scope)
        self._sender = TaskSender(scope, self._tasks)
        self._sender.on_changed = self._on_other_topics
        self._resender = Resender(scope, self._tasks, self._sender, peers)
        self._inputs = Inputs(self._tasks, self._sender)
        self._cancels = Cancels(self._tasks, self._sender, peers)
        self.results: Results = Results(scope, self._tasks, self._resender, self._inputs, peers)
        self.results.handle_of = partial(TaskHandle, requester=self)
        self._listening: dict[str, list[tuple[str, Handler]]] = {}
        self._eventful: set[str] = set()  # the tasks whose events arrive
        self._callers: Counter[str] = Counter()  # how often this process has given each task that is not over
        self._started = False
        self._adopts_at = self._adopted_at = 0.0
        self._opening, self._canceling = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_AT_ONCE)
        if scope.pool is not None:
            scope.pool.looks.append(partial(self._look, scope.pool))
            scope.pool.on_note["ended"] = self._on_ended
            scope.pool.on_note["left"] = partial(self._on_left, scope.pool)
            scope.pool.on_reaped.append(self._adopt_soon)

    # Life

    async def start(self) -> None:
        """Send all open tasks again, because they have no result yet."""
        self._started = True
        await self._resender.start()

    async def stop(self, reason: MQTTAgentError | None = None) -> None:
        """Stop following tasks. The tasks themselves continue at their peers.

        Args:
            reason: The error that ends the connection, for the handles of open tasks; None when there is no error.
        """
        self._started = False
        self._tasks.background.cancel()
        await self._tasks.background.wait()
        with contextlib.suppress(StoreError):
            await self._tasks.store_states()
        if reason is None:
            reason = ConnectionLost(f"agent {self._scope.agent_id} was stopped")
        await self._fail_all(reason)
        self._tasks.reminders.clear()

    def on_refused(self, reason: MQTTAgentError) -> None:
        """End the handles of all open tasks with an error. The tasks themselves continue at their peers."""
        self._tasks.background.start(self._fail_all(reason))

    async def _fail_all(self, reason: MQTTAgentError) -> None:
        async for handle in in_steps(list(self._tasks.handles.values())):
            handle.fail(with_message(reason, f"{reason}; task {handle.task_id} goes on: resume() it"))

    async def drain(self) -> None:
        """Wait until the results that have arrived since :meth:`stop` are stored, or until storing them has failed."""
        await self._tasks.background.wait()

    def leave_to_parent(self, error: MQTTAgentError) -> None:
        """Let the handles of all open tasks raise an error in a forked process."""
        for handle in list(self._tasks.handles.values()):
            handle.leave_to_parent(error)

    def on_peer_back(self, peer: str) -> None:
        """Send the open tasks of a peer again, because the peer is back and may have lost them."""
        self._tasks.reminders.hurry(peer)

    def on_reconnected(self) -> None:
        """Send all open tasks again, because tasks or results may have got lost with the connection."""
        what = "the list of the tasks to send again"
        self._tasks.background.start(self._scope.retry.until_stored(self._resender.resend_all, what))

    # Pools

    def _adopt_soon(self) -> None:
        self._adopts_at = 0.0

    async def _on_left(self, pool: PoolMember, _: MemberNote) -> None:
        self._adopts_at = min(self._adopts_at, self._adopted_at + _ADOPT_AT_MOST_EVERY)
        pool.look_soon()

    async def _look(self, pool: PoolMember) -> None:
        """Find out which followed tasks are over, and ask for the tasks of members that are gone."""
        now = asyncio.get_running_loop().time()
        if self._started and now >= self._adopts_at:
            self._adopted_at, self._adopts_at = now, now + _ADOPT_EVERY
            await self._resender.adopt(pool)
        for task_id in await pool.store.ended(
            [each for each, handle in self._tasks.handles.items() if not handle.done]
        ):
            await self._update(task_id)

    async def _on_ended(self, note: MemberNote) -> None:
        handle = self._tasks.handles.get(note.task_id or "")
        if handle is not None and not handle.done:
            await self._update(handle.task_id)

    async def _update(self, task_id: str) -> None:
        record, handle = await self._tasks.get(task_id), self._tasks.handles.get(task_id)
        if record is not None and handle is not None and not handle.done and record.state.terminal:
            self._tasks.update(handle, record)

    # Delegating

    async def open(self, task: Task, *, synchronous: bool, listen: bool, expires_at: float | None) -> TaskHandle:
        """Store a task, then send it.

        Args:
            task: The complete task, with its peer as ``to``.
            synchronous: Whether the caller waits for the result. The result of a task on a plain topic then goes to a
                topic of the task's own.
            listen: Whether the requester wants events.
            expires_at: When the task expires, Unix seconds; None for never.

        Raises:
            TaskRejected: The store has another task with this id.
            StoreError: The task could not be stored, and was not sent.
            TransportError, PayloadTooLarge: The task cannot be sent, or the broker refused it.
        """
        assert task.to is not None
        task.max_result = self._scope.max_result
        payload = encode(task)
        content = pydantic_core.from_json(payload)
        record = TaskRecord(
            key=self._tasks.key(task.task_id),
            peer=task.to,
            task=content,
            digest=digest_of(content),
            reply_to=self._sender.bound_results(task.to),
            expires_at=expires_at,
        )
        self._sender.check(record, payload, synchronous)
        async with self._opening:
            return await self._open(record, synchronous=synchronous, listen=listen)

    async def _open(self, record: TaskRecord, *, synchronous: bool, listen: bool) -> TaskHandle:
        known = self._tasks.handles.get(record.task_id)
        handle = known or self._follow(record, listen=listen, synchronous=synchronous)
        self._callers[record.task_id] += 1
        try:
            if record.task_id in self._listening:
                await self._subscribed()
            stored = await self._add(record)
        except BaseException as error:
            self._drop_caller(record.task_id)
            if known is None:
                ours = isinstance(error, MQTTAgentError)
                handle.fail(error if ours else ConnectionLost(f"task {record.task_id} was not sent"))
            raise
        if known is None:
            self._tasks.update(handle, stored)
        if known is None and _durations.wanted:
            handle.when_over(partial(_measure, handle))
        if not handle.done:
            if stored.reply_to != record.reply_to:  # an earlier process has given the task
                stored = await self._sender.in_dialect(stored)
            self._tasks.schedule(stored)
            # A repeat changes the result's topic. Only the first request() subscribes to the task's own result topic.
            await self._sender.send_first(handle, stored, synchronous and known is None)
        return handle

    async def _add(self, record: TaskRecord) -> TaskRecord:
        """Store a task, unless it is stored already. Returns the stored record."""
        task_id = record.task_id
        reached("delegated.before-commit")
        try:
            stored, added = await self._tasks.add(record)
        except StoreError as error:
            raise with_message(error, f"task {task_id} was not stored, and so not sent: {error}") from error
        reached("delegated.after-commit")
        # An older version stored another digest of the same content.
        same = added or record.digest in (stored.digest, digest_of(stored.task))
        if not same or stored.peer != record.peer:
            other = "" if stored.peer == record.peer else f" (agent {stored.peer} has the other task)"
            problem = f"task id {task_id} names another task already; this task was not sent{other}"
            raise TaskRejected(problem, task_id=task_id, peer=stored.peer, code="conflict")
        return stored

    # Finding again

    async def resume(self, task_id: str, peer: str | None) -> TaskHandle:
        """Make a handle of a task that was delegated before; see :meth:`Agent.resume`.

        Args:
            task_id: The task's id.
            peer: The agent that the task was given to, for a task that the store does not know.

        Raises:
            TaskNotFound: The store does not know the task, and ``peer`` is None.
        """
        known = self._tasks.handles.get(task_id)
        if known is not None:
            await self.listen(known)
            return known
        record = await self._tasks.get(task_id) or await self._add_unknown(task_id, peer)
        handle = self._tasks.handles.get(task_id) or self._follow(record, listen=not record.state.terminal)
        self._tasks.update(handle, record)
        if not handle.done:
            self._tasks.schedule(record)
            await self._subscribed()
            sending = self._tasks.background.start(self._resender.ask_again(record))
            if self._scope.connection.connected:
                await asyncio.wait([sending], timeout=CONFIRMED_WITHIN)
        return handle

    async def _add_unknown(self, task_id: str, peer: str | None) -> TaskRecord:
        """Store a task when only its id and its peer are known. The peer is then asked for the result."""
        agent_id = self._scope.agent_id
        if peer is None:
            raise TaskNotFound(
                f"the store of agent {agent_id} has no delegated task {task_id}; give peer= to ask the peer for it",
                task_id=task_id,
            )
        await self._peers.follow(peer)  # the peer's card says on which topics the peer knows the task
        task = Task(task_id=task_id, sender=agent_id, to=peer)
        record, _ = await self._tasks.add(
            TaskRecord(
                self._tasks.key(task_id),
                peer,
                pydantic_core.from_json(encode(task)),
                task.digest,
                reply_to=self._sender.bound_results(peer),
            )
        )
        return record

    async def handles(self, states: frozenset[TaskState] | None) -> TaskList[TaskHandle]:
        """Make handles of all tasks in these states, in the order in which the tasks were delegated."""
        await self._tasks.store_states()
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
            self._listen_to_events(handle)
        if synchronous and not handle.bound:
            topic = self._scope.topics.task_result(record.task_id)
            self._listen(record.task_id, topic, self.results.on_result, manual=True)
        return handle

    def _listen_to_events(self, handle: TaskHandle) -> None:
        self._eventful.add(handle.task_id)
        topic = self._scope.topics.task_events(handle.task_id)
        # The agent is subscribed to all sender-bound events of its tasks.
        if not handle.bound and all(topic != known for known, _ in self._listening.get(handle.task_id, ())):
            self._listen(handle.task_id, topic, self.results.on_event)

    def _on_other_topics(self, handle: TaskHandle) -> None:
        if handle.task_id in self._eventful:
            self._listen_to_events(handle)

    def _listen(self, task_id: str, topic: str, handler: Handler, *, manual: bool = False) -> None:
        self._listening.setdefault(task_id, []).append((topic, handler))
        # This need not be awaited: the task is sent later on the same connection, so the subscription comes first.
        self._tasks.background.start(self._scope.connection.subscribe(topic, handler, manual=manual))

    async def listen(self, handle: TaskHandle) -> None:
        """Subscribe to the events of an open task; see :meth:`TaskHandle.events`."""
        followed = self._tasks.handles.get(handle.task_id) is handle
        if not followed or handle.task_id in self._eventful:
            return
        self._listen_to_events(handle)
        await self._subscribed()
        await self._resender.resend(handle.task_id)  # the peer answers with the present state

    async def _subscribed(self) -> None:
        """Wait until the background tasks have sent their subscriptions, before the caller sends anything."""
        await asyncio.sleep(0)

    def _forget(self, task_id: str) -> None:
        self._tasks.forget(task_id)
        self._callers.pop(task_id, None)
        self._eventful.discard(task_id)
        for topic, handler in self._listening.pop(task_id, ()):
            if self._started:
                self._tasks.background.start(self._scope.connection.unsubscribe(topic, handler))

    # For handles

    def _drop_caller(self, task_id: str) -> bool:
        """Note that a caller does not want a task any more. Returns whether an open task has no caller any more."""
        if task_id not in self._callers:  # the task is over
            return False
        self._callers[task_id] -= 1
        return self._callers[task_id] <= 0

    async def leave(self, handle: TaskHandle, reason: str) -> None:
        """Cancel a task whose caller does not want the result any more, unless another caller has given it too.

        The caller is being canceled. So this raises no error of this package. The cancel is stored in the background,
        and a cancel that cannot be sent is logged.
        """
        if not self._drop_caller(handle.task_id) or handle.state.terminal:
            return
        mark = partial(self._mark_canceled, handle.task_id)
        what = f"the cancel of task {handle.task_id:.80}"
        self._tasks.background.start(self._scope.retry.until_stored(mark, what))
        with contextlib.suppress(MQTTAgentError):  # logged by the background tasks
            await self._cancels.send(handle, reason)

    async def cancel(self, handle: TaskHandle, reason: str | None) -> None:
        """See :meth:`TaskHandle.cancel`."""
        if handle.state.terminal:
            return
        async with self._canceling:
            await self._mark_canceled(handle.task_id)
            await self._cancels.send(handle, reason)

    async def _mark_canceled(self, task_id: str) -> None:
        changed = await self._tasks.change(task_id, cancel_requested=True)
        if changed is not None:
            self._tasks.schedule(changed)

    async def send_input(self, handle: TaskHandle, value: Any, input_id: str | None) -> None:
        """See :meth:`TaskHandle.send`."""
        await self._inputs.send(handle, value, input_id)

    async def save(self, handle: TaskHandle, value: Any) -> None:
        """See :meth:`TaskHandle.save`."""
        value = checked_json(value, "saved", f"task {handle.task_id}")
        if await self._tasks.change(handle.task_id, saved=value) is not None:
            handle.saved = value


def _measure(handle: TaskHandle) -> None:
    if handle.response is not None:  # otherwise the task goes on, and this process does not follow it any more
        _durations.record(
            handle.elapsed, handle.peer, None if handle.state is TaskState.COMPLETED else handle.state.value
        )
