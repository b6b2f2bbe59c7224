"""One attempt at a received task: what its handler tells, stores and asks."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from pydantic import BaseModel
from typing_extensions import Unpack

from mqtt_agent.agents.executing.slots import Slots
from mqtt_agent.agents.store import ACTIVE, RESERVED_SEQS, Changes, TaskKey, TaskRecord, TaskStore
from mqtt_agent.errors import MQTTAgentError, TaskCanceled, WireError
from mqtt_agent.transport import PacedSender
from mqtt_agent.wire import TaskEvent, TaskState, encode, to_json

__all__ = ["Attempt", "Question"]

logger: logging.Logger = logging.getLogger(__name__)


@dataclass
class Question:
    """What a handler waits to be told.

    Attributes:
        input_id: Names the question within its task.
        prompt: The question.
        schema: JSON Schema of the answer.
        answered: Gets the answer.
        taken: Whether an answer is being stored.
    """

    input_id: str
    prompt: str
    schema: Any
    answered: asyncio.Future[Any]
    taken: bool = False

    def fault_of(self, answer: Any) -> str | None:
        """What is wrong with an answer; None when it will do."""
        if self.schema is None:
            return None
        try:
            jsonschema_rs.validator_for(self.schema).validate(answer)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            return str(getattr(error, "message", error))
        return None


class Attempt:
    """A handler's hold on its task. Everything it changes in the store it changes only while it is the latest attempt.

    Args:
        record: As it was claimed.
        store: Where it is.
        send: Publishes an event.
        slots: Where the handler's place comes from, which a waiting one gives back.
    """

    def __init__(
        self, record: TaskRecord, store: TaskStore, send: Callable[[bytes], asyncio.Future[int]], slots: Slots
    ) -> None:
        self.number: int = record.attempt
        self.key: TaskKey = record.key
        self.saved: Any = record.saved
        self.state: TaskState = TaskState.WORKING
        self.listening: bool = record.task.get("stream") is not False
        """Whether events are sent."""
        self.over: bool = False
        """Whether nothing that it tells counts any more."""
        self.has_slot: bool = True
        self.artifacts: dict[str, Any] = {}
        self.question: Question | None = None
        self._store = store
        self._sender = PacedSender(send)
        self._slots = slots
        self._inputs = record.inputs
        self._asked = 0
        self._seq_limit = record.seq
        self.seq: int = record.seq - RESERVED_SEQS
        """The number of the latest event."""

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        if not self.over and self.listening:
            await self._send(TaskEvent(task_id=self.key.task_id, type=kind, **fields))

    async def _send(self, event: TaskEvent) -> None:
        await self.reserve()
        self.seq += 1
        event.seq = self.seq
        try:
            await self._sender.send(encode(event))
        except WireError:
            raise
        except MQTTAgentError as error:
            logger.warning("an event of task %s was not sent: %s", self.key.task_id, error)

    async def reserve(self) -> None:
        """See to it that there is a number for one more event."""
        if self.seq >= self._seq_limit:
            # Set aside before use: after a crash, the next attempt begins above.
            await self._change(seq=self._seq_limit + RESERVED_SEQS)
            self._seq_limit += RESERVED_SEQS

    def status(self) -> TaskEvent:
        """Where the task stands now: an answer to a question, without a number, and so not part of the sequence."""
        event = TaskEvent(task_id=self.key.task_id, type="status", status=self.state.value, attempt=self.number)
        if self.state is TaskState.INPUT_REQUIRED and self.question is not None:
            event.content = self.question.prompt
            event.data = {"input_id": self.question.input_id}
            if self.question.schema is not None:
                event.data["schema"] = self.question.schema
        return event

    async def tell_status(self, fault: str | None = None) -> None:
        """Send the state as an event.

        Args:
            fault: What is wrong with the answer to the question.
        """
        if self.over or not self.listening:
            return
        event = self.status()
        if fault is not None:
            event.data = {**event.data, "fault": fault}
        await self._send(event)

    async def add_artifact(self, name: str, data: Any) -> None:
        """Keep it for the result, and tell it."""
        self.artifacts[name] = data
        await self.tell("artifact", content=name, data=data)

    async def save(self, value: Any) -> None:
        """Store a checkpoint."""
        await self._change(saved=value)
        self.saved = value

    async def ask(self, prompt: str, schema: Any) -> Any:
        """Store the question, tell it, and wait for the answer."""
        model = schema if inspect.isclass(schema) and issubclass(schema, BaseModel) else None
        answer = await self._ask(prompt, schema if model is None else model.model_json_schema())
        return answer if model is None else model.model_validate(answer)

    async def _ask(self, prompt: str, schema: Any) -> Any:
        place, self._asked = self._asked, self._asked + 1
        schema = None if schema is None else to_json(schema)
        known = self._inputs[place] if place < len(self._inputs) else None
        if known is None or known["prompt"] != prompt:
            # Another way through the handler than last time: what was asked from here on does not count.
            fresh = str(place + 1) if known is None else f"{place + 1}.{self.number}"
            known = {"input_id": fresh, "prompt": prompt, "schema": schema}
            self._inputs = [*self._inputs[:place], known]
        if "answer" in known:
            return known["answer"]
        self._inputs = self._inputs[: place + 1]
        if self.question is not None:
            raise RuntimeError("one question at a time: await the answer before asking again")
        question = Question(known["input_id"], prompt, schema, asyncio.get_running_loop().create_future())
        self.question = question
        try:
            await self._change(state=TaskState.INPUT_REQUIRED, inputs=self._inputs)
            self.state = TaskState.INPUT_REQUIRED
            await self.tell_status()
            return await self._wait(question)
        finally:
            self.question = None

    async def _wait(self, question: Question) -> Any:
        self.has_slot = False
        self._slots.release()
        try:
            answer = await question.answered
        finally:
            if not self.over:
                await self._slots.take()
                self.has_slot = True
        await self._change(state=TaskState.WORKING)
        self.state = TaskState.WORKING
        await self.tell_status()
        return answer

    async def take_input(self, input_id: str | None, answer: Any) -> bool:
        """An answer came.

        Returns:
            Whether it was to the question that is open.
        """
        question = self.question
        if question is None or input_id not in (None, question.input_id) or question.taken:
            return False
        fault = question.fault_of(answer)
        if fault is not None:
            await self.tell_status(fault)
            return True
        question.taken = True
        answered = [*self._inputs[:-1], {**self._inputs[-1], "answer": answer}]
        try:
            await self._change(inputs=answered)
        except BaseException:
            question.taken = False  # not stored, so not given: it may come again
            raise
        self._inputs = answered
        if not question.answered.done():  # the handler may have been canceled meanwhile
            question.answered.set_result(answer)
        return True

    async def _change(self, **changes: Unpack[Changes]) -> None:
        changed = None
        if not self.over:
            changed = await self._store.change(self.key, ACTIVE, expected_attempt=self.number, **changes)
        if changed is None:
            self.over = True
            raise TaskCanceled(f"attempt {self.number} at task {self.key.task_id} is over", task_id=self.key.task_id)
