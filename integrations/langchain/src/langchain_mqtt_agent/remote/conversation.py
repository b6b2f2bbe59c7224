"""One task that is given to a peer, from its first message to its result; a question becomes a LangGraph interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from mqtt_agent import Agent, TaskEvent, TaskHandle, TaskState
from mqtt_agent.adapting.delegating import check_online
from mqtt_agent.adapting.steps import TaskSteps
from mqtt_agent.errors import TaskError, TaskNotFound

from langchain_mqtt_agent._langgraph import interrupt
from langchain_mqtt_agent.remote.payload import Outcome, Request
from langchain_mqtt_agent.remote.task_ids import Place
from langchain_mqtt_agent.run import Run

__all__ = ["Delegation", "OnQuestion", "converse"]

OnQuestion = Callable[[dict[str, Any]], Any]
"""Gets a question (``prompt``, ``schema``, ``round``, perhaps ``fault``, ...) and returns the answer; may be async."""

_NOT_COMPLETED = (TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED)
_CANCELED = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
"""After one of these errors, nobody wants the result of the run any more."""


@dataclass
class Delegation:
    """A task to give to a peer.

    Attributes:
        peer: The agent id of the peer.
        request: What the peer is asked to do.
        place: Where the task is given.
        options: Further arguments of :meth:`mqtt_agent.Agent.delegate`.
        require_online: Whether to fail at once when the peer is offline.
        timeout: Seconds to wait for the result; None for no limit.
        tool_call_id: The id of the tool call for which the task is given.
        on_question: Answers the peer's questions outside a graph.
    """

    peer: str
    request: Request
    place: Place
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    require_online: bool = False
    timeout: float | None = None
    tool_call_id: str | None = None
    on_question: OnQuestion | None = None


async def converse(wanted: Delegation, run: Run) -> AsyncGenerator[str | Outcome, None]:
    """Give a task, or find the task that was given at this place before, and follow the task to its end.

    When the run is canceled, the task is canceled. After any other error, such as an interrupt, the task goes on, and
    the next run at the same place finds the task again.

    Args:
        wanted: The task.
        run: Gets the peer's events.

    Yields:
        Each piece of text that the peer streams, and finally the :class:`Outcome`.

    Raises:
        TaskError: There is no result.
    """
    task, caller = _Task(wanted, run.patience), run.caller
    try:
        await caller.on_loop(task.begin)
        for question in task.asked_before:
            _interrupt_again(question, run)  # LangGraph assigns the answers in the order of the interrupts
        for question in task.rounds:
            answer = _interrupt_again(question, run)
            if question is task.rounds[-1] and not task.answered(question["input_id"]):
                await caller.on_loop(task.send, answer, question["input_id"])
        text: list[str] = []
        while not task.over:
            event = await caller.on_loop(task.next)
            run.beat()
            if event is None:
                continue
            await run.tell(_update(wanted, event))
            if event.type == "partial" and event.content:
                text.append(event.content)
                await run.token(event.content)
                yield event.content
            elif task.asks(event):
                answer = await _answer(task, event, run)
                await caller.on_loop(task.send, answer, event.data.get("input_id"))
        value = await caller.on_loop(task.result)
        yield Outcome(value, "".join(text), _about(task.handle))
    except BaseException as error:
        if task.under_way:
            await caller.undo(task.leave, "the run was canceled" if isinstance(error, _CANCELED) else None)
        raise


async def _answer(task: _Task, event: TaskEvent, run: Run) -> Any:
    """Get the answer to a question: from an interrupt in a node, from the user's function outside a graph."""
    question = task.question_of(event)
    if run.in_node:
        # The question is stored before the interrupt: the run that resumes must know the question of each answer.
        await run.caller.on_loop(task.save_round, question)
        return run.in_context(interrupt, question, question["schema"])
    if task.wanted.on_question is not None:
        return await run.caller.settle(run.in_context(task.wanted.on_question, question))
    await run.caller.on_loop(task.leave, "nobody can answer its question")
    raise TaskError(
        f"{task.handle.peer} asks: {event.content} Nobody can answer here: pass on_question=, or run "
        f"{task.handle.peer} in a LangGraph graph, where a question becomes an interrupt",
        task_id=task.handle.task_id,
        peer=task.handle.peer,
        code="input-required",
        data=question,
    )


