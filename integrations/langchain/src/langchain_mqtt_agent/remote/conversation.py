"""One task from its requester's side: given away once, followed, asked about, answered, canceled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from mqtt_agent import Agent, TaskEvent, TaskHandle, TaskState
from mqtt_agent.errors import PeerUnavailable, TaskError, TaskNotFound

from langchain_mqtt_agent._langgraph import in_node, interrupt
from langchain_mqtt_agent.driver import Chunk, OnLoop, Resolve, Script, Tell, Token
from langchain_mqtt_agent.remote.payload import Work
from langchain_mqtt_agent.remote.task_ids import Place

__all__ = ["Delegation", "Outcome", "converse"]

_BEAT = 0.25
_NOT_COMPLETED = (TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED)


@dataclass
class Delegation:
    """What to give to whom.

    Attributes:
        peer: Who is to do it.
        work: What to do.
        place: Where it is given away.
        options: Further arguments of :meth:`mqtt_agent.Agent.delegate`.
        require_online: Whether to fail at once when the peer is offline.
        timeout: Seconds to wait for the result; None for as long as it takes.
        tool_call_id: The tool call that it is made for.
        on_input: Who answers questions outside a graph.
        heartbeat: Called now and then while it runs.
    """

    peer: str
    work: Work
    place: Place
    options: dict[str, Any] = field(default_factory=dict)
    require_online: bool = False
    timeout: float | None = None
    tool_call_id: str | None = None
    on_input: Callable[[dict[str, Any]], Any] | None = None
    heartbeat: Callable[[], None] | None = None


@dataclass
class Outcome:
    """How it ended.

    Attributes:
        value: The result.
        text: What the peer streamed as text.
        about: Task id, peer, attempt, elapsed time, artifacts.
    """

    value: Any
    text: str
    about: dict[str, Any]


def converse(wanted: Delegation, config: RunnableConfig) -> Script[Outcome]:
    """Give the task away, or find it again, and see it through."""
    opened: list[TaskHandle] = []
    try:
        handle, asked_before = yield OnLoop(_open, (wanted, opened))
    except (asyncio.CancelledError, KeyboardInterrupt):
        yield OnLoop(_take_back_opened, (opened,))
        raise
    try:
        for earlier in asked_before:  # LangGraph tells answers apart by the order of the questions
            _ask_again(earlier, config)
        rounds: list[dict[str, Any]] = list((handle.saved or {}).get("rounds", ()))
        for earlier in rounds:
            answer = _ask_again(earlier, config)
            if earlier is rounds[-1] and earlier["input_id"] not in handle.answers and not handle.done:
                yield OnLoop(_send, (handle, answer, earlier["input_id"]))
        return (yield from _follow(wanted, handle, rounds, config))
    except (asyncio.CancelledError, KeyboardInterrupt):
        yield OnLoop(_give_up, (handle, "the run was canceled"))
        raise


def _follow(
    wanted: Delegation, handle: TaskHandle, rounds: list[dict[str, Any]], config: RunnableConfig
) -> Script[Outcome]:
    text: list[str] = []
    reader = _Reader(handle, None if wanted.heartbeat is None else _BEAT, wanted.timeout)
    try:
        yield from _read(wanted, handle, rounds, config, reader, text)
    except BaseException:
        yield OnLoop(reader.close)
        raise
    value = yield OnLoop(_result, (handle,))
    return Outcome(value, "".join(text), _about(handle))


def _read(
    wanted: Delegation,
    handle: TaskHandle,
    rounds: list[dict[str, Any]],
    config: RunnableConfig,
    reader: _Reader,
    text: list[str],
) -> Script[None]:
    asked: TaskEvent | None = None
    while True:
        event = yield OnLoop(reader.next, (asked,))
        if wanted.heartbeat is not None:
            wanted.heartbeat()
        if event is None:
            continue
        if event is _OVER:
            return
        if event is asked:
            continue
        yield Tell(_update(wanted, event))
        if event.type == "partial" and event.content:
            text.append(event.content)
            yield Token(event.content)
            yield Chunk(event.content)
        elif event.status == TaskState.INPUT_REQUIRED.value and isinstance(event.data, dict):
            if event is not handle.question:
                continue  # it was answered before, or another one has come since
            asked = event
            if "fault" not in event.data and event.data.get("input_id") in handle.answers:
                continue  # its answer is on the way
            answer = yield from _answer(wanted, handle, event, rounds, config)
            yield OnLoop(_send, (handle, answer, event.data.get("input_id")))


def _answer(
    wanted: Delegation, handle: TaskHandle, event: TaskEvent, rounds: list[dict[str, Any]], config: RunnableConfig
) -> Script[Any]:
    question = {
        "type": "input-required",
        "peer": handle.peer,
        "task_id": handle.task_id,
        "input_id": event.data.get("input_id"),
        "round": len(rounds) + 1,
        "prompt": event.content,
        "schema": event.data.get("schema"),
    }
    if "fault" in event.data:
        question["fault"] = event.data["fault"]
    if in_node(config):
        # Written down before it is asked: whoever resumes must know which answer is to which question.
        rounds.append(question)
        yield OnLoop(_save, (handle, {"rounds": rounds}))
        return interrupt(question, question["schema"])
    if wanted.on_input is None:
        yield OnLoop(_give_up, (handle, "nobody can answer its question"))
        raise TaskError(
            f"{handle.peer} asks: {event.content} Nobody can answer here: pass on_input=, or run it in a LangGraph "
            "graph, where it becomes an interrupt",
            task_id=handle.task_id,
            peer=handle.peer,
            code="input-required",
            data=question,
        )
    return (yield Resolve(wanted.on_input(question)))


def _ask_again(earlier: dict[str, Any], config: RunnableConfig) -> Any:
    return interrupt(earlier, earlier.get("schema")) if in_node(config) else None


def _update(wanted: Delegation, event: TaskEvent) -> dict[str, Any]:
    told = event.model_dump(exclude_none=True, exclude={"seq", "timestamp"})
    call = {} if wanted.tool_call_id is None else {"tool_call_id": wanted.tool_call_id}
    return {"peer": wanted.peer, **call, **told}


def _about(handle: TaskHandle) -> dict[str, Any]:
    result = handle.response
    about: dict[str, Any] = {"peer": handle.peer, "task_id": handle.task_id, "attempt": handle.attempt or 1}
    if result is not None and result.elapsed_ms is not None:
        about["elapsed_ms"] = result.elapsed_ms
    if result is not None and result.artifacts:
        about["artifacts"] = result.artifacts
    return about


# On the agent's loop

_OVER: Any = object()


async def _open(agent: Agent, wanted: Delegation, opened: list[TaskHandle]) -> tuple[TaskHandle, list[dict[str, Any]]]:
    """The task's handle, and what was asked in tries that came to nothing."""
    asked_before: list[dict[str, Any]] = []
    task_id = wanted.place.task_id
    for number in itertools.count():
        task_id = wanted.place.attempt_id(number)
        if wanted.place.in_graph:
            try:
                known = await agent.resume(task_id)
            except TaskNotFound:
                known = None
            left = known is not None and (known.saved or {}).get("left")
            if known is not None and (left or (known.done and known.state in _NOT_COMPLETED)):
                # The graph has been told of its end, and runs the node again: that is a new task.
                asked_before += (known.saved or {}).get("rounds", ())
                continue
        break
    if wanted.require_online:
        card = await agent.peer(wanted.peer)
        if card is None or card.status != "online":
            why = f"agent {wanted.peer!r} is offline; the task was not sent: try again later, or do without it"
            raise PeerUnavailable(why, peer=wanted.peer)
    work = wanted.work
    giving = asyncio.ensure_future(
        agent.delegate(
            wanted.peer, work.prompt, messages=work.messages, data=work.data, task_id=task_id, **wanted.options
        )
    )
    try:
        opened.append(await asyncio.shield(giving))
        return opened[0], asked_before
    except asyncio.CancelledError:
        # It may be on its way already: it is canceled as soon as that is known.
        giving.add_done_callback(partial(_take_back, agent))
        raise


