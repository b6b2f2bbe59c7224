"""A peer agent as a LangChain Runnable, a LangGraph node, or a tool."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from os import PathLike
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool, ToolException
from mqtt_agent import TLS, Password, TaskStore, Token
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Caller, block, iterate, last
from mqtt_agent.adapting.closing import Closing
from mqtt_agent.adapting.content import as_text
from mqtt_agent.adapting.following import wording
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.adapting.replaying import Delegation, Request
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.errors import TaskError
from mqtt_agent.sync import Agent
from mqtt_agent.transport import BrokerSettings
from mqtt_agent.wire import DEFAULT_NAMESPACE, validate_identifier

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.context import context_of
from langchain_mqtt_agent.remote.conversation import OnQuestion, converse
from langchain_mqtt_agent.remote.payload import Outcome, Reply, request_from, shape_of
from langchain_mqtt_agent.remote.task_ids import Place, place_of
from langchain_mqtt_agent.run import Artifact, Run
from langchain_mqtt_agent.tool import HandleToolError, RemoteTool

__all__ = ["MQTTPeerTool", "MQTTRemoteAgent"]

_TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent is to do, with everything that it needs to know"}
    },
    "required": ["prompt"],
}


class MQTTRemoteAgent(Closing, Runnable[Any, Any]):
    """An agent in another process, as a Runnable: by itself, in a chain, as a LangGraph node, or as a tool.

    The input is text, messages, a state with ``messages``, or any other JSON value as structured input. For text and
    messages, the output is an ``AIMessage``; for a state, ``{"messages": [AIMessage]}``; for anything else, the peer's
    result as it is. With ``output_key``, the output is ``{output_key: result}``, an update for a state without
    messages. The message's ``response_metadata["mqtt"]`` has the task id, the attempt, the elapsed time, the artifacts
    and the result itself.

    In a LangGraph node with a checkpointer, the task is the same after a crash, a retry or an interrupt. So the task
    runs once, and the result is there when the graph is resumed. The peer's questions become interrupts. The peer's
    events go to the stream modes ``custom`` and ``messages``. When the run is canceled, the task is canceled.

    Example:
        >>> researcher = MQTTRemoteAgent("researcher", agent_id="planner")  # doctest: +SKIP
        >>> graph.add_node("research", researcher)  # doctest: +SKIP

    Args:
        peer: The agent id of the peer.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The id under which tasks are given. A process that resumes a graph must use the same id as the
            process before. None takes an id that is the same each time this program runs on this machine.
        namespace: The prefix of all topics.
        store: Where the given tasks are kept; see :class:`mqtt_agent.Agent`.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        agent: The :class:`mqtt_agent.sync.Agent` that gives the tasks, instead of a new one. Its owner stops it.
        type: The type of the task, which selects the peer's handler.
        title: The title of the task, one line for people.
        input_key: Send only this key of the input state.
        output_key: Put the result under this key.
        context_id: Names the conversation with the peer. None: each thread of the graph has a conversation of its own.
        timeout: Seconds to wait for a result; then ``TaskTimeout`` is raised, and the task goes on. None for no limit.
        wait_online: Give the task also to a peer that has never been seen: the task waits for the peer.
        on_question: Answers the peer's questions outside a graph: called with the question and the JSON Schema of the
            answer, or None. The function may be async for the async methods. When the peer does not accept the answer,
            the question comes again with the reason.
        on_input: The old form of ``on_question``: called with a dict of ``prompt``, ``schema``, ``round`` and more.
        name: The name of the Runnable; None takes the name of the peer.
        description: What the peer does, for the language model that uses it as a tool.
        context: The keys of the run's configuration that the peer may know; see :func:`context_of`. They are searched
            in ``configurable``, in the runtime's ``context`` and in ``metadata``; ``tags`` takes the tags. By default,
            nothing is sent. The values belong to the task: a graph that is resumed must have the same values.

    Raises:
        InvalidIdentifier: ``peer``, ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, or the process uses ``agent_id`` with other credentials or store.
    """

    def __init__(
        self,
        peer: str,
        *,
        broker: str | None = None,
        agent_id: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        agent: Agent | None = None,
        type: str | None = None,
        title: str | None = None,
        input_key: str | None = None,
        output_key: str | None = None,
        context_id: str | None = None,
        timeout: float | None = TASK_TIMEOUT,
        wait_online: bool = False,
        on_question: Callable[[str, dict[str, Any] | None], Any] | None = None,
        on_input: Callable[[dict[str, Any]], Any] | None = None,
        name: str | None = None,
        description: str | None = None,
        context: Sequence[str] = (),
    ) -> None:
        self.peer: str = validate_identifier(peer, "agent id")
        self.name: str | None = name or peer
        self.description = description
        self.input_key = input_key
        self.output_key = output_key
        self.timeout = timeout
        self._context_id = context_id
        self._context = tuple(context)
        self._options: dict[str, Any] = {"type": type, "title": title, "wait_online": wait_online}
        self._on_question = _on_question(on_question, on_input)
        settings = BrokerSettings(broker, namespace, credentials, tls)
        self._requester = Requester(RequesterSettings(settings, agent_id, store, lasting=True), agent=agent)

    def __repr__(self) -> str:
        return f"<MQTTRemoteAgent {self.peer} for {self.agent.agent_id} at {self.agent.connection.url}>"

    @property
    def agent(self) -> Agent:
        """The agent that gives the tasks."""
        return self._requester.agent

    def close(self) -> None:
        """Disconnect, unless others in this process use the same agent. The tasks at peers go on."""
        self._requester.close()

    # Running

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Give the task to the peer, and block for the result.

        Raises:
            PeerUnavailable: There is no such agent.
            TaskFailed, TaskRejected, TaskCanceled, TaskExpired, TaskTimeout: There is no result.
            ConnectionError: The broker cannot be reached, or it refuses the connection.
        """

        def give(value: Any, run_manager: Any, config: RunnableConfig) -> Any:
            return block(last(self._pieces(value, BlockingCaller, config)))

        return self._call_with_config(give, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Give the task to the peer, and await the result; see :meth:`invoke`."""

        async def give(value: Any, run_manager: Any, config: RunnableConfig) -> Any:
            return await last(self._pieces(value, AwaitingCaller, config))

        return await self._acall_with_config(give, input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Give the task to the peer, and iterate over the output: text comes as message chunks, piece by piece."""

        def give(inputs: Iterator[Any], run_manager: Any, config: RunnableConfig) -> Iterator[Any]:
            return iterate(self._pieces(next(inputs), BlockingCaller, config, in_chunks=True))

        yield from self._transform_stream_with_config(iter([input]), give, config, **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Give the task to the peer, and iterate asynchronously over the output; see :meth:`stream`."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        async def give(inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig) -> AsyncIterator[Any]:
            value = await anext(inputs)
            async with aclosing(self._pieces(value, AwaitingCaller, config, in_chunks=True)) as pieces:
                async for piece in pieces:
                    yield piece

        async for piece in self._atransform_stream_with_config(inputs(), give, config, **kwargs):
            yield piece

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Give a task for each input at once, and block for all results; see :meth:`invoke`."""
        return super().batch(self._in_order(inputs, config), config, **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Give a task for each input at once, and await all results; see :meth:`invoke`."""
        return await super().abatch(self._in_order(inputs, config), config, **kwargs)

    def _in_order(self, inputs: Sequence[Any], config: Any) -> list[Any]:
        # The places are counted here, in the order of the inputs: later, the threads of the batch run in any order.
        configs = config if isinstance(config, list) else [config] * len(inputs)
        return [_Placed(each, self.place(ensure_config(its))) for each, its in zip(inputs, configs, strict=True)]

    async def _pieces(
        self, value: Any, kind: type[Caller], config: RunnableConfig, *, in_chunks: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The output of one run: with ``in_chunks`` piece by piece, if the output is a message; else in one piece."""
        placed = value if isinstance(value, _Placed) else _Placed(value, self.place(config))
        value, message_id = placed.value, f"mqtt-{placed.place.task_id}"
        reply = Reply(self.peer, shape_of(value), self.output_key, message_id)
        in_chunks = in_chunks and reply.in_chunks
        if self.input_key is not None:
            value = value[self.input_key] if isinstance(value, Mapping) else getattr(value, self.input_key)
        run = Run(kind(self._requester), config, current_runtime(), name=self.peer, message_id=message_id)
        outcome: Outcome | None = None
        try:
            wanted = self._delegation(request_from(value), placed.place, config)
            async with aclosing(converse(wanted, run, self._on_question)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Outcome):
                        outcome = piece
                    elif in_chunks:
                        yield reply.chunk(piece)
            assert outcome is not None
            output = reply.output(outcome)
        except BaseException as error:
            await run.end(None, error)
            raise
        await run.end(reply.message(outcome))
        yield reply.rest(outcome) if in_chunks else output

    def place(self, config: RunnableConfig, tool_call_id: str | None = None) -> Place:
        """The place of the code that runs with a configuration; the place decides which task is given."""
        return place_of(config, self.agent.namespace, self.peer, tool_call_id)

    def _delegation(
        self, request: Request, place: Place, config: RunnableConfig, *, require_online: bool = False
    ) -> Delegation:
        context_id, told = self._context_id, context_of(config, current_runtime(), self._context)
        if context_id is None and place.thread_id is not None:
            context_id = f"{self.agent.agent_id}/{place.thread_id}"
        return Delegation(
            peer=self.peer,
            request=request,
            task_id=place.task_id,
            replayed=place.in_graph,
            options={**self._options, "context_id": context_id, **({"metadata": {"context": told}} if told else {})},
            require_online=require_online,
            timeout=self.timeout,
        )

    # As a tool

    def as_tool(
        self,
        args_schema: Any = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, Any] | None = None,
        handle_tool_error: HandleToolError = True,
    ) -> BaseTool:
        """Make a tool ``ask_<peer>``: a prompt gives the peer's result. The peer's questions become interrupts.

        Args:
            args_schema: With ``args_schema`` or ``arg_types``, the tool is made by ``Runnable.as_tool``: it takes
                these arguments, and sends them as structured input.
            name: The tool's name for the language model.
            description: For the language model that chooses a tool.
            arg_types: See ``args_schema``.
            handle_tool_error: What the language model is told when there is no result; see :class:`MQTTToolkit`.
        """
        if args_schema is not None or arg_types is not None:
            return super().as_tool(args_schema, name=name, description=description, arg_types=arg_types)
        words = description or self.description or f"Gives a task to the agent {self.peer} and returns its result."
        return MQTTPeerTool.make(
            self._requester,
            self._ask,
            name=name or model_name(f"ask_{self.peer}"),
            description=words,
            args_schema=_TOOL_SCHEMA,
            handle_tool_error=handle_tool_error,
            metadata={"mqtt": {"peer": self.peer, "namespace": self.agent.namespace}},
        )

    async def _ask(self, run: Run, arguments: dict[str, Any]) -> tuple[str, Artifact]:
        prompt = arguments.get("prompt")
        if not isinstance(prompt, str):
            raise ToolException(f"prompt must be a text, not {type(prompt).__name__}")
        wanted = self._delegation(
            Request(prompt), self.place(run.config, run.tool_call_id), run.config, require_online=True
        )
        try:
            outcome = await last(converse(wanted, run, self._on_question))
        except TaskError as error:
            raise ToolException(str(error)) from error
        assert isinstance(outcome, Outcome)
        return as_text(outcome.value), {"structured_content": outcome.value, **outcome.about}


class MQTTPeerTool(RemoteTool):
    """A tool that gives a task to a peer agent. :meth:`MQTTRemoteAgent.as_tool` makes it.

    In a tool message, the artifact is ``{"structured_content": ..., "peer": ..., "task_id": ..., "attempt": ...,
    "elapsed_ms": ..., "artifacts": ...}``.
    """


@dataclass
class _Placed:
    """An input whose place is known already."""

    value: Any
    place: Place


def _on_question(
    on_question: Callable[[str, dict[str, Any] | None], Any] | None, on_input: Callable[[dict[str, Any]], Any] | None
) -> OnQuestion | None:
    if on_input is not None:
        if on_question is not None:
            raise TypeError("on_input is the old form of on_question: give one of them")
        warn_renamed("on_input=", "on_question=")
        return on_input
    if on_question is None:
        return None

    def ask(question: dict[str, Any]) -> Any:
        return on_question(wording(question["prompt"], question.get("fault")), question["schema"])

    return ask
