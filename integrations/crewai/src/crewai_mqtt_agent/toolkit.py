"""The tools that servers offer on a broker, as CrewAI tools."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence

from crewai.tools import BaseTool
from crewai.utilities.string_utils import sanitize_tool_name
from mqtt_agent import TLS, Password, Token, ToolCard
from mqtt_agent.adapting.finding import EmptyHands, Found, OnUnavailable, Selection, tell_missing
from mqtt_agent.adapting.naming import model_name
from mqtt_agent.adapting.toolkits import Toolkit
from mqtt_agent.deprecation import warn_renamed
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.sync import ToolClient
from mqtt_agent.transport import Bound, MessageAudit, MessageIdentity
from pydantic import BaseModel

from crewai_mqtt_agent.tool import MQTTTool, OnQuestion, make_tool

__all__ = ["MQTTToolkit"]


class MQTTToolkit(Toolkit[BaseTool]):
    """The tools that servers offer on a broker, for any CrewAI agent, task or crew.

    All tools of a toolkit share one connection, which lives on an event loop of its own: CrewAI calls tools from
    several threads. The toolkit connects on first use. Use the toolkit as a context manager, sync or
    async, or call :meth:`close` at the end. A toolkit that is still open when the program ends is closed then.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = Agent(role="forecaster", goal="...", backstory="...", tools=toolkit.get_tools())

    Args:
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        agent_id: The id under which the tools are called; the tool servers see it. None makes a new id.
        namespace: The prefix of all topics.
        tools: Names of the wanted tools, or patterns such as ``git_*``; None takes all that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of the servers whose tools are wanted; None takes the tools of all servers.
        tags: A tool is wanted when its card's ``meta["tags"]`` has one of these words; None takes all tools.
        where: A function that gets a :class:`mqtt_agent.ToolCard` and returns whether the tool is wanted.
        on_unavailable: What to do about a wanted tool that nobody serves: ``skip`` it with a warning, or ``raise``.
        timeout: Seconds that a call may take; None for no limit.
        result_schemas: The pydantic models of tools' results, by tool name. CrewAI checks a result with its model, and
            gives the result to the language model as JSON. Without a pydantic model, a result is text.
        on_question: Answers what a tool asks in the middle of a call. It is called in a thread with the question and
            the JSON Schema of the answer, or None instead of a schema, and returns the answer, or None to decline. It
            may be async. Without ``on_question``, a tool that asks gets an error.
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

    def __init__(
        self,
        broker: str | Sequence[str] | None = None,
        *,
        agent_id: str | None = None,
        namespace: str = "a2a/v1",
        tools: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        servers: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        where: Callable[[ToolCard], bool] | None = None,
        on_unavailable: OnUnavailable = "skip",
        timeout: float | None = CALL_TIMEOUT,
        result_schemas: Mapping[str, type[BaseModel]] | None = None,
        on_question: OnQuestion | None = None,
        credentials: Password | Token | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        client_id: str | None = None,
        audit: MessageAudit | None = None,
    ) -> None:
        self._selection = Selection(tools, exclude, servers, tags, where)
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
        self._remote = self._client
        self._namespace = namespace
        self._on_unavailable: OnUnavailable = on_unavailable
        self._timeout = timeout
        self._empty_hands = EmptyHands()
        self._result_schemas = dict(result_schemas or {})
        self._on_question = on_question

    def __repr__(self) -> str:
        return repr(self._client).replace("ToolClient", "MQTTToolkit", 1)

    @property
    def agent_id(self) -> str:
        """The id under which the tools are called."""
        return self._client.agent_id

    def tools(self) -> list[BaseTool]:
        """The old name of :meth:`get_tools`."""
        warn_renamed("MQTTToolkit.tools()", "MQTTToolkit.get_tools()")
        return self.get_tools()

    async def atools(self) -> list[BaseTool]:
        """The old name of :meth:`aget_tools`."""
        warn_renamed("MQTTToolkit.atools()", "MQTTToolkit.aget_tools()")
        return await self.aget_tools()

    def _wanted(self) -> tuple[Selection, None]:
        return self._selection, None

    def _make_tools(self, found: Found) -> list[BaseTool]:
        tell_missing(self._namespace, self._on_unavailable, found)
        self._empty_hands.tell(found, self.connection.url, self._namespace)
        return [self._make_tool(card) for card in found.tools]

    def _make_tool(self, card: ToolCard) -> MQTTTool:
        name = model_name(card.tool, sanitize_tool_name)
        schema = self._result_schemas.get(card.tool)
        return make_tool(self._client, card, name, self._timeout, schema, self._on_question)
