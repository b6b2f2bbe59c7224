"""A LangChain toolkit: finds the tools that servers offer on a broker, and the agents there that become tools."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from langchain_core.tools import BaseTool, BaseToolkit
from mqtt_agent import TLS, Agent, AgentCard, Connection, Password, Token, ToolCard, ToolClient
from mqtt_agent.adapting.callers import Remote
from mqtt_agent.adapting.finding import (
    Found,
    OnUnavailable,
    Selection,
    describe_peer,
    find_peers,
    find_tools,
    tell_missing,
)
from mqtt_agent.adapting.naming import legal_name, name_tools
from mqtt_agent.adapting.requesters import Requester, RequesterSettings, RequesterToolClient
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.sync import ToolClient as SyncToolClient
from mqtt_agent.transport import BrokerSettings
from mqtt_agent.wire import DEFAULT_NAMESPACE
from pydantic import ConfigDict, Field, PrivateAttr
from typing_extensions import Self

from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.tool import HandleToolError, make_tool

__all__ = ["MQTTToolkit"]

Peers = Literal["all"] | Sequence[str]


class MQTTToolkit(BaseToolkit):
    """The tools that servers offer on a broker, for any LangChain agent.

    All tools of the toolkit share one connection, which lives on an event loop of its own. So the tools can be used
    from any thread and from any event loop, sync and async. The connection is made on first use. Use the toolkit as a
    context manager, sync or async, or call :meth:`close` at the end. A connection that is still open when the program
    ends is closed then.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = create_agent("openai:gpt-5", toolkit.get_tools())

    Args:
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The caller's name, told to the tools. None makes a new name, or with ``peers`` takes a name that this
            program always has on this machine.
        namespace: The prefix of all topics.
        tools: Names of the tools wanted, or patterns such as ``git_*``; None takes all that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of the servers whose tools are wanted; None takes the tools of all servers.
        tags: A tool is wanted when its card's ``meta["tags"]`` has one of these words; None takes all tools.
        where: A function from a :class:`mqtt_agent.ToolCard` to whether the tool is wanted.
        prefix: Whether the names of all tools begin with their server's name. Otherwise only a tool whose name is also
            the name of another server's tool gets such a name.
        peers: Agents that become tools ``ask_<peer>``: their ids, or ``all`` that are online. None takes none. The
            tasks are given in the name of ``agent_id``, on the connection on which the tools are called.
        store: Where the tasks that are given to peers are kept; see :class:`mqtt_agent.Agent`.
        on_unavailable: What to do about a wanted tool or peer that is not there: ``skip`` it with a warning, or
            ``raise``.
        timeout: Seconds that a call may take; None for no limit.
        handle_tool_error: What the language model is told when a call fails: True for the error's message, a text, or
            a function from the ``ToolException`` to a text. False raises the ``ToolException``, which ends the run.
        credentials: A :class:`mqtt_agent.Password` or a :class:`mqtt_agent.Token`.
        tls: An ``ssl.SSLContext`` or a :class:`mqtt_agent.TLS`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, or this process uses ``agent_id`` with another login or store.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    broker: str | None = Field(default=None, repr=False)  # the URL may hold a password
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
    on_unavailable: OnUnavailable = "skip"
    timeout: float | None = CALL_TIMEOUT
    handle_tool_error: HandleToolError = True
    credentials: Password | Token | None = None
    tls: ssl.SSLContext | TLS | None = None
    _requester: Requester | None = PrivateAttr(default=None)
    _client: Any = PrivateAttr()
    _kept: dict[str, tuple[Any, BaseTool]] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Make the client, which checks the settings that pydantic cannot check."""
        settings = BrokerSettings(self.broker, self.namespace, self.credentials, self.tls)
        if self.peers is None:
            self._client = SyncToolClient(self.agent_id, **settings.as_arguments())
            self.agent_id = self._client.agent_id
        else:
            self._requester = Requester(RequesterSettings(settings, self.agent_id, self.store, lasting=True))
            self._client = RequesterToolClient(self._requester)
            self.agent_id = self._requester.agent_id

    @property
    def connection(self) -> Connection:
        """The connection that all tools share."""
        return self._client.connection if self._requester is None else self._requester.agent.connection

    def get_tools(self) -> list[BaseTool]:
        """The tools that can be called now. Each call looks anew; an unchanged tool is the same object.

        Raises:
            BrokerUnreachable, ConnectionRefused: There is no broker at the URL, or it refuses.
            ToolUnavailable: A wanted tool or peer is not there, and ``on_unavailable`` is ``raise``.
        """
        return self._take(self.on_unavailable, *self._remote.run_on_loop(*self._search))

    async def aget_tools(self) -> list[BaseTool]:
        """The tools that can be called now, awaited; see :meth:`get_tools`."""
        return self._take(self.on_unavailable, *await self._remote.await_on_loop(*self._search))

    def get_online_tools(self) -> list[BaseTool]:
        """The tools that can be called now; nothing is said about tools and peers that are not there."""
        return self._take(None, *self._remote.run_on_loop(*self._search))

    async def aget_online_tools(self) -> list[BaseTool]:
        """The tools that can be called now, awaited; see :meth:`get_online_tools`."""
        return self._take(None, *await self._remote.await_on_loop(*self._search))

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. Using a tool connects again.

        With ``peers``, the connection is also that of each :class:`MQTTRemoteAgent` with the same ``agent_id`` in this
        process. As long as one of them is open, the connection stays, and so do the calls.
        """
        if self._requester is None:
            self._client.stop()
        else:
            self._requester.close()
            self._kept = {}

    async def aclose(self) -> None:
        """Cancel the calls that are under way, and disconnect; see :meth:`close`."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    @property
    def _remote(self) -> Remote:
        return self._client if self._requester is None else self._requester

    @property
    def _search(self) -> tuple[Any, ...]:
        """The function that finds tools and peers, to be called on the connection's event loop, and its arguments."""
        wanted = Selection(self.tools, self.exclude, self.servers, self.tags, self.where)
        return (_find_tools, wanted) if self.peers is None else (_find_tools_and_peers, wanted, self.peers)

    def _take(
        self, on_unavailable: OnUnavailable | None, found: Found, peers: list[AgentCard], missing_peers: list[str]
    ) -> list[BaseTool]:
        if on_unavailable is not None:
            tell_missing(self.namespace, on_unavailable, found.missing, missing_peers)
        taken: set[str] = set()
        named: list[tuple[str, ToolCard | AgentCard]] = [*name_tools(found.tools, taken, prefix=self.prefix)]
        named += [(legal_name(f"ask_{card.name}", taken), card) for card in peers]
        kept: dict[str, tuple[Any, BaseTool]] = {}
        for name, card in named:
            essence = card.model_copy(update={"last_seen": ""})
            known = self._kept.get(name)
            unchanged = known is not None and known[0] == essence
            kept[name] = known if known is not None and unchanged else (essence, self._make(name, card))
        self._kept = kept
        return [tool for _, tool in kept.values()]

    def _make(self, name: str, card: ToolCard | AgentCard) -> BaseTool:
        if isinstance(card, ToolCard):
            return make_tool(self._client, card, name, self.timeout, self.handle_tool_error)
        assert self._requester is not None
        remote = MQTTRemoteAgent(card.name, agent=self._requester.agent, timeout=self.timeout)
        return remote.as_tool(name=name, description=describe_peer(card), handle_tool_error=self.handle_tool_error)


async def _find_tools(client: ToolClient, wanted: Selection) -> tuple[Found, list[AgentCard], list[str]]:
    return await find_tools(client, wanted), [], []


async def _find_tools_and_peers(
    agent: Agent, wanted: Selection, peers: Peers
) -> tuple[Found, list[AgentCard], list[str]]:
    return await find_tools(agent.tool_client, wanted), *await find_peers(agent, peers)
