"""Follows one task that an MCP client has given to an agent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mqtt_agent.adapting.asking import elicitation, read_answer
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.agents import TaskHandle
from mqtt_agent.errors import MQTTAgentError, TaskError
from mqtt_agent.tools import CallQuestion, Elicited, OnQuestion
from mqtt_agent.wire import ASKING, TaskEvent, TaskState

from mcp_mqtt_agent.agent_results import failed, result_of
from mcp_mqtt_agent.hiding import hidden

__all__ = ["AgentTask", "OnProgress"]

logger: logging.Logger = logger_of(__name__)

OnProgress = Callable[[TaskEvent], Awaitable[None]]

_numbers = itertools.count(time.time_ns() // 1_000_000)
"""The numbers of questions. A task outlives this process, and the next process may not use a number again."""


class AgentTask:
    """A task at an agent, which is followed in the background until its end.

    Args:
        handle: The task.
        on_question: Answers the questions of the agent. Without ``on_question``, a question cancels the task.
        on_progress: Awaited with each progress report of the agent.

    Attributes:
        handle: The task.
        on_progress: Awaited with each progress report from now on.
        on_change: Called when the task has changed.
        updated_at: When the task has changed last, Unix seconds.
        outcome: Ends with the result of ``tools/call``.
    """

    def __init__(
        self, handle: TaskHandle, on_question: OnQuestion | None, on_progress: OnProgress | None = None
    ) -> None:
        self.handle: TaskHandle = handle
        self.on_progress: OnProgress | None = on_progress
        self.on_change: Callable[[], None] = lambda: None
        self.updated_at: float = handle.created_at
        self._on_question = on_question
        self._asking: asyncio.Task[None] | None = None
        self._asked: str | None = None
        self._refusal: str | None = None
        self.outcome: asyncio.Task[dict[str, Any]] = asyncio.create_task(
            self._follow(), name=f"mcp-mqtt-agent task {handle.task_id}"
        )
        self.outcome.add_done_callback(lambda _: self.on_change())

    @property
    def task_id(self) -> str:
        """The id of the task."""
        return self.handle.task_id

    @property
    def created_at(self) -> float:
        """When the task was given, Unix seconds."""
        return self.handle.created_at

    @property
    def message(self) -> str | None:
        """What the agent has said last."""
        return self.handle.message

    @property
    def done(self) -> bool:
        """Whether the task is over, or is not followed any more."""
        return self.outcome.done()

    @property
    def lost(self) -> bool:
        """Whether the task is not followed any more, although it goes on at its agent."""
        return self.outcome.done() and self.handle.response is None

    @property
    def canceled(self) -> bool:
        """Whether the task was canceled."""
        return self.handle.state is TaskState.CANCELED

    async def cancel(self, reason: str) -> None:
        """Ask the agent to cancel the task; see :meth:`TaskHandle.cancel`."""
        await self.handle.cancel(reason)

    async def stop(self) -> None:
        """Stop following. The task itself goes on."""
        self.outcome.cancel()
        await asyncio.gather(self.outcome, return_exceptions=True)

    async def _follow(self) -> dict[str, Any]:
        try:
            async for event in self.handle.events():
                self.updated_at = time.time()
                self.on_change()
                if event.type == "progress" and self.on_progress is not None:
                    with contextlib.suppress(Exception):  # the client may be gone; the task is not
                        await self.on_progress(event)
                elif event.type == "status":
                    self._take_status(event)
            await self.handle.result()
        except MQTTAgentError as error:
            self.updated_at = time.time()
            answer = failed(error if isinstance(error, TaskError) else hidden(error, "the task is not followed now"))
            if self._refusal is not None:
                answer["content"] = [{"type": "text", "text": self._refusal}]
            return answer
        finally:
            self._end_question()
        response = self.handle.response
        assert response is not None
        self.updated_at = time.time()
        return result_of(response, self.handle.peer)

    # Questions

    def _take_status(self, event: TaskEvent) -> None:
        data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
        input_id, fault = data.get("input_id"), data.get("fault")
        if event.status not in ASKING or not isinstance(input_id, str):
            self._end_question()
            return
        if fault is None and (input_id in self.handle.answers or self._asked == input_id):
            return  # the agent asks again while the answer is on its way, or while it is still awaited
        self._end_question()
        self._asked = input_id
        self._asking = asyncio.create_task(self._ask(event, input_id, fault, data.get("schema")))

    def _end_question(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = self._asked = None

    async def _ask(self, event: TaskEvent, input_id: str, fault: str | None, schema: Any) -> None:
        """Ask the MCP client, and pass on its answer."""
        prompt = event.content or "The agent asks for an answer."
        if fault is not None:
            prompt = f"{prompt}\n({fault})"
        peer, given = self.handle.peer, None
        refusal = f"agent {peer} asks, and this MCP client cannot be asked, so the task is canceled: {prompt}"
        try:
            if self._on_question is not None:
                question = CallQuestion(self.handle.task_id, peer, next(_numbers), params=elicitation(prompt, schema))
                given = await self._answer(question)
                refusal = f"the user has not answered agent {peer}, so the task is canceled: {prompt}"
            if given is not None and given.action == "accept":
                # A task of its own: an event that arrives now must not interrupt the answer.
                await asyncio.shield(self.handle.send(read_answer(given.content, schema), input_id))
                return
            self._refusal = refusal
            await asyncio.shield(self.handle.cancel("nobody has answered the question"))
        except MQTTAgentError as error:
            logger.warning("the question of task %s is not answered: %s", self.handle.task_id, error)

    async def _answer(self, question: CallQuestion) -> Elicited:
        assert self._on_question is not None
        try:
            given = self._on_question(question)
            return await given if isinstance(given, Awaitable) else given
        except Exception as error:  # whatever the MCP client does, the agent must not wait for ever
            logger.warning("the MCP client does not answer the question of task %s: %r", self.handle.task_id, error)
            return Elicited("cancel")
