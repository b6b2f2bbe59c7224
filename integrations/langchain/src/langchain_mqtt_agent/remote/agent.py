"""A peer agent as a LangChain Runnable, a LangGraph node, or a tool."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from mqtt_agent import TLS, Password, TaskStore, Token
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, Caller, block, iterate, last
from mqtt_agent.adapting.closing import Closing
from mqtt_agent.adapting.failures import concerns_model
from mqtt_agent.adapting.following import wording
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.adapting.replaying import Delegation, ReplayedTask, Request
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import TASK_TIMEOUT
from mqtt_agent.errors import TaskTimeout, WireError
from mqtt_agent.sync import Agent
from mqtt_agent.transport import Bound, BrokerSettings, MessageAudit, MessageIdentity
from mqtt_agent.wire import DEFAULT_NAMESPACE, new_task_id, validate_identifier

from langchain_mqtt_agent._langgraph import current_runtime
from langchain_mqtt_agent.context import context_of
from langchain_mqtt_agent.faults import HandleToolError, RemoteToolException
from langchain_mqtt_agent.interceptors import MQTTToolCallRequest, ToolCallInterceptor, as_meta, intercepted
from langchain_mqtt_agent.parts import tool_content
from langchain_mqtt_agent.places import Place, place_of
from langchain_mqtt_agent.remote.conversation import OnQuestion, converse
from langchain_mqtt_agent.remote.payload import Outcome, Reply, Shape, request_from, shape_of
from langchain_mqtt_agent.run import Artifact, Run
from langchain_mqtt_agent.tool import RemoteTool

__all__ = ["MQTTPeerTool", "MQTTRemoteAgent", "OnTimeout"]

OnTimeout = Literal["leave", "cancel"]
"""What becomes of a task that takes too long: it goes on, or it is canceled."""

_TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent is to do, with everything that it needs to know"}
    },
    "required": ["prompt"],
}
_COMING_BACK: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_TOOL_SCHEMA["properties"],
        "task_id": {
            "type": "string",
            "description": "Only to wait again for an earlier task that took too long: the id of the task",
        },
    },
}
"""The arguments of a tool whose tasks may take longer than the tool waits."""


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

    A copy made with ``copy.deepcopy`` shares the agent and the connection. A pickle has the settings, and the
    credentials in them: keep it as secret as they are. The unpickled object makes a connection of its own on its first
    use. An ``agent``, a store object and an ``ssl.SSLContext`` cannot be pickled.

    Example:
        >>> researcher = MQTTRemoteAgent("researcher", agent_id="planner")  # doctest: +SKIP
        >>> graph.add_node("research", researcher)  # doctest: +SKIP

    Args:
        peer: The agent id of the peer.
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        agent_id: The id under which tasks are given. A process that resumes a graph must use the same id as the
            process before. None takes an id that is the same each time this program runs on this machine.
        namespace: The prefix of all topics.
        store: Where the given tasks are kept; see :class:`mqtt_agent.Agent`.
        pool: Whether several processes, such as the workers of a web server, give tasks under ``agent_id``. Then a task
            can be resumed in any of them. ``store`` must be the URL of a PostgreSQL database.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`mqtt_agent.transport.BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.
        agent: The :class:`mqtt_agent.sync.Agent` that gives the tasks, instead of a new one. Its owner stops it.
        type: The type of the task, which selects the peer's handler.
        title: The title of the task, one line for people.
        input_key: Send only this key of the input state.
        output_key: Put the result under this key.
        context_id: Names the conversation with the peer. None: each thread of the graph has a conversation of its own.
        timeout: Seconds to wait for a result; then ``TaskTimeout`` is raised. None for no limit.
        idle_timeout: Seconds to wait for the peer's next event, such as its progress; then ``TaskTimeout`` is raised.
            None for no limit.
        on_timeout: What becomes of a task that takes longer: ``leave`` lets the task go on, and ``cancel`` cancels the
            task. With ``leave``, a language model can come back to the task: see :meth:`as_tool`.
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
        broker: str | Sequence[str] | None = None,
        agent_id: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        audit: MessageAudit | None = None,
        agent: Agent | None = None,
        pool: bool = False,
        type: str | None = None,
        title: str | None = None,
        input_key: str | None = None,
        output_key: str | None = None,
        context_id: str | None = None,
        timeout: float | None = TASK_TIMEOUT,
        idle_timeout: float | None = None,
        on_timeout: OnTimeout = "leave",
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
        self.idle_timeout = idle_timeout
        self.on_timeout: OnTimeout = on_timeout
        self._context_id = context_id
        self._context = tuple(context)
        self._options: dict[str, Any] = {"type": type, "title": title, "wait_online": wait_online}
        self._on_question = _on_question(on_question, on_input)
        settings = BrokerSettings(broker, namespace, credentials, tls, bound, identity, audit)
        options = {"pool": True} if pool else {}
        self._requester = Requester(
            RequesterSettings(settings, agent_id, store, lasting=True, options=options), agent=agent
        )

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
        # The places of equal inputs are counted here, in the order of the inputs: later, the threads of the batch run
        # in any order.
        configs = config if isinstance(config, list) else [config] * len(inputs)
        return [self._prepared(each, ensure_config(its)) for each, its in zip(inputs, configs, strict=True)]

    def _prepared(self, value: Any, config: RunnableConfig) -> Any:
        try:
            return self._prepare(value, config)
        except Exception:  # the run of this input raises the error again, and the other inputs are not affected
            return value

    def _prepare(self, value: Any, config: RunnableConfig) -> _Prepared:
        shape = shape_of(value)
        if self.input_key is not None:
            value = value[self.input_key] if isinstance(value, Mapping) else getattr(value, self.input_key)
        request = request_from(value)
        return _Prepared(shape, self._delegation(request, self._place(config, request), config))

    async def _pieces(
        self, value: Any, kind: type[Caller], config: RunnableConfig, *, in_chunks: bool = False
    ) -> AsyncGenerator[Any, None]:
        """The output of one run: with ``in_chunks`` piece by piece, if the output is a message; else in one piece."""
        prepared = value if isinstance(value, _Prepared) else self._prepare(value, config)
        message_id = f"mqtt-{prepared.wanted.task_id}"
        reply = Reply(self.peer, prepared.shape, self.output_key, message_id)
        in_chunks = in_chunks and reply.in_chunks
        run = Run(kind(self._requester), config, current_runtime(), name=self.peer, message_id=message_id)
        outcome: Outcome | None = None
        try:
            task = ReplayedTask(prepared.wanted, run.patience)
            async with aclosing(converse(task, run, self._on_question)) as pieces:
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

    def _place(self, config: RunnableConfig, request: Request, tool_call_id: str | None = None) -> Place:
        """The place of the code that runs with a configuration; the place decides which task is given."""
        what = ("task", self.agent.namespace, self.peer, tool_call_id or "")
        return place_of(config, what, [request.prompt, request.messages, request.data])

    def _delegation(
        self,
        request: Request,
        place: Place,
        config: RunnableConfig,
        headers: dict[str, Any] | None = None,
        *,
        require_online: bool = False,
    ) -> Delegation:
        context_id = self._context_id
        metadata = as_meta(context_of(config, current_runtime(), self._context), headers)
        if context_id is None and place.thread_id is not None:
            context_id = f"{self.agent.agent_id}/{place.thread_id}"
        return Delegation(
            peer=self.peer,
            request=request,
            task_id=place.id or new_task_id(),
            replayed=place.id is not None,
            options={**self._options, "context_id": context_id, **({"metadata": metadata} if metadata else {})},
            require_online=require_online,
            timeout=self.timeout,
            idle_timeout=self.idle_timeout,
            cancel_late=self.on_timeout == "cancel",
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
        interceptors: Sequence[ToolCallInterceptor] = (),
    ) -> BaseTool:
        """Make a tool ``ask_<peer>``: a prompt gives the peer's result. The peer's questions become interrupts.

        When a task takes longer than ``timeout`` or ``idle_timeout`` and goes on, the language model is told the id of
        the task. It can call the tool again with this ``task_id``, in any later turn, to wait for the result.

        Args:
            args_schema: With ``args_schema`` or ``arg_types``, the tool is made by ``Runnable.as_tool``: it takes
                these arguments, and sends them as structured input.
            name: The tool's name for the language model.
            description: For the language model that chooses a tool.
            arg_types: See ``args_schema``.
            handle_tool_error: What the language model is told when there is no result; see :class:`MQTTToolkit`.
            interceptors: See :class:`MQTTToolkit`. They cannot be used with ``args_schema`` or ``arg_types``.
        """
        if args_schema is not None or arg_types is not None:
            if interceptors:
                raise ValueError("a tool with args_schema or arg_types takes no interceptors")
            return super().as_tool(args_schema, name=name, description=description, arg_types=arg_types)
        words = description or self.description or f"Gives a task to the agent {self.peer} and returns its result."
        name = name or model_name(f"ask_{self.peer}")
        return MQTTPeerTool.make(
            self._requester,
            intercepted(partial(self._ask_as, name), interceptors, name, self.peer) if interceptors else self._ask,
            awaits=bool(interceptors),
            name=name,
            description=words,
            args_schema=_COMING_BACK if self._may_outlive_its_turn else _TOOL_SCHEMA,
            handle_tool_error=handle_tool_error,
            metadata={"mqtt": {"peer": self.peer, "namespace": self.agent.namespace}},
        )

    @property
    def _may_outlive_its_turn(self) -> bool:
        return self.on_timeout == "leave" and (self.timeout is not None or self.idle_timeout is not None)

    async def _ask_as(self, name: str, run: Run, request: MQTTToolCallRequest) -> Any:
        if request.name != name:
            raise ValueError(f"an interceptor cannot turn the tool {name} of a peer into {request.name!r:.80}")
        return await self._ask(run, request.args, request.headers)

    async def _ask(
        self, run: Run, arguments: dict[str, Any], headers: dict[str, Any] | None = None
    ) -> tuple[str | list[dict[str, Any]], Artifact]:
        task: ReplayedTask | None = None
        try:
            task = ReplayedTask(self._asked_for(run, arguments, headers), run.patience)
            outcome = await last(converse(task, run, self._on_question))
        except Exception as error:
            if not concerns_model(error):
                raise
            about = task.about if task is not None and task.given else {"peer": self.peer, "task_id": None}
            told = RemoteToolException.of(error, about)
            if isinstance(error, TaskTimeout) and self._may_outlive_its_turn:
                advice = "still works on the task: to wait for the result, call this tool again with"
                told = RemoteToolException(f"{self.peer} {advice} task_id={error.task_id!r}", told.artifact)
            raise told from error
        assert isinstance(outcome, Outcome)
        return tool_content(outcome.value), {"structured_content": outcome.value, **outcome.about}

    def _asked_for(self, run: Run, arguments: dict[str, Any], headers: dict[str, Any] | None) -> Delegation:
        prompt, task_id = arguments.get("prompt"), arguments.get("task_id")
        if isinstance(task_id, str) and task_id and self._may_outlive_its_turn:
            request = Request(data={"task_id": task_id})
            place = self._place(run.config, request, run.tool_call_id)
            wanted = self._delegation(request, place, run.config)
            return dataclasses.replace(wanted, task_id=task_id, followed_at=place.id or "")
        if not isinstance(prompt, str):
            raise WireError(f"prompt must be a text, not {type(prompt).__name__}")
        request = Request(prompt)
        place = self._place(run.config, request, run.tool_call_id)
        return self._delegation(request, place, run.config, headers, require_online=True)


class MQTTPeerTool(RemoteTool):
    """A tool that gives a task to a peer agent. :meth:`MQTTRemoteAgent.as_tool` makes it.

    In a tool message, the artifact is ``{"structured_content": ..., "peer": ..., "task_id": ..., "attempt": ...,
    "elapsed_ms": ..., "artifacts": ...}``. When the task has no result, the artifact also has ``code``, ``data`` and
    ``retryable``.
    """


@dataclass
class _Prepared:
    """An input as a task, and the shape of its output."""

    shape: Shape
    wanted: Delegation


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
    return _Asking(on_question)


@dataclass
class _Asking:
    """Calls the user's function with a question and the schema of its answer."""

    on_question: Callable[[str, dict[str, Any] | None], Any]

    def __call__(self, question: dict[str, Any]) -> Any:
        return self.on_question(wording(question["prompt"], question.get("fault")), question["schema"])
