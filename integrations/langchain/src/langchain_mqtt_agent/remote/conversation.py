"""One task that is given to a peer, from its first message to its result; a question becomes a LangGraph interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from mqtt_agent import TaskEvent
from mqtt_agent.adapting.following import MAX_REFUSED, unanswerable
from mqtt_agent.adapting.replaying import ReplayedTask
from mqtt_agent.errors import TaskTimeout

from langchain_mqtt_agent.answers import answer_of, pass_over
from langchain_mqtt_agent.parts import value_of
from langchain_mqtt_agent.remote.payload import Outcome
from langchain_mqtt_agent.run import Run

__all__ = ["OnQuestion", "converse"]

OnQuestion = Callable[[dict[str, Any]], Any]
"""Gets a question (``prompt``, ``schema``, ``round``, perhaps ``fault``, ...) and returns the answer; may be async."""

_CANCELED = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
"""After one of these errors, nobody wants the result of the run any more."""


async def converse(task: ReplayedTask, run: Run, on_question: OnQuestion | None) -> AsyncGenerator[str | Outcome, None]:
    """Give a task, or find the task that was given at this place before, and follow the task to its end.

    When the run is canceled, the task is canceled, and also after a timeout if the task says so. After any other error,
    such as an interrupt, the task goes on, and the next run at the same place finds the task again.

    Args:
        task: The task, which is not given yet.
        run: Gets the peer's events.
        on_question: Answers the peer's questions outside a graph.

    Yields:
        Each piece of text that the peer streams, and finally the :class:`Outcome`.

    Raises:
        TaskError: There is no result.
    """
    caller = run.caller
    try:
        await caller.on_loop(task.begin)
        if run.in_node:
            pass_over(run.config, task.place)
            if task.rounds and not task.answered(task.rounds[-1]["input_id"]):
                question = task.rounds[-1]
                await _settle(task, question, _interrupted(task, question, run), run, on_question)
        text: list[str] = []
        while not task.over:
            event = await caller.on_loop(task.next)
            run.beat()
            if event is None:
                continue
            await run.tell(_update(event, task.handle.peer, run.tool_call_id))
            if event.type == "partial" and event.content:
                text.append(event.content)
                await run.token(event.content)
                yield event.content
            elif task.asks(event):
                question = task.question_of(event)
                await _settle(task, question, await _answer(task, question, run, on_question), run, on_question)
        value = value_of(await caller.on_loop(task.result), task.handle.response)
        yield Outcome(value, "".join(text), task.about)
    except BaseException as error:
        if task.under_way:
            await caller.undo(task.leave, _why_canceled(task, error))
        raise


def _why_canceled(task: ReplayedTask, error: BaseException) -> str | None:
    """Why the task is canceled after an error; None when the task goes on."""
    if isinstance(error, _CANCELED):
        return "the run was canceled"
    return "it took too long" if isinstance(error, TaskTimeout) and task.cancel_late else None


async def _settle(
    task: ReplayedTask, question: dict[str, Any], answer: Any, run: Run, on_question: OnQuestion | None
) -> None:
    """Send an answer. A question whose answer JSON or MQTT cannot carry is asked again, with the reason."""
    refused = await run.caller.on_loop(task.give_answer, answer, question)
    number = 1
    while refused is not None:
        if number == MAX_REFUSED:
            await run.caller.on_loop(task.leave, "its question gets no answer that can be sent")
            advice = f"No answer can be sent: {refused['fault']}"
            raise unanswerable(task.handle, question["prompt"], advice, refused)
        answer = await _answer(task, refused, run, on_question)
        refused = await run.caller.on_loop(task.give_answer, answer, refused)
        number += 1


async def _answer(task: ReplayedTask, question: dict[str, Any], run: Run, on_question: OnQuestion | None) -> Any:
    """Get the answer to a question: from an interrupt in a node, from the user's function outside a graph."""
    if run.in_node:
        # The question is stored before the interrupt: the run that resumes must know the question of each answer.
        await run.caller.on_loop(task.save_round, question)
        return _interrupted(task, question, run)
    if on_question is not None:
        return await run.caller.settle(run.in_context(on_question, question))
    await run.caller.on_loop(task.leave, "nobody can answer its question")
    advice = (
        f"Nobody can answer here: pass on_question=, or run {task.handle.peer} in a LangGraph graph, where a question "
        "becomes an interrupt"
    )
    raise unanswerable(task.handle, question["prompt"], advice, question)


def _interrupted(task: ReplayedTask, question: dict[str, Any], run: Run) -> Any:
    return run.in_context(answer_of, run.config, task.place, question["round"], question)


def _update(event: TaskEvent, peer: str, tool_call_id: str | None) -> dict[str, Any]:
    told = event.model_dump(exclude_none=True, exclude={"seq", "timestamp"})
    call = {} if tool_call_id is None else {"tool_call_id": tool_call_id}
    return {"peer": peer, **call, **told}
