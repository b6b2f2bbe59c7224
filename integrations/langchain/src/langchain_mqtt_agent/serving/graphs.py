"""A LangGraph app as an MQTT agent: an interrupt becomes a question, a killed graph goes on from its checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any

from mqtt_agent import Agent, TaskContext
from mqtt_agent.adapting.asking import StoredQuestions
from mqtt_agent.adapting.conversations import Conversations, own_name
from mqtt_agent.adapting.options import AgentOptions
from mqtt_agent.adapting.serving import serve
from mqtt_agent.adapting.threads import run_for_handler
from typing_extensions import Unpack

from langchain_mqtt_agent._langgraph import require
from langchain_mqtt_agent.remote.payload import REPORT
from langchain_mqtt_agent.serving.exchange import CALLER, accepted, input_of, question_of, result_of, tell
from langchain_mqtt_agent.serving.memory import HostMemory, check_shared

__all__ = ["aserve_graph", "graph_agent", "serve_graph"]

_TASK = "mqtt_task_id"
"""The key in a checkpoint's metadata that holds the id of the task for which the checkpoint was written."""
_NO_NAME = "LangGraph"  # the name of a graph whose author gave none
_THREAD = "mqtt-agent-graph"  # the name of the threads of a graph that blocks


def graph_agent(
    graph: Any,
    agent_id: str,
    *,
    checkpointer: Any = None,
    input: Callable[[TaskContext], Any] | None = None,
    output: Callable[[Any], Any] | None = None,
    config: dict[str, Any] | None = None,
    context: Any = None,
    max_conversations: int = 1000,
    accept: Sequence[str] = (),
    report: bool = True,
    **options: Unpack[AgentOptions],
) -> Agent:
    """Make an agent that does its tasks with a graph. The caller starts the agent.

    - The thread of a task is its :attr:`mqtt_agent.TaskContext.conversation`: tasks of one context share the graph's
      memory, and run one after the other. Each requester whose name is proven has threads of its own.
    - With a checkpointer that outlives the process, an agent that was killed continues the graph from the last
      checkpoint. A graph without a checkpointer gets a memory in the process. This memory forgets each task without a
      context id when the task is over. Of each context, it keeps the latest checkpoint.
    - An interrupt becomes a question to the requester; the answer resumes the graph.
    - The tokens of chat models and the values that nodes give to the stream writer are sent as events.
    - When the task is canceled, the run stops.
    - With ``pool=True``, any number of processes serve the graph. They need a checkpointer that all of them share, such
      as LangGraph's ``PostgresSaver``. Tasks of one context run one after the other in all processes.

    Args:
        graph: A compiled graph, such as ``create_agent`` returns, or a builder, which is compiled here.
        agent_id: The agent's name.
        checkpointer: Use this checkpointer in place of the graph's own.
        input: A function that gets a task and returns the input of the graph. By default, the input is the conversation
            as ``messages``, with structured input as further keys. When the thread has a memory already, the input is
            the part of the conversation after the last answer whose ``name`` is ``agent_id`` or the graph's name; the
            answers of other agents belong to the input. For a graph without messages, the input is the structured
            input, or the prompt as the graph's one key.
        output: A function that gets the final state of the graph and returns the result of the task. By default, the
            result is the state's ``structured_response``, else the text of the last message, else the state.
        config: The configuration of each run: ``recursion_limit``, ``tags``, ``configurable``, ...
        context: The context in the graph's runtime, for each run.
        max_conversations: How many contexts without a running task the memory in the process keeps. When there are
            more, the context that was used longest ago is forgotten, and the log tells this once. A checkpointer of
            your own has no limit here.
        accept: The keys that a requester may set; see ``context`` of :class:`MQTTRemoteAgent`. The graph finds their
            values in ``config["configurable"]["mqtt_caller"]``, and nowhere else. They are the requester's words, and
            no proof of identity.
        report: Whether the requester is told the usage of the language models, and the tool calls of the run, as an
            artifact with the name ``langgraph``.
        options: See :class:`mqtt_agent.Agent`: ``broker``, ``namespace``, ``store``, ``description``, ``skills``, ...

    Raises:
        ImportError: LangGraph is not installed.
        TypeError: ``graph`` is no graph.
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``max_conversations`` is below 0, or a pool's graph keeps its memory in the process.
    """
    require("serving a graph")
    context_options = {} if context is None else {"context": context}
    compiled, memory = _compiled(graph, checkpointer), None
    if options.get("pool"):
        check_shared(compiled.checkpointer)
        options.setdefault("contexts", "ordered")
    if compiled.checkpointer is None:
        memory = HostMemory(agent_id, max_conversations)
        compiled = compiled.copy({"checkpointer": memory.saver})
    runner = _Runner(compiled, agent_id, memory, input, output or result_of, config or {}, context_options)
    runner.accepts, runner.reports = tuple(accept), report
    options.setdefault("description", getattr(graph, "description", None) or "")
    agent = Agent(agent_id, **options)
    agent.on_task(runner.run)
    return agent


