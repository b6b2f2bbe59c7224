"""A LangChain toolkit: it finds the tools of the tool servers at a broker, and agents that become tools."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.documents.base import Blob
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import BaseTool, BaseToolkit
from mqtt_agent import TLS, AgentCard, Password, TaskStore, Token, ToolCard
from mqtt_agent.adapting.callers import AwaitingCaller, BlockingCaller, block
from mqtt_agent.adapting.finding import EmptyHands, Found, OnUnavailable, Peers, Selection, describe_peer, tell_missing
from mqtt_agent.adapting.naming import model_name, plain, prefixed_name
from mqtt_agent.adapting.providers import Provider
from mqtt_agent.adapting.requesters import Requester, RequesterSettings
from mqtt_agent.adapting.toolkits import Toolkit, timeout_for
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.sync import ToolClient
from mqtt_agent.transport import Bound, BrokerSettings, MessageAudit, MessageIdentity
from mqtt_agent.wire import DEFAULT_NAMESPACE
from pydantic import ConfigDict, Field, PrivateAttr

from langchain_mqtt_agent.faults import HandleToolError
from langchain_mqtt_agent.interceptors import ToolCallInterceptor
from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.remote.agent import OnTimeout
from langchain_mqtt_agent.resources import load_prompt, load_resources
from langchain_mqtt_agent.tool import OnToolQuestion, make_tool

__all__ = ["MQTTToolkit"]


class MQTTToolkit(Toolkit[BaseTool], BaseToolkit):
    """The tools that servers offer on a broker, for any LangChain agent.

    All tools of the toolkit share one connection, which lives on an event loop of its own. So the tools can be used
    from any thread and from any event loop, sync and async. The connection is made on first use. Use the toolkit as a
    context manager, sync or async, or call :meth:`close` at the end. A connection that is still open when the program
    ends is closed then. A tool whose card has not changed is the same object in each list. A copy made with
    ``copy.deepcopy`` shares the connection. A pickle has the settings, and the credentials in them; the unpickled
    toolkit makes a connection of its own.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = create_agent("openai:gpt-5", toolkit.get_tools())

    Args:
        broker: A URL, or several for failover; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``. See
            :class:`mqtt_agent.Connection`.
        agent_id: The id under which the tools are called; the tool servers see it. None makes a new id. With
            ``peers``, None takes an id that is the same each time this program runs on this machine.
        namespace: The prefix of all topics.
        tools: Names of the wanted tools, or patterns such as ``git_*``; None takes all that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of the servers whose tools are wanted; None takes the tools of all servers.
        tags: A tool is wanted when its card's ``meta["tags"]`` has one of these words; None takes all tools.
        where: A function that gets a :class:`mqtt_agent.ToolCard` and returns whether the tool is wanted.
        prefix: Whether each tool's name for the language model begins with its server's name. The name is made from
            these names alone: a name that no model accepts, such as ``db.clear``, gets a suffix, as in
            ``db_clear_xwy6a3qhn3n7r``.
        peers: Agents that become tools ``ask_<peer>``: their ids, or ``all`` that are online. None takes none of them.
            Tasks are given under ``agent_id``, on the connection on which the tools are called.
        store: Where the tasks that are given to peers are kept; see :class:`mqtt_agent.Agent`.
        pool: Whether several processes give tasks to peers under ``agent_id``; see :class:`MQTTRemoteAgent`.
        on_unavailable: What to do about a wanted tool or peer that is not online: ``skip`` it with a warning, or
            ``raise``.
        timeout: Seconds that a call may take, and that a tool of ``peers`` waits; None for no limit.
        timeouts: Other timeouts, by tool name, peer id or pattern, such as ``{"slow_*": 300, "researcher": None}``.
        idle_timeout: Seconds that may pass without a partial result of a tool, or without an event of a peer. Progress
            extends the time. None for no limit. The ``timeout`` counts too.
        on_timeout: What becomes of a peer's task that takes longer: ``leave`` or ``cancel``; see
            :class:`MQTTRemoteAgent`. A call of a tool is always canceled.
        handle_tool_error: What the language model is told when a call fails: True for the error's message, a text, or
            a function that gets the ``ToolException`` and returns a text. False raises the ``ToolException``, which
            ends the run. The exception has the ``artifact`` of the tool message, and the error as its ``__cause__``.
        schema_for: The provider of the language model: ``openai``, ``gemini`` or ``anthropic``. Input schemas that this
            provider would refuse are rewritten. None keeps them, and logs a warning for a schema that a provider may
            refuse.
        context: The keys of the run's configuration that tools and peers may know; see ``context`` of
            :class:`MQTTRemoteAgent`. By default, nothing is sent.
        interceptors: Async functions ``interceptor(request, handler)`` that see each call of a tool, also of a tool of
            ``peers``. See :class:`MQTTToolCallRequest`. ``await handler(request)`` makes the call, and raises a
            ``ToolException`` for a call without a result. The first interceptor is the outermost.
        on_question: Answers what a tool asks in the middle of a call, outside a graph: gets the question and the JSON
            Schema of the answer, or None instead of a schema, and returns the answer, or None to decline. It may be
            async. In a LangGraph node, the question becomes an ``interrupt`` instead.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`mqtt_agent.transport.BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        client_id: The MQTT client id, for a broker that binds client ids to logins. None makes a new id; with
            ``peers``, None means the client id of the agent ``agent_id``. Each process needs a client id of its own.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, or the process uses ``agent_id`` with other credentials or store.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    broker: str | Sequence[str] | None = Field(default=None, repr=False)  # the URL may hold a password
    agent_id: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    tools: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    servers: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    where: Callable[[ToolCard], bool] | None = None
    prefix: bool = False
    peers: Peers | None = None
    store: Any = None
    pool: bool = False
    on_unavailable: OnUnavailable = "skip"
    timeout: float | None = CALL_TIMEOUT
    timeouts: Mapping[str, float | None] = Field(default_factory=dict)
    idle_timeout: float | None = None
    on_timeout: OnTimeout = "leave"
    handle_tool_error: HandleToolError = True
    schema_for: Provider | None = None
    context: Sequence[str] = ()
    interceptors: Sequence[ToolCallInterceptor] = ()
    on_question: OnToolQuestion | None = None
    credentials: Password | Token | None = None
    tls: ssl.SSLContext | TLS | None = None
    bound: Bound = "prefer"
    identity: MessageIdentity | None = None
    client_id: str | None = None
    audit: MessageAudit | None = None
    _remote: Any = PrivateAttr()
    _named: bool = PrivateAttr(default=False)
    _kept: dict[str, tuple[Any, BaseTool]] = PrivateAttr(default_factory=dict)
    _empty_hands: EmptyHands = PrivateAttr(default_factory=EmptyHands)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    if not TYPE_CHECKING:  # type checkers know the fields, and refuse arguments without a name

        def __init__(self, *unnamed: object, **settings: Any) -> None:
            if unnamed:
                raise TypeError(
                    "MQTTToolkit takes its arguments by name, as in MQTTToolkit(broker='mqtt://localhost:1883')"
                )
            super().__init__(**settings)

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings that pydantic cannot check."""
        self._named = self.agent_id is not None
        settings = BrokerSettings(
            self.broker, self.namespace, self.credentials, self.tls, self.bound, self.identity, self.audit
        )
        if self.peers is None:
            self._remote = ToolClient(self.agent_id, client_id=self.client_id, **settings.as_arguments())
        else:
            options: dict[str, Any] = {"pool": True} if self.pool else {}
            if self.client_id is not None:
                options["client_id"] = self.client_id
            self._remote = Requester(
                RequesterSettings(settings, self.agent_id, self.store, lasting=True, options=options)
            )
        self.agent_id = self._remote.agent_id

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> MQTTToolkit:
        """A copy that shares the connection."""
        return self.model_copy()

    def __getstate__(self) -> dict[Any, Any]:
        if isinstance(self.store, TaskStore):
            raise TypeError("a store object belongs to this process and cannot be pickled: give a path as store=")
        settings = {**self.__dict__, "agent_id": self.agent_id if self._named else None}
        return {**super().__getstate__(), "__dict__": settings, "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__init__(**self.__dict__)

    def get_online_tools(self) -> list[BaseTool]:
        """Find the tools that can be called now. Tools and peers that are not online cause no warning and no error."""
        return self._take(self._find())

    async def aget_online_tools(self) -> list[BaseTool]:
        """Find the tools that can be called now; the async form of :meth:`get_online_tools`."""
        return await self._apart(self._take, await self._afind())

    def get_resources(self, server: str, uris: Sequence[str] | str | None = None) -> list[Blob]:
        """Read resources of a server, such as a bridge to an MCP server.

        Args:
            server: The server's name.
            uris: The URIs of the resources; None means all that the server lists.

        Returns:
            One blob for each content. Its metadata has the ``uri``.

        Raises:
            ToolUnavailable, CallError: See :meth:`mqtt_agent.ToolClient.list_resources`.
        """
        return block(BlockingCaller(self._remote).on_loop(load_resources, server, uris))

    async def aget_resources(self, server: str, uris: Sequence[str] | str | None = None) -> list[Blob]:
        """Read resources of a server; the async form of :meth:`get_resources`."""
        return await AwaitingCaller(self._remote).on_loop(load_resources, server, uris)

    def get_prompt(
        self, server: str, name: str, arguments: Mapping[str, str] | None = None
    ) -> list[HumanMessage | AIMessage]:
        """Get a prompt of a server, such as a bridge to an MCP server.

        Args:
            server: The server's name.
            name: The prompt's name.
            arguments: The prompt's arguments.

        Returns:
            The messages of the prompt.

        Raises:
            ToolUnavailable, CallError: See :meth:`mqtt_agent.ToolClient.get_prompt`.
            ValueError: A message of the prompt has content other than text.
        """
        return block(BlockingCaller(self._remote).on_loop(load_prompt, server, name, arguments))

    async def aget_prompt(
        self, server: str, name: str, arguments: Mapping[str, str] | None = None
    ) -> list[HumanMessage | AIMessage]:
        """Get a prompt of a server; the async form of :meth:`get_prompt`."""
        return await AwaitingCaller(self._remote).on_loop(load_prompt, server, name, arguments)

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. A later use of a tool connects again.

        With ``peers``, the connection is shared with each :class:`MQTTRemoteAgent` of this process that has the same
        ``agent_id``. As long as one of them is open, the connection and the calls stay.
        """
        super().close()
        self._kept = {}

    def _wanted(self) -> tuple[Selection, Peers | None]:
        return Selection(self.tools, self.exclude, self.servers, self.tags, self.where), self.peers

    def _make_tools(self, found: Found) -> list[BaseTool]:
        tell_missing(self.namespace, self.on_unavailable, found)
        return self._take(found)

    def _take(self, found: Found) -> list[BaseTool]:
        self._empty_hands.tell(found, self.connection.url, self.namespace)
        self.agent_id = self._remote.agent_id  # a generated id changes after a fork
        named: list[tuple[str, ToolCard | AgentCard]] = [(self._name(card), card) for card in found.tools]
        named += [(model_name(f"ask_{card.name}"), card) for card in found.peers]
        with self._lock:
            kept = {name: self._keep_or_make(name, card) for name, card in named}
            self._kept = kept
        return [tool for _, tool in kept.values()]

    def _keep_or_make(self, name: str, card: ToolCard | AgentCard) -> tuple[Any, BaseTool]:
        known = self._kept.get(name)
        if known is not None and (known[0] is card or _essence(known[0]) == _essence(card)):
            return card, known[1]
        return card, self._make(name, card)

    def _name(self, card: ToolCard) -> str:
        form = plain if self.peers is None else _not_as_a_peer
        return prefixed_name(card.server, card.tool, form) if self.prefix else model_name(card.tool, form)

    def _make(self, name: str, card: ToolCard | AgentCard) -> BaseTool:
        if isinstance(card, ToolCard):
            timeout = timeout_for(card.tool, self.timeouts, self.timeout)
            limits = {"timeout": timeout, "idle_timeout": self.idle_timeout}
            options = (self.handle_tool_error, self.schema_for, self.context, self.interceptors, self.on_question)
            return make_tool(self._remote, card, name, limits, *options)
        remote = MQTTRemoteAgent(
            card.name,
            agent=self._remote.agent,
            timeout=timeout_for(card.name, self.timeouts, self.timeout),
            idle_timeout=self.idle_timeout,
            on_timeout=self.on_timeout,
            context=self.context,
        )
        # The tool keeps the requester and not its present agent, because the agent changes after a fork.
        remote._requester = self._remote  # pyright: ignore[reportPrivateUsage]
        options: Any = {"handle_tool_error": self.handle_tool_error, "interceptors": self.interceptors}
        return remote.as_tool(name=name, description=describe_peer(card), **options)


def _essence(card: ToolCard | AgentCard) -> ToolCard | AgentCard:
    """A card without the part that changes at each publish."""
    return card.model_copy(update={"last_seen": ""})


def _not_as_a_peer(name: str) -> str:
    """Change a tool's name that begins like the name of a peer's tool."""
    return plain(f"tool_{name}" if name.startswith("ask_") else name)
