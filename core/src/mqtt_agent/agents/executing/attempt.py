"""One attempt at a received task. Its events are sent to the requester; its checkpoints and states are stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from typing_extensions import Unpack

from mqtt_agent.agents.store import ACTIVE, RESERVED_SEQS, Changes, TaskKey, TaskRecord, TaskStore
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, TaskCanceled
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import PacedSender, tell_if_denied
from mqtt_agent.wire import ASKING, Artifact, TaskEvent, TaskState, encode

__all__ = ["Attempt"]

logger: logging.Logger = logger_of(__name__)

_HELD_FOR = 0.02
"""Seconds for which the news that a handler has begun is held back. The result of a short handler says the same."""


class Attempt:
    """One attempt at a task: from the call of the handler to the handler's end.

    An attempt changes the task's record only as long as it is the latest attempt. So two processes with the same
    agent id cannot both end a task.

    Args:
        record: The task's record, as the store returned it when the attempt began.
        store: The store of the record.
        retry: Repeats a change that the store did not accept.
        send: Publishes an event to a topic; see :meth:`Connection.publish_soon`.
        sender: The id of this agent, which the events name.
        topic: The topic of the task's events; None when nobody can get events.

    Attributes:
        number: 1 for the first attempt at the task, 2 for the second attempt, and so on.
        key: The key of the task's record.
        saved: The latest checkpoint, any JSON value; None when there is none.
        state: The state of the task.
        listening: Whether the requester wants events.
        over: Whether the attempt has ended. Then the attempt sends and stores nothing.
        artifacts: The artifacts by their names.
        question: The open question as it is stored, see :attr:`TaskRecord.inputs`; None when no question is open.
        seq: The number of the latest event.
        topic: The topic of the task's events; None when nobody can get events.
        shared: Whether other members of a pool may store answers to the open question.
        begun: Whether the handler was called.
    """

    def __init__(
        self,
        record: TaskRecord,
        store: TaskStore,
        retry: StoreRetry,
        send: Callable[..., asyncio.Future[int]],
        sender: str,
        topic: str | None,
    ) -> None:
        self.number: int = record.attempt
        self.key: TaskKey = record.key
        self.saved: Any = record.saved
        self.state: TaskState = TaskState.WORKING
        self.listening: bool = topic is not None and record.task.get("stream") is not False
        self.over: bool = False
        self.artifacts: dict[str, Artifact] = {}
        self.question: dict[str, Any] | None = None
        self.seq: int = record.seq - RESERVED_SEQS
        self.topic: str | None = topic
        self.shared: bool = False
        self.begun: bool = False
        self._held: asyncio.TimerHandle | None = None
        self._released: asyncio.Task[None] | None = None
        self._names: dict[str, Any] = {"sender": sender, "to": record.peer}
        self._seq_limit = record.seq
        self._store = store
        self._retry = retry
        self._send_payload = send
        self._sender: PacedSender | None = None  # most tasks send no event

    def _publish(self, payload: bytes) -> asyncio.Future[int]:
        topic = self.topic or ""
        return self._send_payload(topic, payload, on_trouble=partial(tell_if_denied, topic, "the events of its tasks"))

    @property
    def end_seq(self) -> int | None:
        """The number of the task's end, one more than the number of its last event.

        None when the requester wants no events, or when an earlier attempt has sent the last one.
        """
        known = self.number == 1 or self.begun
        return self.seq + 1 if self.listening and known else None

    async def begin(self) -> None:
        """Note that the handler is called now, and tell the requester.

        In the first attempt, the requester is told a moment later, or together with the next event. When the attempt
        ends before, only its result is sent.
        """
        self.begun = True
        if self.number > 1:  # the requester does not know how many events the earlier attempts have sent
            await self.send_status()
        elif self.listening:
            self._held = asyncio.get_running_loop().call_later(_HELD_FOR, self._release_soon)

    def drop_held(self) -> None:
        """Leave it to the result to say that the handler has begun, if the requester was not told yet."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _release_soon(self) -> None:
        self._released = asyncio.ensure_future(self._release())

    async def _release(self) -> None:
        """Tell the requester that the handler has begun, if it was not told yet."""
        if self._held is None:
            return
        self.drop_held()
        if not self.over:
            working = TaskState.WORKING.value
            await self._send_numbered(self._event(type="status", status=working, attempt=self.number))

    def _event(self, **fields: Any) -> TaskEvent:
        return TaskEvent(task_id=self.key.task_id, **self._names, **fields)

    async def send_event(self, kind: str, **fields: Any) -> None:
        """Send an event to the requester, if the requester wants events.

        Args:
            kind: The event's type.
            fields: Further fields of :class:`TaskEvent`.
        """
        if not self.over and self.listening:
            await self._send(self._event(type=kind, **fields))

    async def _send(self, event: TaskEvent) -> None:
        await self._release()
        await self._send_numbered(event)

    async def _send_numbered(self, event: TaskEvent) -> None:
        await self._reserve()
        event.seq = self.seq + 1
        payload = encode(event, f"task {self.key.task_id}")
        self.seq += 1  # only now: a requester waits for every number, so an unsent event must not use a number
        try:
            if self._sender is None:
                self._sender = PacedSender(self._publish)
            await self._sender.send(payload)
        except PayloadTooLarge:
            self.seq -= 1
            raise
        except MQTTAgentError as error:
            logger.warning("an event of task %s was not sent: %s", self.key.task_id, error)

    async def _reserve(self) -> None:
        """Make sure that the next event has a number.

        The store reserves numbers before they are used. After a crash, the next attempt begins above the reserved
        numbers. So no number is used twice.

        Raises:
            TaskCanceled: The attempt is over.
            StoreError: The numbers could not be reserved, and the agent stops.
        """
        if self.seq >= self._seq_limit:
            await self.change(seq=self._seq_limit + RESERVED_SEQS)
            self._seq_limit += RESERVED_SEQS

    def status(self) -> TaskEvent:
        """The task's present state as an event without a number.

        Such an event answers a requester that asks for the state. The event does not belong to the numbered sequence.
        """
        event = self._event(type="status", status=self.state.value, attempt=self.number)
        if self.state in ASKING and self.question is not None:
            event.content = self.question["prompt"]
            event.data = {"input_id": self.question["input_id"]}
            if self.question["schema"] is not None:
                event.data["schema"] = self.question["schema"]
        return event

    async def send_status(self, fault: str | None = None) -> None:
        """Send the task's present state as an event, if the requester wants events.

        Args:
            fault: Why the answer to the open question was not accepted; None when no answer was refused.
        """
        if self.over or not self.listening:
            return
        event = self.status()
        if fault is not None:
            event.data = {**event.data, "fault": fault}
        await self._send(event)

    async def add_artifact(self, chunk: Artifact, *, append: bool = False, last_chunk: bool | None = None) -> None:
        """Keep an artifact for the result, and send it as an event.

        Args:
            chunk: The artifact, or the next chunk of it.
            append: Whether the content comes after the content of the artifact with this name.
            last_chunk: Whether the artifact is complete; None for an artifact that is not sent in chunks.
        """
        known = self.artifacts.get(chunk.name) if append else None
        self.artifacts[chunk.name] = chunk if known is None else known.followed_by(chunk)
        about = {"artifact_id": chunk.artifact_id, "metadata": chunk.metadata, "parts": chunk.parts}
        order = {"append": True if append else None, "last_chunk": last_chunk}
        await self.send_event("artifact", content=chunk.name, data=chunk.data, **about, **order)

    async def save(self, value: Any) -> None:
        """Store a checkpoint."""
        await self.change(saved=value)
        self.saved = value

    async def enter(self, state: TaskState, *, inputs: list[dict[str, Any]] | None = None) -> None:
        """Store a new state of the task, then send the state as an event.

        Args:
            state: The new state.
            inputs: The questions and answers that are stored with the state; None leaves them as they are.
        """
        changes: Changes = {"state": state}
        if inputs is not None:
            changes["inputs"] = inputs
        await self.change(**changes)
        self.state = state
        await self.send_status()

    async def store_answer(self, inputs: list[dict[str, Any]]) -> bool:
        """Store the answer to the open question.

        Returns:
            Whether it was stored. Not when another member of the pool has stored an answer before.
        """
        if not self.shared:
            await self.change(inputs=inputs)
            return True
        store = partial(
            self._store.change, self.key, ASKING, expected_attempt=self.number, inputs=inputs, state=TaskState.WORKING
        )
        return await self._retry.until_stored(store, f"an answer to task {self.key.task_id:.80}") is not None

    async def change(self, **changes: Unpack[Changes]) -> None:
        """Change the task's record. While the store does not work, this waits.

        Raises:
            TaskCanceled: The attempt is over: the task was canceled, or another attempt has begun.
            StoreError: The record could not be changed, and the agent stops or the value can never be stored.
        """
        what = f"a change of task {self.key.task_id:.80}"
        changed = await self._retry.until_stored(partial(self._change_once, changes), what)
        if changed is None:
            self.over = True
            raise TaskCanceled(f"attempt {self.number} at task {self.key.task_id} is over", task_id=self.key.task_id)

    async def _change_once(self, changes: Changes) -> TaskRecord | None:
        if self.over:
            return None
        return await self._store.change(self.key, ACTIVE, expected_attempt=self.number, **changes)
