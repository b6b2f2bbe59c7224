"""Follows a task for a framework: passes on events, answers the peer's questions, and returns the result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import PayloadTooLarge, TaskError, WireError
from mqtt_agent.wire import ASKING, TaskEvent

__all__ = ["MAX_REFUSED", "REFUSED", "follow", "is_question", "unanswerable", "wording"]

REFUSED = (WireError, PayloadTooLarge)
"""The errors for an answer that JSON or MQTT cannot carry. Nothing was sent: the question can be asked again."""
MAX_REFUSED = 3
"""How many such answers a function may give one after the other. Then the task is given up."""

_ASKING = frozenset(state.value for state in ASKING)

Tell = Callable[[TaskEvent], Awaitable[None]]
Answer = Callable[[str, Any], Awaitable[Any]]


def is_question(event: TaskEvent) -> bool:
    """Whether the peer asks something with this event and waits for the answer."""
    return event.status in _ASKING and isinstance(event.data, dict)


def wording(question: str | None, fault: str | None) -> str:
    """A question as a person or a model reads it: with the reason, when the peer did not accept an earlier answer."""
    return question or "" if fault is None else f"{question or ''}\n({fault})"


def unanswerable(handle: TaskHandle, question: str | None, advice: str, data: Any = None) -> TaskError:
    """The error for a question that nobody can answer.

    Args:
        handle: The task whose peer asks.
        question: The question.
        advice: Why nobody can answer, and what the user can do, as sentences.
        data: Further data of the error, any JSON value.
    """
    message = f"{handle.peer} asks: {question} {advice}"
    return TaskError(message, task_id=handle.task_id, peer=handle.peer, code="input-required", data=data)


async def follow(handle: TaskHandle, tell: Tell, answer: Answer) -> Any:
    """Follow a task to its end.

    A question may wait for a person for a long time. Meanwhile, further events are passed on. The end of the task
    ends the wait.

    Args:
        handle: The task.
        tell: Awaited with each event, in order.
        answer: Awaited with each question and the JSON Schema of its answer, or None. When the peer did not accept an
            answer, or JSON or MQTT cannot carry it, the question is asked again, with the reason in a second line.

    Returns:
        The result, any JSON value.

    Raises:
        TaskError: The task has no result; see :meth:`mqtt_agent.TaskHandle.result`.
        BaseException: Any error of ``tell`` or ``answer``.
    """
    questions: asyncio.Queue[TaskEvent] = asyncio.Queue()
    reading = asyncio.ensure_future(_read(handle, tell, questions))
    answering = asyncio.ensure_future(_answer_all(handle, answer, questions))
    try:
        done, _ = await asyncio.wait({reading, answering}, return_when=asyncio.FIRST_COMPLETED)
        return await (reading if reading in done else answering)
    finally:
        reading.cancel()
        answering.cancel()


async def _read(handle: TaskHandle, tell: Tell, questions: asyncio.Queue[TaskEvent]) -> Any:
    async for event in handle.events():
        await tell(event)
        if is_question(event):
            questions.put_nowait(event)
    return await handle.result()


async def _answer_all(handle: TaskHandle, answer: Answer, questions: asyncio.Queue[TaskEvent]) -> Any:
    while True:
        event = await questions.get()
        input_id, fault = event.data.get("input_id"), event.data.get("fault")
        if input_id in handle.answers and fault is None:
            continue  # the peer sent the same question again, and the answer is on the way
        for left in reversed(range(MAX_REFUSED)):
            value = await answer(wording(event.content, fault), event.data.get("schema"))
            try:
                await handle.send(value, input_id)
                break
            except REFUSED as error:
                if not left:
                    raise
                fault = str(error)
