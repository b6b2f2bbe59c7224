"""Answers to the questions that peers ask about the tasks they were given."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from mqtt_agent.agents.requesting.handle import TaskHandle, input_id_of
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import TaskSender
from mqtt_agent.errors import TaskError
from mqtt_agent.wire import Control, TaskEvent, to_json

__all__ = ["Inputs"]

_CROSSED_WITHIN = 5.0


class Inputs:
    """Stores each answer, sends it, and sends it again should it get lost.

    Args:
        tasks: The tasks that are given away.
        sender: Sends to their peers.
    """

    def __init__(self, tasks: DelegatedTasks, sender: TaskSender) -> None:
        self._tasks = tasks
        self._sender = sender

    async def send(self, handle: TaskHandle, value: Any, input_id: str | None) -> None:
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
            await self._keep(handle)
        handle.question = None
        await self._sender.say_soon(handle.peer, self._word(handle, value, input_id))

    def on_question(self, handle: TaskHandle, question: TaskEvent) -> None:
        """A peer asks; what was answered already, it may get again."""
        input_id = input_id_of(question)
        if input_id is None:
            return
        if "fault" in question.data:  # the answer will not do, and must not be sent again
            handle.answers.pop(input_id, None)
            self._tasks.background.start(self._keep(handle))
        elif input_id in handle.answers and self._got_lost(handle, input_id, question):
            word = self._word(handle, handle.answers[input_id], input_id)
            self._note_answered(handle, input_id, question.attempt)
            self._tasks.background.start(self._sender.say_soon(handle.peer, word))

    def _got_lost(self, handle: TaskHandle, input_id: str, question: TaskEvent) -> bool:
        """Whether the answer to a question that is asked again has to be sent again."""
        attempt, sent_at = handle.answered.get(input_id, (None, -math.inf))
        # With an attempt before this one, with the process that gave it, or on its way; but two may just have crossed.
        return attempt != question.attempt or asyncio.get_running_loop().time() - sent_at > _CROSSED_WITHIN

    def _note_answered(self, handle: TaskHandle, input_id: str, attempt: int | None) -> None:
        handle.answered[input_id] = (attempt, asyncio.get_running_loop().time())

    async def _keep(self, handle: TaskHandle) -> None:
        inputs = [{"input_id": each, "answer": answer} for each, answer in handle.answers.items()]
        changed = await self._tasks.change(handle.task_id, inputs=inputs)
        if changed is not None:
            self._tasks.remember(changed)

    def _word(self, handle: TaskHandle, value: Any, input_id: str | None) -> Control:
        return Control(task_id=handle.task_id, action="input", sender=self._tasks.name, input=value, input_id=input_id)