def serve_graph(graph: Any, agent_id: str, *, on_started: Callable[[], None] | None = None, **options: Any) -> None:
    """Serve a graph as an agent until SIGINT or SIGTERM, and block. In async code, use :func:`aserve_graph`.

    Example:
        >>> serve_graph(graph, agent_id="planner", checkpointer=saver)  # doctest: +SKIP

    Args:
        graph: A compiled graph, or a builder; see :func:`graph_agent`.
        agent_id: The agent's name.
        on_started: Called when the agent serves. By default, a line on the standard error says what is served.
        options: The other arguments of :func:`graph_agent`.

    Raises:
        ImportError: LangGraph is not installed.
        ConnectionError: The broker cannot be reached, or it refuses the connection.
        SessionTakenOver: Another process runs under the same name.
    """
    return serve(graph_agent(graph, agent_id, **options), "serve_graph", on_started)


async def aserve_graph(
    graph: Any, agent_id: str, *, on_started: Callable[[], None] | None = None, **options: Any
) -> None:
    """Serve a graph as an agent until the task is canceled. The arguments are those of :func:`serve_graph`.

    Example:
        >>> await aserve_graph(graph, agent_id="planner", checkpointer=saver)  # doctest: +SKIP
    """
    await graph_agent(graph, agent_id, **options).serve_forever(on_started)


def _compiled(graph: Any, checkpointer: Any) -> Any:
    if not hasattr(graph, "aget_state") and hasattr(graph, "compile"):
        graph = graph.compile()
    if not hasattr(graph, "aget_state"):
        raise TypeError(f"a graph is needed, not {type(graph).__name__}")
    return graph if checkpointer is None else graph.copy({"checkpointer": checkpointer})


def _keys_of(graph: Any) -> list[str]:
    """The keys of a graph's input state."""
    builder: Any = getattr(graph, "builder", None)
    schema = getattr(builder, "input_schema", None)
    if schema is not None and schema in getattr(builder, "schemas", {}):
        return list(builder.schemas[schema])
    return list(graph.get_input_jsonschema().get("properties") or {})


class _Runner:
    """Runs a graph for each task. A run that was killed continues from the last checkpoint."""

    def __init__(
        self,
        graph: Any,
        agent_id: str,
        memory: HostMemory | None,
        input: Callable[[TaskContext], Any] | None,
        output: Callable[[Any], Any],
        config: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        self._graph = graph
        self._memory = memory
        self._shrinks = not any(type(each).__name__ == "DeltaChannel" for each in graph.channels.values())
        self._input = input
        self._output = output
        self._config = config
        self._options = options
        self._keys = _keys_of(graph)
        self._names = {agent_id, graph.get_name()} - {_NO_NAME}
        self._awaits = True
        self.accepts: tuple[str, ...] = ()
        self.reports = True
        self._threads: Conversations[None] = Conversations(limit=0)

    async def run(self, task: TaskContext) -> Any:
        """Handle a task, after the earlier tasks of the same thread."""
        thread = task.conversation
        async with self._threads.turn(thread):
            config = self._config_of(task, thread)
            if self._memory is None:
                return self._output(await self._run(task, config))
            self._memory.begin(thread)
            try:
                return self._output(await self._run(task, config))
            finally:
                if not task.interrupted:  # otherwise the agent's next start continues the task
                    self._memory.end(thread, conversation=bool(task.context_id), shrinks=self._shrinks)

    async def _run(self, task: TaskContext, config: dict[str, Any]) -> Any:
        callbacks = config.get("callbacks") or []
        if not self.reports or not isinstance(callbacks, list):
            return await self._values(task, config)
        from langchain_mqtt_agent.serving.report import RunReport  # LangChain's callback takes a while to import

        report = RunReport()
        values = await self._values(task, {**config, "callbacks": [*callbacks, report]})
        if report.data:
            await task.artifact(REPORT, report.data)
        return values

    async def _values(self, task: TaskContext, config: dict[str, Any]) -> Any:
        from langgraph.types import Command

        state = await self._state(config)
        begun = (state.metadata or {}).get(_TASK) == own_name(task)
        if begun and not state.next:
            return state.values  # the graph was done, and the process was killed before the result was sent
        questions = StoredQuestions(task)
        await questions.repeat()
        given: Any = None
        if not begun:
            given = self._input_of(task, bool(state.values))
        while True:
            pending = _interrupts(state) if begun else []
            if pending:
                answers = {each.id: await questions.ask(each.id, *question_of(each)) for each in pending}
                given = Command(resume=answers)
            await self._stream(task, given, config)
            state, begun, given = await self._state(config), True, None
            if not state.next:
                return state.values

    def _config_of(self, task: TaskContext, thread: str) -> dict[str, Any]:
        configurable = {**self._config.get("configurable", {}), "thread_id": thread}
        if self.accepts:
            configurable[CALLER] = accepted(task.metadata, self.accepts)
        metadata = {**self._config.get("metadata", {}), _TASK: own_name(task)}
        return {**self._config, "configurable": configurable, "metadata": metadata}

    def _input_of(self, task: TaskContext, history: bool) -> Any:
        if self._input is not None:
            return self._input(task)
        return input_of(task, self._keys, history, self._names)

    async def _state(self, config: dict[str, Any]) -> Any:
        if self._awaits:
            try:
                return await self._graph.aget_state(config)
            except NotImplementedError:  # a checkpointer that blocks, such as SqliteSaver
                self._awaits = False
        return await run_for_handler(partial(self._graph.get_state, config), _THREAD)

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
        while (piece := await run_for_handler(partial(next, pieces, over), _THREAD)) is not over:
            yield piece


def _interrupts(state: Any) -> list[Any]:
    return [interrupt for task in state.tasks for interrupt in task.interrupts]