def _interrupt_again(question: dict[str, Any], run: Run) -> Any:
    return run.in_context(interrupt, question, question.get("schema")) if run.in_node else None


def _update(wanted: Delegation, event: TaskEvent) -> dict[str, Any]:
    told = event.model_dump(exclude_none=True, exclude={"seq", "timestamp"})
    call = {} if wanted.tool_call_id is None else {"tool_call_id": wanted.tool_call_id}
    return {"peer": wanted.peer, **call, **told}


def _about(handle: TaskHandle) -> dict[str, Any]:
    """What is known about a task that is over."""
    result = handle.response
    about: dict[str, Any] = {"peer": handle.peer, "task_id": handle.task_id, "attempt": handle.attempt or 1}
    if result is not None and result.elapsed_ms is not None:
        about["elapsed_ms"] = result.elapsed_ms
    if result is not None and result.artifacts:
        about["artifacts"] = result.artifacts
    return about


class _Task(TaskSteps):
    """A task at a place, with the questions that became interrupts, in order.

    Attributes:
        wanted: The task to give.
        rounds: The questions of the task.
        asked_before: The questions of the earlier tasks at this place, which ended without a result.
    """

    def __init__(self, wanted: Delegation, patience: float | None) -> None:
        super().__init__(self._give_or_find, timeout=wanted.timeout, patience=patience, give_up=_give_up)
        self.wanted = wanted
        self.rounds: list[dict[str, Any]] = []
        self.asked_before: list[dict[str, Any]] = []

    async def _give_or_find(self, agent: Agent) -> TaskHandle:
        wanted, asked = self.wanted, self.wanted.request
        task_id = await self._find(agent) if wanted.place.in_graph else wanted.place.task_id
        if wanted.require_online:
            await check_online(agent, wanted.peer, "the task was not sent: try again later, or do without it")
        options: dict[str, Any] = {"messages": asked.messages, "data": asked.data, **wanted.options}
        handle = await agent.delegate(wanted.peer, asked.prompt, task_id=task_id, **options)
        self.rounds += (handle.saved or {}).get("rounds", ())
        return handle

    async def _find(self, agent: Agent) -> str:
        """The id of the task at this place.

        After a task without a result, LangGraph may run the node again. The node then needs a new task.
        """
        number = 0
        while True:
            task_id = self.wanted.place.attempt_id(number)
            try:
                known = await agent.resume(task_id)
            except TaskNotFound:
                return task_id
            saved = known.saved or {}
            if not saved.get("left") and not (known.done and known.state in _NOT_COMPLETED):
                return task_id
            self.asked_before += saved.get("rounds", ())
            number += 1

    def question_of(self, event: TaskEvent) -> dict[str, Any]:
        """The value of the interrupt for an event with a question."""
        question = {
            "type": "input-required",
            "peer": self.handle.peer,
            "task_id": self.handle.task_id,
            "input_id": event.data.get("input_id"),
            "round": len(self.rounds) + 1,
            "prompt": event.content,
            "schema": event.data.get("schema"),
        }
        return {**question, "fault": event.data["fault"]} if "fault" in event.data else question

    async def save_round(self, agent: Agent, question: dict[str, Any]) -> None:
        """Store a question that becomes an interrupt."""
        self.rounds.append(question)
        await self.handle.save({"rounds": self.rounds})


async def _give_up(handle: TaskHandle, reason: str) -> None:
    await handle.save({**(handle.saved or {}), "left": True})
    await handle.cancel(reason)
