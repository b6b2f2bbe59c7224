"""Giving tasks to peers, and seeing to it that each gets its one result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.agents.handle import TaskHandle, input_id_of
from mqtt_agent.agents.outcome import result_of, with_words
from mqtt_agent.agents.patience import Patience
from mqtt_agent.agents.reminders import Reminders
from mqtt_agent.agents.store import OPEN, TaskKey, TaskRecord, TaskStore
from mqtt_agent.background_tasks import BackgroundTasks
from mqtt_agent.crashpoints import reached, reached_when_sent
from mqtt_agent.display import TaskList
from mqtt_agent.errors import (
    ConnectionLost,
    MQTTAgentError,
    QueueFull,
    StoreError,
    TaskError,
    TaskNotFound,
    TaskRejected,
    TransportError,
    WireError,
)
from mqtt_agent.faultlog import FaultLog
from mqtt_agent.transport import (
    NO_MATCHING_SUBSCRIBERS,
    Connection,
    InboundMessage,
    PublishProperties,
    check_reason_code,
)
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import (
    Control,
    Task,
    TaskEvent,
    TaskFault,
    TaskResult,
    TaskState,
    Topics,
    decode,
    encode,
    is_identifier,
    read_result_state,
    to_json,
)

__all__ = ["Delegations"]

logger = logging.getLogger(__name__)

_CHUNK = 100
_AT_ONCE = 200
_CONFIRMED_WITHIN = 5.0
_CROSSED_WITHIN = 5.0
_MAX_EXPIRY = 2**32 - 1  # what fits into MQTT's property
_ANSWERED_WITHIN = 0.5
_NOTED_WITHIN = 0.2


class Delegations:
    """The tasks that one agent has given away.

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
        self.results_topic = topics.results(name)
        self._connection = connection
        self._topics = topics
        self._agent = agent
        self._name = name
        self._store = store
        self._is_away = is_away
        self._max_payload = max_payload
        self._handles: dict[str, TaskHandle] = {}
        self._listening: dict[str, list[tuple[str, Handler]]] = {}
        self._reminders = Reminders()
        self._started = False
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self._unanswered: set[str] = set()
        self._all_answered = asyncio.Event()
        self._tasks = BackgroundTasks(self._on_failure)
        self._unnoted: dict[str, TaskHandle] = {}
        self._noting: asyncio.TimerHandle | None = None
        self._patience = Patience()
        self._faults = FaultLog(logger)

    def key(self, task_id: str) -> TaskKey:
        """The name of a task's record."""
        return TaskKey(self._agent, "delegated", task_id)

    # Life

    async def start(self) -> None:
        """Ask after everything that has no result yet."""
        self._started = True
        await self.ask_after_all()
        self._tasks.start(self._ask_again(), name="mqtt-agent ask again")

    async def stop(self, reason: MQTTAgentError | None = None) -> None:
        """Follow nothing any more; the tasks go on."""
        self._started = False
        self._tasks.cancel()
        await self._tasks.wait()
        with contextlib.suppress(StoreError):
            await self._note_states()
        for handle in list(self._handles.values()):
            what = f"task {handle.task_id} goes on: resume() it"
            if reason is None:
                handle.fail(ConnectionLost(f"agent {self._name} was stopped; {what}"))
            else:
                handle.fail(with_words(reason, f"{reason}; {what}"))
        self._reminders.clear()

    def on_peer_back(self, peer: str) -> None:
        """A peer is there again: it may never have got what was sent meanwhile."""
        self._reminders.hurry(peer)

    async def ask_after_all(self) -> None:
        """Send every open task again."""
        after = 0
        while True:
            records = await self._store.find(self._agent, "delegated", states=OPEN, after=after, limit=_CHUNK)
            for record in records:
                self._reminders.add(record.task_id, record.peer or "", record.expires_at, at_once=True)
            if not records:
                return
            after = records[-1].position

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
            key=self.key(task.task_id),
            peer=peer,
            task=pydantic_core.from_json(payload),
            digest=task.digest,
            expires_at=expires_at,
        )
        known = self._handles.get(task.task_id)
        handle = known or self._follow(record, listen=listen, synchronous=synchronous)
        await self._subscribed()
        reached("delegated.before-commit")
        try:
            stored, added = await self._store.add(record)
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
                self._take_over(handle, stored)
        if not handle.done:
            self._remember(stored)
            await self._send_first(handle, stored, synchronous)
        return handle

    async def resume(self, task_id: str, peer: str | None) -> TaskHandle:
        """A handle on a task that was delegated before.

        Raises:
            TaskNotFound: It is not in the store, and no peer was named.
        """
        known = self._handles.get(task_id)
        if known is not None:
            await self.listen(known)
            return known
        record = await self._store.get(self.key(task_id))
        if record is None and peer is None:
            raise TaskNotFound(
                f"agent {self._name} has delegated no task {task_id} that its store knows; name the peer to ask it",
                task_id=task_id,
            )
        if record is None:
            task = Task(task_id=task_id, sender=self._name, to=peer)
            record, _ = await self._store.add(
                TaskRecord(self.key(task_id), peer, pydantic_core.from_json(encode(task)), task.digest)
            )
        handle = self._handles.get(task_id) or self._follow(record, listen=not record.state.terminal)
        self._take_over(handle, record)
        if not handle.done:
            self._remember(record)
            await self._subscribed()
            sending = self._tasks.start(self._send(record))
            if self._connection.connected:
                await asyncio.wait([sending], timeout=_CONFIRMED_WITHIN)
        return handle

    async def handles(self, states: frozenset[TaskState] | None) -> TaskList[TaskHandle]:
        """Handles on all tasks in these states, in the order in which they were delegated."""
        await self._note_states()
        found = TaskList[TaskHandle]()
        after = 0
        while True:
            records = await self._store.find(self._agent, "delegated", states=states, after=after, limit=_CHUNK)
            for record in records:
                handle = self._handles.get(record.task_id)
                if handle is None:
                    handle = self._follow(record, listen=False) if not record.state.terminal else self._make(record)
                    self._take_over(handle, record)
                found.append(handle)
            if not records:
                return found
            after = records[-1].position

    def _make(self, record: TaskRecord) -> TaskHandle:
        return TaskHandle(record, self)

    def _follow(self, record: TaskRecord, *, listen: bool, synchronous: bool = False) -> TaskHandle:
        handle = self._handles[record.task_id] = self._make(record)
        handle.when_over(partial(self._forget, record.task_id))
        if listen:
            self._listen(record.task_id, self._topics.task_events(record.task_id), self._on_event)
        if synchronous:
            self._listen(record.task_id, self._topics.task_result(record.task_id), self.on_result)
        return handle

    def _listen(self, task_id: str, topic: str, handler: Handler) -> None:
        self._listening.setdefault(task_id, []).append((topic, handler))
        # Not awaited: the broker reads it before the task that follows on the same connection.
        self._tasks.start(self._connection.subscribe(topic, handler, manual=handler == self.on_result))

    async def listen(self, handle: TaskHandle) -> None:
        """Follow the events of a task that is not over; see :meth:`TaskHandle.events`."""
        topic = self._topics.task_events(handle.task_id)
        followed = self._handles.get(handle.task_id) is handle
        if not followed or any(topic == each for each, _ in self._listening.get(handle.task_id, ())):
            return
        self._listen(handle.task_id, topic, self._on_event)
        await self._subscribed()
        await self._ask_after(handle.task_id)  # the answer tells where it stands

    async def _subscribed(self) -> None:
        """Let the subscriptions that were begun go out, before anything else does."""
        await asyncio.sleep(0)

    def _take_over(self, handle: TaskHandle, record: TaskRecord) -> None:
        """Let a handle know what the store knows."""
        handle.state, handle.saved = record.state, record.saved
        handle.answers = {given["input_id"]: given["answer"] for given in record.inputs}
        if record.result is not None:
            handle.settle(TaskResult.model_validate(record.result))

    def _forget(self, task_id: str) -> None:
        self._handles.pop(task_id, None)
        self._unnoted.pop(task_id, None)
        self._reminders.drop(task_id)
        for topic, handler in self._listening.pop(task_id, ()):
            if self._started:
                self._tasks.start(self._connection.unsubscribe(topic, handler))

    def _remember(self, record: TaskRecord) -> None:
        self._reminders.add(record.task_id, record.peer or "", record.expires_at)

    # Sending

    async def _send_first(self, handle: TaskHandle, record: TaskRecord, synchronous: bool) -> None:
        reply_to = self._topics.task_result(record.task_id) if synchronous else self.results_topic
        try:
            confirmed = self._publish(record, reply_to)
        except QueueFull as error:
            logger.info("task %s is sent later: %s", record.task_id, error)
            return
        await reached_when_sent("delegated.published")
        confirmed.add_done_callback(partial(self._on_confirmed, handle, record))
        if not synchronous and self._connection.connected:
            await asyncio.wait([confirmed], timeout=_CONFIRMED_WITHIN)
            handle.raise_failure()

    def _publish(self, record: TaskRecord, reply_to: str) -> asyncio.Future[int]:
        left = None if record.expires_at is None else math.ceil(record.expires_at - time.time())
        expiry = None if left is None or left > _MAX_EXPIRY else max(1, left)
        properties = PublishProperties(
            response_topic=reply_to, correlation_data=record.task_id.encode(), message_expiry=expiry
        )
        payload = pydantic_core.to_json(record.task)
        return self._connection.publish_soon(self._topics.inbox(record.peer or ""), payload, properties=properties)

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
            self._tasks.start(self._give_up(record.key, TaskFault(type=type(error).__name__, message=str(error))))

    async def _give_up(self, key: TaskKey, fault: TaskFault) -> None:
        result = result_of(key.task_id, self._name, self._name, TaskState.FAILED, fault)
        changed = await self._store.change(key, OPEN, state=TaskState.FAILED, result=result, settled=True)
        self._reminders.drop(key.task_id)
        handle = self._handles.get(key.task_id)  # asked now: somebody may have begun to follow it meanwhile
        if changed is not None and handle is not None:
            handle.settle(TaskResult.model_validate(result))

    async def _send(self, record: TaskRecord) -> None:
        """Send it again: what of it the peer does not know yet."""
        peer, handle = record.peer or "", self._handles.get(record.task_id)
        try:
            if record.cancel_requested:
                await self._say(peer, Control(task_id=record.task_id, action="cancel", sender=self._name))
            else:
                check_reason_code(await self._publish(record, self.results_topic), self._topics.inbox(peer))
        except MQTTAgentError as error:
            logger.info("task %s could not be sent to %s again: %s", record.task_id, peer, error)
        if handle is not None and handle.done:
            self._reminders.drop(record.task_id)

    async def _ask_again(self) -> None:
        while True:
            due, expired = await self._reminders.due(_CHUNK)
            for task_id, peer in expired:
                fault = TaskFault(type="expired", message=f"no result from {peer} before it expired")
                await self._expire(task_id, fault)
            await self._ask_after_some(due)

    async def _ask_after_some(self, task_ids: list[str]) -> None:
        """Ask, and wait a moment for the answers: to ask faster would fill the queues that brokers drop from."""
        self._unanswered = set(task_ids)
        self._all_answered.clear()
        asked = await asyncio.gather(*(self._ask_after(task_id) for task_id in task_ids))
        self._unanswered &= {task_id for task_id, sent in zip(task_ids, asked, strict=True) if sent}
        if self._unanswered:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), _ANSWERED_WITHIN)

    def _answered(self, task_id: str) -> None:
        self._unanswered.discard(task_id)
        if not self._unanswered:
            self._all_answered.set()

    async def _expire(self, task_id: str, fault: TaskFault) -> None:
        try:
            await self._give_up(self.key(task_id), fault)
        except StoreError as error:
            logger.error("task %s has expired and could not be closed: %s", task_id, error)

    async def _ask_after(self, task_id: str) -> bool:
        try:
            record = await self._store.get(self.key(task_id))
        except StoreError as error:
            logger.error("task %s cannot be read: %s", task_id, error)
            return False
        if record is None or record.state.terminal:
            self._reminders.drop(task_id)
            handle = self._handles.get(task_id)
            if record is not None and handle is not None:
                self._take_over(handle, record)
        elif self._connection.connected and not self._is_away(record.peer or ""):
            await self._send(record)
            return True
        return False

    # What comes in

    def on_result(self, message: InboundMessage) -> None:
        """A result came; it is acknowledged when it is stored."""
        try:
            result = decode(TaskResult, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable result", error)
            self._take_patiently(partial(self._take_unreadable, message, str(error)), "an unreadable result")
            return
        if message.retain or not is_identifier(result.task_id):
            self._faults.tell(message.topic, "a result that cannot be one", repr(result.task_id))
            message.acknowledge()
        elif not read_result_state(result).terminal:
            self._faults.tell(message.topic, "a result of a task that is not over", result.status)
            message.acknowledge()
        elif result.to not in (None, self._name):
            self._faults.tell(message.topic, "a result for somebody else", repr(result.to))
            message.acknowledge()
        else:
            message.hold()
            self._take_patiently(partial(self._take_result, result, message), f"the result of task {result.task_id}")

    def _take_patiently(self, take: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
        self._tasks.start(self._patience.stored(take, what))

    async def _take_unreadable(self, message: InboundMessage, problem: str) -> None:
        """It would come again, as unreadable, whenever its task is asked after."""
        task_id = (message.correlation_data or b"").decode(errors="replace")
        if is_identifier(task_id) and not message.retain:
            await self._give_up(self.key(task_id), TaskFault(type="unreadable_result", message=problem))
        message.acknowledge()

    async def _take_result(self, result: TaskResult, message: InboundMessage) -> None:
        key = self.key(result.task_id)
        handle = self._handles.get(result.task_id)
        peer = handle.peer if handle is not None else None
        if handle is None:
            record = await self._store.get(key)
            peer = record.peer if record is not None else None
            if record is None or record.state.terminal:
                if record is None:
                    self._faults.tell(message.topic, "a result of a task that nobody gave away", result.task_id)
                message.acknowledge()
                return
        if result.sender not in (None, peer):
            self._faults.tell(message.topic, "a result from another agent than the task went to", repr(result.sender))
            message.acknowledge()
            return
        plain: dict[str, Any] = pydantic_core.from_json(encode(result))
        reached("outcome.before-commit")
        changed = await self._store.change(key, OPEN, state=read_result_state(result), result=plain, settled=True)
        reached("outcome.after-commit")
        message.acknowledge()
        self._reminders.drop(result.task_id)
        self._answered(result.task_id)
        handle = self._handles.get(result.task_id) or handle  # somebody may have begun to follow it meanwhile
        if handle is not None:
            if changed is None:
                stored = await self._store.get(key)
                if stored is None or stored.result is None:
                    return
                result = TaskResult.model_validate(stored.result)
            handle.settle(result)

    def _on_event(self, message: InboundMessage) -> None:
        try:
            event = decode(TaskEvent, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable event", error)
            return
        handle = self._handles.get(event.task_id)
        if handle is None or message.topic != self._topics.task_events(event.task_id):
            return
        self._reminders.put_off(event.task_id)  # its peer has it
        self._answered(event.task_id)
        before = handle.state
        news = handle.take_event(event)
        if not handle.state.terminal and handle.state is not before:
            self._note_soon(handle)
        if news and handle.question is not None and event is handle.question:
            input_id = input_id_of(event)
            if input_id is None:
                return
            if "fault" in event.data:  # the answer will not do, and must not be sent again
                handle.answers.pop(input_id, None)
                self._tasks.start(self._keep_answers(handle))
            elif input_id in handle.answers and self._got_lost(handle, input_id, event):
                word = self._input(handle, handle.answers[input_id], input_id)
                self._note_answered(handle, input_id, event.attempt)
                self._tasks.start(self._say_soon(handle.peer, word))

    def _got_lost(self, handle: TaskHandle, input_id: str, event: TaskEvent) -> bool:
        """Whether the answer to a question that is asked again has to be sent again."""
        attempt, sent_at = handle.answered.get(input_id, (None, -math.inf))
        # With an attempt before this one, with the process that gave it, or on its way; but two may just have crossed.
        return attempt != event.attempt or asyncio.get_running_loop().time() - sent_at > _CROSSED_WITHIN

    def _note_answered(self, handle: TaskHandle, input_id: str, attempt: int | None) -> None:
        handle.answered[input_id] = (attempt, asyncio.get_running_loop().time())

    def _note_soon(self, handle: TaskHandle) -> None:
        # Most tasks are over before: then the result is stored, and where they stood need not be.
        self._unnoted[handle.task_id] = handle
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(_NOTED_WITHIN, self._note_now)

    def _note_now(self) -> None:
        self._tasks.start(self._note_states())

    async def _note_states(self) -> None:
        """Store where the tasks stand."""
        if self._noting is not None:
            self._noting.cancel()
            self._noting = None
        handles, self._unnoted = self._unnoted, {}
        await asyncio.gather(
            *(
                self._store.change(self.key(task_id), OPEN, state=handle.state)
                for task_id, handle in handles.items()
                if not handle.state.terminal
            )
        )

    # Words to the peer

    async def cancel(self, handle: TaskHandle, reason: str | None) -> None:
        """See :meth:`TaskHandle.cancel`."""
        if handle.state.terminal:
            return
        changed = await self._store.change(self.key(handle.task_id), OPEN, cancel_requested=True)
        if changed is not None:
            self._remember(changed)
        word = Control(task_id=handle.task_id, action="cancel", sender=self._name, reason=reason)
        await self._say_soon(handle.peer, word)

    async def send_input(self, handle: TaskHandle, value: Any, input_id: str | None) -> None:
        """See :meth:`TaskHandle.send`."""
        if handle.state.terminal:
            what = f"task {handle.task_id} is over ({handle.state}) and takes no input"
            raise TaskError(what, task_id=handle.task_id, peer=handle.peer)
        if input_id is None and handle.question is not None:
            input_id = input_id_of(handle.question)
        value = to_json(value)
        if input_id is not None:
            handle.answers[input_id] = value
            self._note_answered(handle, input_id, handle.attempt)
            await self._keep_answers(handle)
        handle.question = None
        await self._say_soon(handle.peer, self._input(handle, value, input_id))

    async def _keep_answers(self, handle: TaskHandle) -> None:
        inputs = [{"input_id": each, "answer": answer} for each, answer in handle.answers.items()]
        changed = await self._store.change(self.key(handle.task_id), OPEN, inputs=inputs)
        if changed is not None:
            self._remember(changed)

    async def save(self, handle: TaskHandle, value: Any) -> None:
        """See :meth:`TaskHandle.save`."""
        value = to_json(value)
        if await self._store.change(self.key(handle.task_id), OPEN, saved=value) is not None:
            handle.saved = value

    def _input(self, handle: TaskHandle, value: Any, input_id: str | None) -> Control:
        return Control(task_id=handle.task_id, action="input", sender=self._name, input=value, input_id=input_id)

    async def _say_soon(self, peer: str, word: Control) -> None:
        """Say it; while the connection is away, when it is back."""
        saying = self._tasks.start(self._say(peer, word))
        if self._connection.connected:
            await asyncio.wait([saying], timeout=_CONFIRMED_WITHIN)
            if saying.done() and not saying.cancelled():
                saying.result()

    async def _say(self, peer: str, word: Control) -> None:
        properties = PublishProperties(response_topic=self.results_topic, correlation_data=word.task_id.encode())
        await self._connection.publish(self._topics.control(peer), encode(word), properties=properties)

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        if isinstance(error, MQTTAgentError):
            logger.warning("agent %s: %s", self._name, error)
        else:
            logger.error("agent %s could not go on with a task", self._name, exc_info=error)
