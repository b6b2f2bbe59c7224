"""Stores and sends a requester's answers to the questions of its peers. Sends lost answers again."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from mqtt_agent.agents.requesting.handle import SentAnswer, TaskHandle, input_id_of
from mqtt_agent.agents.requesting.ledger import DelegatedTasks
from mqtt_agent.agents.requesting.sender import TaskSender
from mqtt_agent.errors import PayloadTooLarge, TaskError
from mqtt_agent.wire import Control, TaskEvent, checked_json

__all__ = ["Inputs"]

_CROSSED_WITHIN = 5.0
"""Seconds in which a question and its answer may have crossed: the peer asked again before the answer arrived."""


class Inputs:
    """Answers the questions that peers ask about delegated tasks.

    Args:
        tasks: The delegated tasks.
        sender: Sends the answers.
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
        value = checked_json(value, "input", f"task {handle.task_id}")
        if input_id is not None:
            handle.answers[input_id] = value
            self._note_sent(handle, input_id, handle.attempt)
            await self._store(handle)
        question, handle.question = handle.question, None
        try:
            await self._sender.send_control_soon(handle.peer, self._control(handle, value, input_id), handle.bound)
        except PayloadTooLarge:  # nothing was sent, and the user may give a shorter answer
            handle.question = question
            if input_id is not None:
                handle.answers.pop(input_id, None)
                await self._store(handle)
            raise

    def on_question(self, handle: TaskHandle, question: TaskEvent) -> None:
        """Take a question of a peer. If this agent has answered the question already, a lost answer is sent again.

        Args:
            handle: The handle of the task.
            question: The event that asks.
        """
        input_id = input_id_of(question)
        if input_id is None:
            return
        if "fault" in question.data:  # the peer did not accept the answer: it must not be sent again
            handle.answers.pop(input_id, None)
            store = partial(self._store, handle)
            what = f"the note that an answer to task {handle.task_id:.80} was not accepted"
            self._tasks.background.start(self._tasks.scope.retry.until_stored(store, what))
        elif input_id in handle.answers and self._is_lost(handle.sent_answers.get(input_id), question):
            control = self._control(handle, handle.answers[input_id], input_id)
            self._note_sent(handle, input_id, question.attempt)
            self._tasks.background.start(self._sender.send_control_soon(handle.peer, control, handle.bound))

    def _is_lost(self, sent: SentAnswer | None, question: TaskEvent) -> bool:
        """Whether the stored answer to a question must be sent again.

        The answer counts as lost when an earlier process has sent it, when it was sent to an earlier attempt, or when
        it was sent more than 5 s ago and the peer still asks.
        """
        if sent is None or sent.attempt != question.attempt:
            return True
        return asyncio.get_running_loop().time() - sent.at > _CROSSED_WITHIN

    def _note_sent(self, handle: TaskHandle, input_id: str, attempt: int | None) -> None:
        handle.sent_answers[input_id] = SentAnswer(attempt, asyncio.get_running_loop().time())

    async def _store(self, handle: TaskHandle) -> None:
        inputs = [{"input_id": each, "answer": answer} for each, answer in handle.answers.items()]
        changed = await self._tasks.change(handle.task_id, inputs=inputs)
        if changed is not None:
            self._tasks.schedule(changed)

    def _control(self, handle: TaskHandle, value: Any, input_id: str | None) -> Control:
        return Control(
            task_id=handle.task_id,
            action="input",
            sender=self._tasks.scope.agent_id,
            input=value,
            input_id=input_id,
        )
