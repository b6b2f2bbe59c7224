"""The tools that servers offer on a broker, as an AutoGen workbench and as a list of AutoGen tools."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, cast

from autogen_core import CancellationToken
from autogen_core.tools import BaseTool, ParametersSchema, StaticStreamWorkbench, ToolResult, ToolSchema
from mqtt_agent import TLS, CallHandle, Connection, Password, Token, ToolCard
from mqtt_agent.adapting.callers import last
from mqtt_agent.adapting.calling import call_tool
from mqtt_agent.adapting.finding import EmptyHands, OnUnavailable, Selection, find_tools, tell_missing
from mqtt_agent.adapting.logs import logger_of
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.adapting.schemas import speakable, without_nulls
from mqtt_agent.adapting.streaming import Emit, stream
from mqtt_agent.adapting.threads import run_in_thread
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.sync import ToolClient
from mqtt_agent.transport import Bound, MessageAudit, MessageIdentity
from mqtt_agent.wire import DEFAULT_NAMESPACE
from pydantic import BaseModel, ConfigDict
from typing_extensions import Self, override

from autogen_mqtt_agent.questions import OnQuestion, asking_here
from autogen_mqtt_agent.results import outcome_result, partial_event
from autogen_mqtt_agent.saved import MQTTWorkbenchConfig

__all__ = ["MQTTTool", "MQTTWorkbench", "mqtt_tools"]

logger: logging.Logger = logger_of(__name__)


class MQTTWorkbench(StaticStreamWorkbench):
    """The tools that servers offer on a broker now, for any AutoGen agent: ``AssistantAgent(workbench=...)``.

    The workbench connects on first use, on an event loop of its own. So it can be used from any event loop, also from
    several, one after the other. Calling :meth:`start` and :meth:`stop` is optional: a connection that is open when the
    program ends is closed then.

    A call that fails in any way is a result with ``is_error=True``, never an exception: AutoGen's agents wait forever
    when a workbench raises.

    Example:
        >>> workbench = MQTTWorkbench(broker="mqtt://localhost:1883", agent_id="agent-a")  # doctest: +SKIP
        >>> agent = AssistantAgent("assistant", model_client, workbench=workbench)  # doctest: +SKIP

    Args:
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        agent_id: The id under which the tools are called; the tool servers see it. None makes a new id.
        namespace: The prefix of all topics.
        tools: Names of the wanted tools, or patterns such as ``git_*``; None takes all that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of servers whose tools are wanted; None takes the tools of all servers.
        tags: A tool is wanted when its card's ``meta["tags"]`` has one of these words; None takes all tools.
        where: A function that gets a :class:`mqtt_agent.ToolCard` and returns whether the tool is wanted.
        on_unavailable: What to do about a name or pattern in ``tools`` that no server offers: ``skip`` leaves it out
            with a warning, ``raise`` makes the first :meth:`list_tools` raise.
        timeout: Seconds that a call may take; None for no limit.
        stream: Whether a value that a tool streams becomes an event: a ``ThoughtEvent`` whose source is the tool.
        on_question: Answers what a tool asks in the middle of a call. It is called in a thread with the question and
            the JSON Schema of the answer, or None instead of a schema, and returns the answer, or None to decline. An
            awaitable that it returns is awaited. Without ``on_question``, a tool that asks gets an error.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`mqtt_agent.transport.BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        client_id: The MQTT client id, for a broker that binds client ids to logins. None makes a new id. Each process
            needs a client id of its own.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, or ``tools`` is one text and no list.
    """

    component_provider_override: ClassVar[str | None] = "autogen_mqtt_agent.MQTTWorkbench"
    component_config_schema: type[MQTTWorkbenchConfig] = MQTTWorkbenchConfig  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        agent_id: str | None = None,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        tools: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        servers: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        where: Callable[[ToolCard], bool] | None = None,
        on_unavailable: OnUnavailable = "skip",
        timeout: float | None = CALL_TIMEOUT,
        stream: bool = True,
        on_question: OnQuestion | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        client_id: str | None = None,
        audit: MessageAudit | None = None,
    ) -> None:
        super().__init__([])
        self._wanted = Selection(tools, exclude, servers, tags, where)
        self._client = ToolClient(
            agent_id,
            broker=broker,
            namespace=namespace,
            credentials=credentials,
            tls=tls,
            bound=bound,
            identity=identity,
            client_id=client_id,
            audit=audit,
        )
        self._timeout = timeout
        self._stream = stream
        self._on_question = on_question
        self._cards: dict[str, ToolCard] = {}
        self._listed: list[ToolSchema] | None = None
        self._outdated = False
        self._empty_hands = EmptyHands()
        self._config = MQTTWorkbenchConfig(
            broker=broker,
            agent_id=agent_id,
            namespace=namespace,
            tools=None if tools is None else list(tools),
            exclude=list(exclude),
            servers=None if servers is None else list(servers),
            tags=None if tags is None else list(tags),
            on_unavailable=on_unavailable,
            timeout=timeout,
            stream=stream,
            client_id=client_id,
        )

    @property
    def agent_id(self) -> str:
        """The id under which the tools are called."""
        return self._client.agent_id

    @property
    def connection(self) -> Connection:
        """The connection that all tools of the workbench share."""
        return self._client.connection

    # Lifecycle

    @override
    async def start(self) -> None:
        """Connect; a second call changes nothing. The first use connects too.

        Raises:
            TransportError: The broker cannot be reached, or it refuses the connection.
        """
        await run_in_thread(self._client.start, "mqtt-agent-start")

    @override
    async def stop(self) -> None:
        """Cancel the calls that are under way, and disconnect. A later use connects again."""
        await run_in_thread(self._client.stop, "mqtt-agent-close")

    # Tools

    @override
    async def list_tools(self) -> list[ToolSchema]:
        """The wanted tools that can be called now. The client keeps its list of all tools up to date.

        Raises:
            TransportError: The broker cannot be reached or refuses, and the tools were never listed before.
            ToolUnavailable: A wanted tool is missing, ``on_unavailable`` is ``raise``, and the tools were never listed.
        """
        try:
            found = await self._client.await_on_loop(find_tools, self._wanted)
            tell_missing(self._config.namespace, self._config.on_unavailable, found)
            self._empty_hands.tell(found, self.connection.url, self._config.namespace)
        except Exception as error:
            if self._listed is None:
                raise
            # AutoGen's agents list the tools again before each call, and wait forever when the listing raises.
            logger.warning("the tools cannot be listed now, so the last list is used again: %s", error)
            self._outdated = True
            return self._listed
        if self._outdated:
            self._outdated = False
            logger.warning("the tools are listed again")
        self._listed = []
        for card in found.tools:
            name = model_name(card.tool)
            self._cards[name] = card
            # AutoGen's ParametersSchema has no `$defs`, so `speakable` replaces the references.
            parameters = cast(ParametersSchema, speakable(card.input_schema))
            described = card.description or card.title or card.tool
            self._listed.append(ToolSchema(name=name, description=described, parameters=parameters))
        return self._listed

    async def get_tools(self) -> list[MQTTTool]:
        """Find the tools that can be called now. The list does not change later; it is for agents without a workbench.

        The tools call through this workbench and share its connection.

        Example:
            >>> tools = await MQTTWorkbench().get_tools()  # doctest: +SKIP
            >>> agent = AssistantAgent("assistant", model_client, tools=tools)  # doctest: +SKIP

        Raises:
            TransportError, ToolUnavailable: See :meth:`list_tools`.
        """
        return [MQTTTool(self, schema) for schema in await self.list_tools()]

    @override
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> ToolResult:
        """Call a tool. Every failure is a result with ``is_error=True``.

        Args:
            name: The tool's name in the list of :meth:`list_tools`.
            arguments: The arguments by name.
            cancellation_token: Cancels the call at the server.
            call_id: Not used: a call over MQTT has an id of its own.
        """
        return await last(self.call_tool_stream(name, arguments, cancellation_token))

    @override
    async def call_tool_stream(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> AsyncGenerator[Any | ToolResult, None]:
        """Call a tool, and yield an event for each value that the tool streams, and then the result.

        For the arguments see :meth:`call_tool`.
        """

        async def call(emit: Emit) -> CallHandle:
            card = await self._card_named(name)

            def on_partial(call_id: str, partial: Any) -> None:
                emit(partial_event(card.tool, call_id, partial))

            given, timeout = without_nulls(card.input_schema, arguments or {}), self._timeout
            ask = None if self._on_question is None else asking_here(self._on_question)
            options: dict[str, Any] = {"timeout": timeout, "on_partial": on_partial, "ask": ask}
            return await self._client.await_on_loop(call_tool, card.tool, given, **options)

        on_cancel = None if cancellation_token is None else cancellation_token.add_callback
        async with contextlib.aclosing(stream(call, on_cancel)) as events:
            async for event in events:
                if isinstance(event, asyncio.Future):
                    yield outcome_result(name, event)
                elif self._stream:
                    yield event

    async def _card_named(self, name: str) -> ToolCard:
        if name not in self._cards:
            await self.list_tools()
        if name not in self._cards:  # also a tool that this workbench was told to leave out
            raise ToolUnavailable(
                f"this workbench has no tool {name!r}, or no server offers the tool now: list_tools() gives the names"
            )
        return self._cards[name]

    # Component

    @override
    def _to_config(self) -> MQTTWorkbenchConfig:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._config

    @override
    @classmethod
    def _from_config(cls, config: MQTTWorkbenchConfig) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls(**dict(config))


class AnyArguments(BaseModel):
    """Any arguments: the tool server checks them against the tool's own schema."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")


class MQTTTool(BaseTool[AnyArguments, Any]):
    """One remote tool. :meth:`MQTTWorkbench.get_tools` makes it.

    Attributes:
        workbench: Makes the calls.
    """

    def __init__(self, workbench: MQTTWorkbench, schema: ToolSchema) -> None:
        super().__init__(AnyArguments, str, schema["name"], schema.get("description", ""))
        self.workbench = workbench
        self._schema = schema

    @property
    @override
    def schema(self) -> ToolSchema:
        """The name, the description and the parameters for the language model, as on the tool's card."""
        return self._schema

    @override
    async def run(self, args: AnyArguments, cancellation_token: CancellationToken) -> str:
        """Call the tool, and return its result as text.

        Args:
            args: The arguments.
            cancellation_token: Cancels the call at the server.

        Raises:
            RuntimeError: The call failed, or was canceled. A ``CancelledError`` would end AutoGen's agents.
        """
        try:
            result = await self.workbench.call_tool(self.name, args.model_dump(), cancellation_token)
        except asyncio.CancelledError:
            raise RuntimeError(f"{self.name}: the call was canceled") from None
        if result.is_error:
            raise RuntimeError(result.to_text())
        return result.to_text()


def mqtt_tools(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, list[MQTTTool]]:
    """The old form of ``MQTTWorkbench(...).get_tools()``; takes the arguments of :class:`MQTTWorkbench`."""
    warn_renamed("mqtt_tools(...)", "MQTTWorkbench(...).get_tools()")
    return MQTTWorkbench(*args, **kwargs).get_tools()
