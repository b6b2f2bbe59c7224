"""A peer agent as a LangChain Runnable."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from os import PathLike
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from mqtt_agent import TLS, Password, TaskStore, Token
from mqtt_agent.adapting.naming import legal_name
from mqtt_agent.sync import Agent
from mqtt_agent.wire import validate_identifier
from typing_extensions import Self

from langchain_mqtt_agent.driver import adrive, asteps, drive, steps
from langchain_mqtt_agent.remote.conversation import Delegation, Outcome
from langchain_mqtt_agent.remote.payload import Work
from langchain_mqtt_agent.remote.plan import Placed, Plan, whole
from langchain_mqtt_agent.remote.requester import Requester
from langchain_mqtt_agent.remote.task_ids import Place, place_of
from langchain_mqtt_agent.telling import heartbeat_of
from langchain_mqtt_agent.tool import HandleToolError

__all__ = ["MQTTRemoteAgent"]


class MQTTRemoteAgent(Runnable[Any, Any]):
    """An agent in another process, as a Runnable: by itself, in a chain, as a LangGraph node, or as a tool.

    It takes text, messages, a state with ``messages``, or any other JSON value as structured input. Text and messages
    give an ``AIMessage``, a state gives ``{"messages": [AIMessage]}``, anything else gives the peer's result as it is;
    with ``output_key`` the output is ``{output_key: result}``, an update for a state without messages. The message's
    ``response_metadata["mqtt"]`` tells task id, attempt, elapsed time, artifacts and the result itself.

    In a LangGraph node with a checkpointer, the task is the same after a crash, a retry or an interrupt, so it runs
    once, and its result is there when the graph is resumed. What the peer asks becomes an ``interrupt``; its events go
    to the stream modes ``custom`` and ``messages``. Canceling the run cancels the task.

    Example:
        >>> researcher = MQTTRemoteAgent("researcher", agent_id="planner")  # doctest: +SKIP
        >>> graph.add_node("research", researcher)  # doctest: +SKIP

    Args:
        peer: The agent id of the peer.
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: In whose name tasks are given. Whoever resumes a graph in another process must use the same one. None
            takes a name that this program always has on this machine.
        namespace: The prefix of all topics.
        store: Where that agent keeps its tasks; see :class:`mqtt_agent.Agent`.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        agent: Use this :class:`mqtt_agent.sync.Agent`, which its owner stops, instead of making one.
        type: What kind of task it is; chooses the peer's handler.
        title: A line for people.
        input_key: Send only this key of the input state.
        output_key: Put the result under this key.
        context_id: What the peer's conversation is called: a text, or None for one per thread of the graph.
        timeout: Seconds to wait for a result; then ``TaskTimeout``, and the task goes on. None waits.
        wait_online: Take also a peer that has never been seen: the task waits for it.
        on_input: Who answers the peer's questions outside a graph: a function from the question (``prompt``,
            ``schema``, ``round``, ...) to the answer; with the async methods it may be async.
        name: The runnable's name; the peer's by default.
        description: For the model, when it is used as a tool.

    Raises:
        InvalidIdentifier: ``peer``, ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    def __init__(
        self,
        peer: str,
        *,
        broker: str | None = None,
        agent_id: str | None = None,
        namespace: str = "a2a/v1",
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        agent: Agent | None = None,
        type: str | None = None,
        title: str | None = None,
        input_key: str | None = None,
        output_key: str | None = None,
        context_id: str | None = None,
        timeout: float | None = None,
        wait_online: bool = False,
        on_input: Callable[[dict[str, Any]], Any] | None = None,
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        self.peer: str = validate_identifier(peer, "agent id")
        self.name: str | None = name or peer
        self.description = description
        self.input_key = input_key
        self.output_key = output_key
        self.timeout = timeout
        self._type = type
        self._title = title
        self._context_id = context_id
        self._wait_online = wait_online
        self._on_input = on_input
        self._requester = Requester(
            agent_id, broker=broker, namespace=namespace, store=store, credentials=credentials, tls=tls, agent=agent
        )

    def __repr__(self) -> str:
        return f"<MQTTRemoteAgent {self.peer} for {self.agent.agent_id} at {self.agent.connection.url}>"

    @property
    def agent(self) -> Agent:
        """The agent in whose name tasks are given."""
        return self._requester.agent

    def close(self) -> None:
        """Disconnect, unless others in this process use the same agent. What runs at the peer goes on."""
        self._requester.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    # Running

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Give the task away and wait for its result.

        Raises:
            PeerUnavailable: There is no such agent.
            TaskFailed, TaskRejected, TaskCanceled, TaskExpired, TaskTimeout: There is no result.
            ConnectionError: The broker is not there, or refuses.
        """
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The same as :meth:`invoke`, awaited."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """The same as :meth:`invoke`, piece by piece: what the peer streams as text comes as message chunks."""
        yield from self._transform_stream_with_config(iter([input]), self._stream, config, **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """The same as :meth:`stream`, awaited."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        async for piece in self._atransform_stream_with_config(inputs(), self._astream, config, **kwargs):
            yield piece

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """The same as :meth:`invoke` for several inputs at once."""
        return super().batch(self._in_order(inputs, config), config, **kwargs)

    async def abatch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """The same as :meth:`batch`, awaited."""
        return await super().abatch(self._in_order(inputs, config), config, **kwargs)

    def _in_order(self, inputs: list[Any], config: Any) -> list[Any]:
        # Places count up in the order of the inputs, not in that of the threads.
        configs = config if isinstance(config, list) else [config] * len(inputs)
        return [Placed(each, self.place(ensure_config(its))) for each, its in zip(inputs, configs, strict=True)]

    def _invoke(self, value: Any, run_manager: Any, config: RunnableConfig) -> Any:
        plan = Plan(self, value, config)
        try:
            outcome = drive(plan.script, self.agent, config, plan.telling)
            output = plan.output(outcome)
        except BaseException as error:
            plan.telling.end(None, error)
            raise
        plan.telling.end(plan.message)
        return output

    async def _ainvoke(self, value: Any, run_manager: Any, config: RunnableConfig) -> Any:
        plan = Plan(self, value, config)
        try:
            outcome = await adrive(plan.script, self.agent, config, plan.telling)
            output = plan.output(outcome)
        except BaseException as error:
            await plan.telling.aend(None, error)
            raise
        await plan.telling.aend(plan.message)
        return output

    def _stream(self, inputs: Iterator[Any], run_manager: Any, config: RunnableConfig) -> Iterator[Any]:
        plan = Plan(self, whole(list(inputs)), config)
        running = steps(plan.script, self.agent, config, plan.telling)
        try:
            while True:
                try:
                    text = next(running)
                except StopIteration as stop:
                    outcome = stop.value
                    break
                if plan.in_chunks:
                    yield plan.chunk(text)
            output = plan.output(outcome)
        except BaseException as error:
            running.close()
            plan.telling.end(None, error)
            raise
        plan.telling.end(plan.message)
        yield plan.rest(outcome) if plan.in_chunks else output

    async def _astream(
        self, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig
    ) -> AsyncIterator[Any]:
        plan = Plan(self, whole([each async for each in inputs]), config)
        outcomes: list[Outcome] = []
        try:
            async with aclosing(asteps(plan.script, self.agent, config, plan.telling, outcomes)) as running:  # type: ignore[type-var]
                async for text in running:
                    if plan.in_chunks:
                        yield plan.chunk(text)
            output = plan.output(outcomes[0])
        except BaseException as error:
            await plan.telling.aend(None, error)
            raise
        await plan.telling.aend(plan.message)
        yield plan.rest(outcomes[0]) if plan.in_chunks else output

    def as_tool(
        self,
        args_schema: Any = None,
        *,
        name: str | None = None,
        description: str | None = None,
        arg_types: dict[str, Any] | None = None,
        handle_tool_error: HandleToolError = True,
    ) -> BaseTool:
        """A tool ``ask_<peer>`` that takes a prompt and gives the result, with its questions as interrupts.

        Args:
            args_schema: With this or ``arg_types``, the tool is the one that any Runnable gives: it takes what they
                say, as structured input.
            name: What the model calls it.
            description: For the model that chooses a tool.
            arg_types: See ``args_schema``.
            handle_tool_error: What the model is told when there is no result; see :class:`MQTTToolkit`.
        """
        if args_schema is not None or arg_types is not None:
            return super().as_tool(args_schema, name=name, description=description, arg_types=arg_types)
        from langchain_mqtt_agent.remote.tool import make_peer_tool  # LangGraph takes a while to import

        words = description or self.description or f"Gives a task to the agent {self.peer} and returns its result."
        name = name or legal_name(f"ask_{self.peer}", set())
        metadata = {"peer": self.peer, "namespace": self.agent.namespace}
        return make_peer_tool(self, name, words, handle_tool_error, metadata)

    # For the plan, and for tools

    def place(self, config: RunnableConfig, tool_call_id: str | None = None) -> Place:
        """Where the code that runs with this configuration is."""
        return place_of(config, self.agent.namespace, self.peer, tool_call_id)

    def delegation(
        self, work: Work, place: Place, runtime: Any, tool_call_id: str | None = None, *, require_online: bool = False
    ) -> Delegation:
        """What is given to the peer, as the settings say."""
        context_id = self._context_id
        if context_id is None and place.thread_id is not None:
            context_id = f"{self.agent.agent_id}/{place.thread_id}"
        options = {"type": self._type, "title": self._title, "context_id": context_id}
        return Delegation(
            peer=self.peer,
            work=work,
            place=place,
            options={**options, "wait_online": self._wait_online},
            require_online=require_online,
            timeout=self.timeout,
            tool_call_id=tool_call_id,
            on_input=self._on_input,
            heartbeat=heartbeat_of(runtime),
        )
