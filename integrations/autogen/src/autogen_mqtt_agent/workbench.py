"""The tools that servers offer on a broker, as an AutoGen workbench."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, ClassVar, cast

from autogen_core import CancellationToken, ComponentType
from autogen_core.tools import ParametersSchema, StaticStreamWorkbench, ToolResult, ToolSchema
from mqtt_agent import TLS, Connection, Password, Token, ToolCard, ToolClient
from mqtt_agent.adapting.naming import legal_name
from mqtt_agent.adapting.schemas import speakable
from mqtt_agent.sync import ToolClient as SyncToolClient
from mqtt_agent.wire import new_call_id
from pydantic import BaseModel
from typing_extensions import Self, override

from autogen_mqtt_agent.bridge import Emit, Outcome, stream
from autogen_mqtt_agent.results import error_result, partial_event, tool_result
from autogen_mqtt_agent.settings import without_password

__all__ = ["MQTTWorkbench", "MQTTWorkbenchConfig"]

logger: logging.Logger = logging.getLogger(__name__)


class MQTTWorkbenchConfig(BaseModel):
    """What of a workbench is written down: no password, token or certificate."""

    broker: str | None = None
    agent_id: str | None = None
    namespace: str = "a2a/v1"
    tools: list[str] | None = None
    timeout: float | None = 60.0
    stream: bool = True


class MQTTWorkbench(StaticStreamWorkbench):
    """The tools that servers offer on a broker now, for any AutoGen agent: ``AssistantAgent(workbench=...)``.

    It connects on first use, on an event loop of its own, so that it can be used from any event loop, also several one
    after the other. It need not be started nor stopped; what is still open when the program ends is closed then.

    A call that fails, however it does, is a result with ``is_error=True``, never an exception: AutoGen's agents wait
    for ever when a workbench raises.

    Example:
        >>> workbench = MQTTWorkbench(broker="mqtt://localhost:1883", agent_id="agent-a")  # doctest: +SKIP
        >>> agent = AssistantAgent("assistant", model_client, workbench=workbench)  # doctest: +SKIP

    Args:
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The caller's name, told to the tools; None makes a fresh one.
        namespace: The prefix of all topics.
        tools: Names of the tools wanted; None takes all that are online.
        timeout: Seconds that a call may take; None for no limit.
        stream: Whether what a tool streams comes as events, each a ``ThoughtEvent`` whose source is the tool.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    component_type: ClassVar[ComponentType] = "workbench"
    component_provider_override: ClassVar[str | None] = "autogen_mqtt_agent.MQTTWorkbench"
    component_config_schema: type[MQTTWorkbenchConfig] = MQTTWorkbenchConfig  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        broker: str | None = None,
        agent_id: str | None = None,
        *,
        namespace: str = "a2a/v1",
        tools: Sequence[str] | None = None,
        timeout: float | None = 60.0,
        stream: bool = True,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
    ) -> None:
        super().__init__([])
        if isinstance(tools, str):
            raise ValueError(f"tools is a list of names: write [{tools!r}]")
        self._client = SyncToolClient(agent_id, broker=broker, namespace=namespace, credentials=credentials, tls=tls)
        self._wanted = None if tools is None else list(tools)
        self._timeout = timeout
        self._stream = stream
        self._names: dict[str, str] = {}
        self._listed: list[ToolSchema] | None = None
        self._config = MQTTWorkbenchConfig(
            broker=without_password(broker),
            agent_id=agent_id,
            namespace=namespace,
            tools=self._wanted,
            timeout=timeout,
            stream=stream,
        )

    @property
    def agent_id(self) -> str:
        """The caller's name."""
        return self._client.agent_id

    @property
    def connection(self) -> Connection:
        """The connection that all its tools share."""
        return self._client.connection

    # Life

    @override
    async def start(self) -> None:
        """Connect; a second call changes nothing, and the first use does it too.

        Raises:
            TransportError: The broker is not there, or refuses.
        """
        await self._client.await_on_loop(_nothing)

    @override
    async def stop(self) -> None:
        """Cancel the calls that are under way, and disconnect. Using it connects again."""
        await asyncio.to_thread(self._client.stop)

    @override
    async def reset(self) -> None:
        """Do nothing: it has no state of its own."""

    @override
    async def save_state(self) -> Mapping[str, Any]:
        """Nothing: the tools live elsewhere."""
        return {}

    @override
    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    # Tools

    @override
    async def list_tools(self) -> list[ToolSchema]:
        """The tools that can be called now, from a list that is kept up to date: no round trip.

        Raises:
            TransportError: The broker is not there, or refuses, and the tools have never been listed yet.
        """
        try:
            cards = await self._client.await_on_loop(_find, self._wanted)
        except Exception as error:
            if self._listed is None:
                raise
            # AutoGen's agents ask once more before each call, and wait for ever when that raises.
            logger.warning("the tools cannot be listed; the last list stands: %s", error)
            return self._listed
        taken: set[str] = set()
        self._listed = []
        for card in cards:
            name = legal_name(card.tool, taken)
            self._names[name] = card.tool
            self._listed.append(_schema(card, name))
        return self._listed

    @override
    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> ToolResult:
        """Call a tool; every failure is a result with ``is_error=True``. The token cancels the call at the server."""
        result: ToolResult | None = None
        async with contextlib.aclosing(self._events(name, arguments, cancellation_token)) as events:
            async for event in events:
                if isinstance(event, ToolResult):
                    result = event
        return result or error_result(name, f"{name}: no result")

    @override
    async def call_tool_stream(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
        call_id: str | None = None,
    ) -> AsyncGenerator[Any | ToolResult, None]:
        """The same, with an event for each thing that the tool streams before its result."""
        async with contextlib.aclosing(self._events(name, arguments, cancellation_token)) as events:
            async for event in events:
                if self._stream or isinstance(event, ToolResult):
                    yield event

    async def _events(
        self, name: str, arguments: Mapping[str, Any] | None, token: CancellationToken | None
    ) -> AsyncGenerator[Any, None]:
        tool, call_id = self._names.get(name, name), new_call_id()

        async def work(emit: Emit) -> Any:
            return await self._client.await_on_loop(_call, tool, dict(arguments or {}), self._timeout, call_id, emit)

        async with contextlib.aclosing(stream(work, token)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    yield _result(name, event)
                else:
                    yield partial_event(tool, call_id, event)

    # Component

    @override
    def _to_config(self) -> MQTTWorkbenchConfig:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._config

    @override
    @classmethod
    def _from_config(cls, config: MQTTWorkbenchConfig) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cls(**dict(config))


def _schema(card: ToolCard, name: str) -> ToolSchema:
    described = card.description or card.title or card.tool
    # AutoGen's form has no place for definitions.
    parameters = cast(ParametersSchema, speakable(card.input_schema))
    return ToolSchema(name=name, description=described, parameters=parameters)


def _result(name: str, outcome: Outcome[Any]) -> ToolResult:
    error = outcome.error
    if error is None:
        return tool_result(name, *outcome.get())
    if isinstance(error, asyncio.CancelledError):
        return error_result(name, f"{name}: the call was canceled")
    return error_result(name, str(error) or type(error).__name__)


async def _nothing(client: ToolClient) -> None:
    pass


async def _find(client: ToolClient, wanted: Sequence[str] | None) -> list[ToolCard]:
    cards = {card.tool: card for card in await client.list_tools()}
    if wanted is None:
        return list(cards.values())
    found = []
    for name in wanted:
        # Where a broker's rules forbid listing, a card can still be had by its name.
        card = cards.get(name) or await client.get_tool(name)
        if card is not None and card.status == "online":
            found.append(card)
        else:
            logger.warning("%s: no server offers this tool now; it is left out", name)
    return found


async def _call(
    client: ToolClient, tool: str, arguments: dict[str, Any], timeout: float | None, call_id: str, emit: Emit
) -> tuple[Any, list[dict[str, Any]] | None]:
    handle = await client.submit(tool, arguments, timeout=timeout, call_id=call_id)
    try:
        async for partial in handle.partials():
            emit(partial)
        result = await handle.result()
        return result, handle.response.content if handle.response is not None else None
    finally:
        await handle.cancel("the caller gave up")  # also past its timeout: no model attaches to a call again
