"""Stores the questions of a handler, and gives the answers to the handler that waits for them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mqtt_agent.agents.executing.attempt import Attempt
from mqtt_agent.agents.executing.seats import Seat
from mqtt_agent.agents.executing.slots import Slot
from mqtt_agent.errors import TaskCanceled
from mqtt_agent.logs import logger_of
from mqtt_agent.wire import TaskState, checked_json
from mqtt_agent.wire.schemas import Checker, schema_validator

__all__ = ["Questions", "fault_of"]

logger: logging.Logger = logger_of(__name__)

_MAX_FAULTS = 5
"""How many faults of an answer the requester is told at most."""


@dataclass
class _Waiting:
    """A handler that waits for an answer.

    Attributes:
        question: The question as it is stored.
        answered: Gets the answer once the answer is stored.
        storing: Whether an answer is being stored. Then a second answer comes too late.
    """

    question: dict[str, Any]
    answered: asyncio.Future[Any]
    storing: bool = False


class Questions:
    """The questions of one attempt.

    Questions and answers are stored in the order in which they were asked. When the handler runs again, it asks the
    same questions again, and gets the stored answers at once. A question with a name is recognised by its name, and
    any other question by its number among the questions without a name.

    Args:
        attempt: The attempt of the handler that asks.
        inputs: The questions and answers of earlier attempts; see :attr:`TaskRecord.inputs`.
        slot: The handler's slot, which the handler gives back while it waits for an answer.
        seat: The handler's place among those that wait for an answer; None when any number of them may wait.
    """

    def __init__(self, attempt: Attempt, inputs: list[dict[str, Any]], slot: Slot, seat: Seat | None = None) -> None:
        self._seat = seat
        self._attempt = attempt
        self._inputs = inputs
        self._slot = slot
        self._asked = 0
        self._waiting: _Waiting | None = None
        self._withdrawing: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> bool:
        """Whether the handler waits for an answer."""
        return self._waiting is not None and not self._waiting.answered.done()

    async def ask(
        self, prompt: str, schema: Any, name: str | None = None, state: TaskState = TaskState.INPUT_REQUIRED
    ) -> Any:
        """Ask the requester, and wait for the answer in this state; see :meth:`TaskContext.ask`."""
        model = schema if inspect.isclass(schema) and issubclass(schema, BaseModel) else None
        answer = await self._ask(prompt, schema if model is None else model.model_json_schema(), name, state)
        return answer if model is None else model.model_validate(answer)

    def close(self) -> None:
        """End the wait for an answer, because the task is over or the handler must stop. Later questions fail."""
        self._closed = True
        if self._waiting is not None and not self._waiting.answered.done():
            self._waiting.answered.set_exception(self._over())

    def _over(self) -> TaskCanceled:
        task_id = self._attempt.key.task_id
        what = f"attempt {self._attempt.number} at task {task_id} is over: no question is asked or answered any more"
        return TaskCanceled(what, task_id=task_id)

    async def _ask(self, prompt: str, schema: Any, name: str | None, state: TaskState) -> Any:
        if self._withdrawing is not None:
            await asyncio.shield(self._withdrawing)
        if self._closed:
            raise self._over()
        if self._waiting is not None:
            raise RuntimeError("one question at a time: await the answer before asking again")
        schema = None if schema is None else checked_json(schema, "schema")
        if schema is not None:
            schema_validator("the schema of the question", schema)  # no answer could match a schema that is not valid
        question = self._next_question(prompt, schema) if name is None else self._named(name, prompt, schema)
        if "answer" in question:
            return question["answer"]
        if self._seat is not None:
            self._seat.take()
        waiting = self._waiting = _Waiting(question, asyncio.get_running_loop().create_future())
        self._attempt.question = question
        try:
            await self._attempt.enter(state, inputs=self._inputs)
            return await self._wait(waiting)
        except asyncio.CancelledError:
            self._waiting = self._attempt.question = None
            if not self._closed:  # the handler goes on without an answer
                await self._withdraw()
            raise
        finally:
            self._waiting = self._attempt.question = None
            if self._seat is not None:
                self._seat.leave()

    async def _withdraw(self) -> None:
        """Take a question back: the task works again, and the requester is told so.

        A handler may be canceled several times while it waits for this, so the work is a task of its own.
        """
        self._withdrawing = asyncio.ensure_future(self._attempt.enter(TaskState.WORKING))
        self._withdrawing.add_done_callback(self._on_withdrawn)
        await asyncio.wait([self._withdrawing])

    def _on_withdrawn(self, withdrawing: asyncio.Future[None]) -> None:
        self._withdrawing = None
        error = None if withdrawing.cancelled() else withdrawing.exception()
        if error is not None and not isinstance(error, TaskCanceled):
            what = "the requester of task %.80s may not know that its question needs no answer any more: %s"
            logger.warning(what, self._attempt.key.task_id, error)

    def _next_question(self, prompt: str, schema: Any) -> dict[str, Any]:
        """The handler's next question: a stored question, perhaps with its answer, or a new question."""
        named = [each for each in self._inputs if "name" in each]
        numbered = [each for each in self._inputs if "name" not in each]
        place, self._asked = self._asked, self._asked + 1
        known = numbered[place] if place < len(numbered) else None
        if known is not None and known["prompt"] == prompt:
            if "answer" in known:
                return known
            input_id = known["input_id"]
        elif known is None:
            input_id = str(place + 1)
        else:
            # The handler asks another question than in the earlier attempt. From here on, stored questions are ignored.
            input_id = f"{place + 1}.{self._attempt.number}"
        question = {"input_id": input_id, "prompt": prompt, "schema": schema}
        self._inputs = [*named, *numbered[:place], question]
        return question

    def _named(self, name: str, prompt: str, schema: Any) -> dict[str, Any]:
        """The handler's question of this name: a stored question, perhaps with its answer, or a new question."""
        known = next((each for each in self._inputs if each.get("name") == name), None)
        if known is None:
            input_id = name
        elif known["prompt"] != prompt:
            input_id = f"{name}.{self._attempt.number}"
        elif "answer" in known:
            return known
        else:
            input_id = known["input_id"]
        question = {"input_id": input_id, "prompt": prompt, "schema": schema, "name": name}
        self._inputs = [*(each for each in self._inputs if each is not known), question]
        return question

    async def _wait(self, waiting: _Waiting) -> Any:
        self._slot.release()
        try:
            answer = await waiting.answered
        except BaseException:
            self._slot.take_over_limit()  # the handler must end, and does not wait for a free slot
            raise
        await self._slot.take_again()
        if self._closed:
            raise self._over()
        await self._attempt.enter(TaskState.WORKING)
        return answer

    async def take_input(self, input_id: str | None, answer: Any) -> bool:
        """Store an answer, and hand it to the handler that waits.

        An answer that does not match the question's schema is not stored; the question is asked again.

        Args:
            input_id: The question's id; None means the open question.
            answer: The answer, any JSON value.

        Returns:
            Whether the question is open.
        """
        waiting = self._waiting
        if waiting is None or input_id not in (None, waiting.question["input_id"]) or waiting.storing:
            return False
        fault = fault_of(answer, waiting.question["schema"])
        if fault is not None:
            await self._attempt.send_status(fault)
            return True
        waiting.storing = True
        answered = [*self._inputs[:-1], {**waiting.question, "answer": answer}]
        try:
            stored = await self._attempt.store_answer(answered)
        except BaseException:
            waiting.storing = False  # the answer is not stored, so it may be sent again
            raise
        if not stored:
            waiting.storing = False
            return False
        self._inputs = answered
        if not waiting.answered.done():  # the handler may have been canceled meanwhile
            waiting.answered.set_result(answer)
        return True

    def take_stored(self, inputs: list[dict[str, Any]]) -> None:
        """Hand the answer to the open question to the handler, if another member of the pool has stored it.

        Args:
            inputs: The questions and answers in the store.
        """
        waiting = self._waiting
        if waiting is None or waiting.storing or waiting.answered.done():
            return
        input_id = waiting.question["input_id"]
        stored = next((each for each in inputs if each["input_id"] == input_id), None)
        if stored is not None and "answer" in stored:
            self._inputs = inputs
            waiting.answered.set_result(stored["answer"])


def fault_of(answer: Any, schema: Any) -> str | None:
    """Why an answer does not match a JSON Schema; None when it matches, or when there is no schema."""
    if schema is None:
        return None
    try:
        faults = Checker("the schema of the question", schema).fault_of(answer)
    except ValueError as error:
        return str(error)
    return "; ".join(each.told("the answer's", "the answer") for each in faults[:_MAX_FAULTS]) or None
