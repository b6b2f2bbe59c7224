"""Asks the requester of a task, for a framework that may run in other threads and on other event loops.

:class:`StoredQuestions` is for a framework that names its questions itself, and continues from its own checkpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pydantic_core

from mqtt_agent.agents import TaskContext
from mqtt_agent.errors import TaskCanceled
from mqtt_agent.tools.questions import elicitation, read_answer
from mqtt_agent.wire.schemas import Checker

__all__ = ["Asker", "StoredQuestions", "answer_from_text", "elicitation", "read_answer"]


def answer_from_text(text: str, schema: Any) -> Any:
    """What somebody means who can answer only with a text: ``2024`` is a number where a number is asked.

    Args:
        text: The text.
        schema: JSON Schema of the answer, or None.

    Returns:
        The value of the text as JSON, when that fits the schema and the text does not. Otherwise the text.
    """
    if schema is None:
        return text
    try:
        asked = Checker("the schema of the question", schema)
        if not asked.fault_of(text):
            return text
        value: Any = pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
    return text if asked.fault_of(value) else value


class Asker:
    """Asks the requester of a task, from any thread.

    A task can ask one question at a time, so further questions wait. Create an asker on the event loop on which
    the task's handler runs.

    After a crash, a framework that knows what it has done does not do that work again, and parallel parts may ask in
    another order. So a subclass may tell the place in the program that asks, with :meth:`place`. An answer is then
    used again only for the same question at the same place.

    Args:
        task: The task whose requester is asked.

    Attributes:
        task: The task.
    """

    def __init__(self, task: TaskContext) -> None:
        self.task = task
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._open: set[Future[Any]] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._times: Counter[str] = Counter()

    def place(self) -> str | None:
        """The place in the program that asks now, the same in each attempt; None: questions are told by their order.

        This is called in the thread and the context of the code that asks.
        """
        return None

    async def aask(self, prompt: str, schema: Any = None) -> Any:
        """Ask, and await the answer on any event loop.

        Args:
            prompt: The question.
            schema: JSON Schema of the answer, or None.

        Returns:
            The answer, any JSON value.

        Raises:
            CancelledError: The task is over.
        """
        return await asyncio.wrap_future(self._start(prompt, schema))

    def ask(self, prompt: str, schema: Any = None) -> Any:
        """Ask, and block for the answer; see :meth:`aask`.

        Raises:
            CancelledError: The task is over. The class is that of ``asyncio`` or of ``concurrent.futures``.
        """
        return self._start(prompt, schema).result()

    def close(self) -> None:
        """Cancel all questions without an answer. Later questions are canceled at once."""
        with self._guard:
            self._closed = True
            waiting = list(self._open)
        for each in waiting:
            each.cancel()

    def _start(self, prompt: str, schema: Any) -> Future[Any]:
        place = self.place()
        with self._guard:
            if self._closed:
                raise asyncio.CancelledError
            name = None if place is None else self._name(place, prompt)
            future = asyncio.run_coroutine_threadsafe(self._ask(prompt, schema, name), self._loop)
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        return future

    def _name(self, place: str, prompt: str) -> str:
        """The name of a question at a place. The same prompt gets another name each time that it is asked there."""
        about = f"{place}-{hashlib.sha256(prompt.encode(errors='surrogatepass')).hexdigest()[:16]}"
        self._times[about] += 1
        return f"{about}-{self._times[about]}"

    async def _ask(self, prompt: str, schema: Any, name: str | None) -> Any:
        async with self._turn:
            try:
                return await self.task.ask(prompt, schema, name=name)
            except TaskCanceled:
                raise asyncio.CancelledError from None  # frameworks know this error, and do not try again


class StoredQuestions:
    """The questions of a task whose framework names each question, and gets several answers at once.

    After a crash, a handler must ask the same questions in the same order. A framework that continues from its own
    checkpoint does not repeat the questions that were answered. So the questions are stored with the task.

    Args:
        task: The task whose requester is asked.
    """

    def __init__(self, task: TaskContext) -> None:
        saved: dict[str, Any] = task.saved or {}
        self._task = task
        self._questions: list[dict[str, Any]] = list(saved.get("questions", ()))
        self._answers: dict[str, Any] = {}

    async def repeat(self) -> None:
        """Ask the questions of the earlier attempts again. A question that was answered gets its answer at once."""
        for each in self._questions:
            self._answers[each["id"]] = await self._task.ask(each["prompt"], each["schema"])

    async def ask(self, name: str, prompt: str, schema: Any = None) -> Any:
        """Ask the requester, unless this question has an answer already.

        Args:
            name: The framework's name for the question, the same in each attempt.
            prompt: The question.
            schema: JSON Schema of the answer, or None.
        """
        if name not in self._answers:
            self._questions.append({"id": name, "prompt": prompt, "schema": schema})
            await self._task.save({"questions": self._questions})  # before the question is asked
            self._answers[name] = await self._task.ask(prompt, schema)
        return self._answers[name]