_taking_back: set[asyncio.Task[None]] = set()


def _take_back(agent: Agent, giving: asyncio.Future[TaskHandle]) -> None:
    if not giving.cancelled() and giving.exception() is None:
        task = asyncio.ensure_future(_give_up(agent, giving.result(), "the run was canceled"))
        _taking_back.add(task)
        task.add_done_callback(_taking_back.discard)


async def _take_back_opened(agent: Agent, opened: list[TaskHandle]) -> None:
    # It was open already, and the canceled run came to hear of it no more.
    for handle in opened:
        await _give_up(agent, handle, "the run was canceled")


class _Reader:
    """The events of a task, with a pause now and then, and with the question that was told before an interrupt."""

    def __init__(self, handle: TaskHandle, pause: float | None, timeout: float | None) -> None:
        self._handle = handle
        self._events = handle.events()
        self._pause = pause
        self._timeout = timeout
        self._deadline: float | None = None
        self._coming: asyncio.Future[Any] | None = None

    async def next(self, agent: Agent, asked: TaskEvent | None) -> Any:
        """The next event; None when there was none for ``pause`` seconds."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None and self._timeout is not None:
            self._deadline = now + self._timeout
        if self._deadline is not None and now >= self._deadline and not self._handle.done:
            await self._handle.result(0)
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._event())
            await asyncio.sleep(0)
        question = self._handle.question
        if not self._coming.done() and question is not None and question is not asked:
            return question
        left = None if self._deadline is None else self._deadline - now
        waits = [seconds for seconds in (self._pause, left) if seconds is not None]
        await asyncio.wait([self._coming], timeout=max(0.0, min(waits)) if waits else None)
        if not self._coming.done():
            return None
        coming, self._coming = self._coming, None
        return coming.result()

    async def _event(self) -> Any:
        # StopAsyncIteration cannot leave a task.
        async for event in self._events:
            return event
        return _OVER

    async def close(self, agent: Agent) -> None:
        """Read no more: what comes from now on is for who goes on with the task."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])


async def _result(agent: Agent, handle: TaskHandle) -> Any:
    return await handle.result()


async def _send(agent: Agent, handle: TaskHandle, answer: Any, input_id: str | None) -> None:
    if not handle.done:
        await handle.send(answer, input_id)


async def _save(agent: Agent, handle: TaskHandle, value: Any) -> None:
    await handle.save(value)


async def _give_up(agent: Agent, handle: TaskHandle, reason: str) -> None:
    if not handle.done:
        await handle.save({**(handle.saved or {}), "left": True})
        await handle.cancel(reason)
