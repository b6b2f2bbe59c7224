"""A LangGraph app as an MQTT agent."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any

from mqtt_agent import Agent, TaskContext

from langchain_mqtt_agent._langgraph import require
from langchain_mqtt_agent.serving.exchange import input_of, question_of, result_of, tell

__all__ = ["graph_agent", "serve_graph"]

_TASK = "mqtt_task_id"
"""The key in a checkpoint's metadata that tells whose it is."""


def graph_agent(
    graph: Any,
    agent_id: str,
    *,
    checkpointer: Any = None,
    input: Callable[[TaskContext], Any] | None = None,
    output: Callable[[Any], Any] | None = None,
    config: dict[str, Any] | None = None,
    context: Any = None,
    **options: Any,
) -> Agent:
    """An agent that does its tasks with a graph, not started.

    - The thread of a task is its context id, or else its task id: tasks of one context share the graph's memory, and
      run one after the other.
    - With a checkpointer that outlives the process, a killed agent goes on with the graph where it was. A graph
      without one gets one in memory.
    - An interrupt becomes a question to the requester; its answer resumes the graph.
    - What chat models stream, and what nodes write to the stream writer, goes out as events.
    - A canceled task stops the run.

    Args:
        graph: A compiled graph, or a builder that is compiled here; also what ``create_agent`` gives.
        agent_id: The agent's name.
        checkpointer: Use this one in place of the graph's own.
        input: What the graph gets for a task. By default the conversation as ``messages``, with structured input as
            further keys; for a graph without messages the structured input, or the prompt as its one key.
        output: What the final state becomes. By default its ``structured_response``, else the last message's text,
            else the state.
        config: For each run: ``recursion_limit``, ``tags``, ``configurable``, ...
        context: For each run: what the graph's runtime gives as its context.
        options: See :class:`mqtt_agent.Agent`: ``broker``, ``namespace``, ``store``, ``description``, ``skills``, ...

    Raises:
        ImportError: LangGraph is not installed.
        TypeError: ``graph`` is no graph.
    """
    require("serving a graph")
    runner = _Runner(_compiled(graph, checkpointer), input, output or result_of, config or {}, context)
    options.setdefault("description", getattr(graph, "description", None) or "")
    agent = Agent(agent_id, **options)
    agent.on_task(runner.run)
    return agent


async def serve_graph(
    graph: Any, agent_id: str, *, on_started: Callable[[], None] | None = None, **options: Any
) -> None:
    """Serve a graph as an agent until canceled.

    Example:
        >>> await serve_graph(graph, agent_id="planner", checkpointer=saver)  # doctest: +SKIP

    Args:
        graph: See :func:`graph_agent`.
        agent_id: See there.
        on_started: Called when it serves.
        options: See there.

    Raises:
        ImportError: LangGraph is not installed.
        ConnectionError: The broker is not there, or refuses.
        SessionTakenOver: Another process runs under the same name.
    """
    await graph_agent(graph, agent_id, **options).serve_forever(on_started)


def _compiled(graph: Any, checkpointer: Any) -> Any:
    from langgraph.checkpoint.memory import InMemorySaver

    if not hasattr(graph, "aget_state") and hasattr(graph, "compile"):
        graph = graph.compile()
    if not hasattr(graph, "aget_state"):
        raise TypeError(f"a graph is needed, not {type(graph).__name__}")
    if checkpointer is None and graph.checkpointer is None:
        checkpointer = InMemorySaver()
    return graph if checkpointer is None else graph.copy({"checkpointer": checkpointer})


def _keys_of(graph: Any) -> list[str]:
    """The keys of a graph's input state."""
    builder: Any = getattr(graph, "builder", None)
    schema = getattr(builder, "input_schema", None)
    if schema is not None and schema in getattr(builder, "schemas", {}):
        return list(builder.schemas[schema])
    return list(graph.get_input_jsonschema().get("properties") or {})


class _Runner:
    def __init__(self, graph: Any, input: Any, output: Any, config: dict[str, Any], context: Any) -> None:
        self._graph = graph
        self._input = input
        self._output = output
        self._config = config
        self._options = {} if context is None else {"context": context}
        self._keys = _keys_of(graph)
        self._awaits = True
        self._threads: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def run(self, task: TaskContext) -> Any:
        """The task handler."""
        thread = task.context_id or task.id
        lock = self._threads.setdefault(thread, asyncio.Lock())
        async with lock:
            config = {
                **self._config,
                "configurable": {**self._config.get("configurable", {}), "thread_id": thread},
                "metadata": {**self._config.get("metadata", {}), _TASK: task.id},
            }
            return self._output(await self._run(task, config))

    async def _run(self, task: TaskContext, config: dict[str, Any]) -> Any:
        state = await self._state(config)
        begun = (state.metadata or {}).get(_TASK) == task.id
        if begun and not state.next:
            return state.values  # it was done, and died before it could say so
        questions: list[dict[str, Any]] = list((task.saved or {}).get("questions", ()))
        answers = {each["id"]: await task.ask(each["prompt"], each["schema"]) for each in questions}
        given: Any = None
        if not begun:
            given = self._input(task) if self._input is not None else input_of(task, self._keys, bool(state.values))
        while True:
            pending = _interrupts(state) if begun else []
            if pending:
                given = await self._answer(task, pending, questions, answers)
            await self._stream(task, given, config)
            state, begun, given = await self._state(config), True, None
            if not state.next:
                return state.values

    async def _answer(
        self, task: TaskContext, pending: list[Any], questions: list[dict[str, Any]], answers: dict[str, Any]
    ) -> Any:
        from langgraph.types import Command

        for interrupt in pending:
            if interrupt.id not in answers:
                prompt, schema = question_of(interrupt)
                # Written down before it is asked: the next attempt asks the same questions in the same order.
                questions.append({"id": interrupt.id, "prompt": prompt, "schema": schema})
                await task.save({"questions": questions})
                answers[interrupt.id] = await task.ask(prompt, schema)
        return Command(resume={interrupt.id: answers[interrupt.id] for interrupt in pending})

    async def _state(self, config: dict[str, Any]) -> Any:
        if self._awaits:
            try:
                return await self._graph.aget_state(config)
            except NotImplementedError:  # a checkpointer that blocks, such as SqliteSaver
                self._awaits = False
        return await asyncio.to_thread(self._graph.get_state, config)

    async def _stream(self, task: TaskContext, given: Any, config: dict[str, Any]) -> None:
        async with contextlib.aclosing(self._pieces(given, config)) as pieces:
            async for mode, piece in pieces:
                await tell(task, mode, piece)

    async def _pieces(self, given: Any, config: dict[str, Any]) -> AsyncGenerator[Any, None]:
        options: dict[str, Any] = {"stream_mode": ["messages", "custom"], "durability": "sync", **self._options}
        if self._awaits:
            async for piece in self._graph.astream(given, config, **options):
                yield piece
            return
        pieces = self._graph.stream(given, config, **options)
        over = object()
        while (piece := await asyncio.to_thread(next, pieces, over)) is not over:
            yield piece


def _interrupts(state: Any) -> list[Any]:
    return [interrupt for task in state.tasks for interrupt in task.interrupts]
