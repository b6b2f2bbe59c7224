"""The tools that servers offer on a broker, as a LangChain toolkit."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

from langchain_core.tools import BaseTool, BaseToolkit
from mqtt_agent import TLS, AgentCard, Connection, Password, Token, ToolCard
from mqtt_agent.adapting.naming import legal_name
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.sync import Agent
from mqtt_agent.sync import ToolClient as SyncToolClient
from pydantic import ConfigDict, Field, PrivateAttr
from typing_extensions import Self

from langchain_mqtt_agent.remote import MQTTRemoteAgent
from langchain_mqtt_agent.remote.requester import AgentToolClient, Requester
from langchain_mqtt_agent.selection import Found, Selection, describe_peer, find_peers, find_tools, name_all
from langchain_mqtt_agent.tool import HandleToolError, make_tool

__all__ = ["MQTTToolkit"]

logger: logging.Logger = logging.getLogger(__name__)


class MQTTToolkit(BaseToolkit):
    """The tools that servers offer on a broker, for any LangChain agent.

    All its tools share one connection, which lives on an event loop of its own: they can be used from any thread and
    from any event loop, sync and async. It connects on first use. Use it as a context manager, sync or async, or call
    :meth:`close` at the end; what is still open when the program ends is closed then.

    Example:
        >>> with MQTTToolkit(broker="mqtt://localhost:1883", agent_id="agent-a") as toolkit:  # doctest: +SKIP
        ...     agent = create_agent("openai:gpt-5", toolkit.get_tools())

    Args:
        broker: A URL; None means ``$MQTT_AGENT_BROKER``, then ``mqtt://localhost:1883``.
        agent_id: The caller's name, told to the tools; None makes a fresh one.
        namespace: The prefix of all topics.
        tools: Names of the tools wanted, or patterns such as ``git_*``; None takes all that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of the servers whose tools are wanted; None takes those of all.
        tags: Words of which the ``meta["tags"]`` of a tool's card must have one; None asks for none.
        where: A function from a :class:`mqtt_agent.ToolCard` to whether the tool is wanted.
        prefix: Whether all tools have their server's name in front; else only those whose names would be the same.
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
        ValueError: ``broker`` is no broker URL.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    broker: str | None = Field(default=None, repr=False)  # it may hold a password
    agent_id: str | None = None
    namespace: str = "a2a/v1"
    tools: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    servers: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    where: Callable[[ToolCard], bool] | None = None
    prefix: bool = False
    peers: Literal["all"] | Sequence[str] | None = None
    store: Any = None
    on_unavailable: Literal["skip", "raise"] = "skip"
    timeout: float | None = 60.0
    handle_tool_error: HandleToolError = True
    credentials: Password | Token | None = None
    tls: ssl.SSLContext | TLS | None = None
    _client: SyncToolClient = PrivateAttr()
    _agent_id: str | None = PrivateAttr(default=None)
    _requester: Requester | None = PrivateAttr(default=None)
    _kept: dict[str, tuple[Any, BaseTool]] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings that only the client can check."""
        self._client = SyncToolClient(
            self.agent_id, broker=self.broker, namespace=self.namespace, credentials=self.credentials, tls=self.tls
        )
        self._agent_id, self.agent_id = self.agent_id, self._client.agent_id

    @property
    def connection(self) -> Connection:
        """The connection that all its tools share."""
        return self._client.connection if self.peers is None else self._agent().connection

    def get_tools(self) -> list[BaseTool]:
        """The tools that can be called now. Each call looks anew; an unchanged tool is the same object.

        Raises:
            BrokerUnreachable, ConnectionRefused: There is no broker at the URL, or it refuses.
            ToolUnavailable: A wanted tool or peer is not there, and ``on_unavailable`` is ``raise``.
        """
        return self._get(self.on_unavailable)

    async def aget_tools(self) -> list[BaseTool]:
        """The same as :meth:`get_tools`, awaited."""
        return await self._aget(self.on_unavailable)

    def get_online_tools(self) -> list[BaseTool]:
        """The same as :meth:`get_tools`, without a word about what is missing."""
        return self._get("ignore")

    async def aget_online_tools(self) -> list[BaseTool]:
        """The same as :meth:`get_online_tools`, awaited."""
        return await self._aget("ignore")

    def _get(self, on_unavailable: str) -> list[BaseTool]:
        found = self._tool_client.run_on_loop(find_tools, self._selection)
        peers = ([], []) if self.peers is None else self._agent().run_on_loop(find_peers, self.peers)
        self._complain(on_unavailable, found.missing, peers[1])
        return self._make_tools(found, peers[0])

    async def _aget(self, on_unavailable: str) -> list[BaseTool]:
        found = await self._tool_client.await_on_loop(find_tools, self._selection)
        peers = ([], []) if self.peers is None else await self._agent().await_on_loop(find_peers, self.peers)
        self._complain(on_unavailable, found.missing, peers[1])
        return self._make_tools(found, peers[0])

    def close(self) -> None:
        """Cancel the calls that are under way, and disconnect. Using a tool connects again.

        With ``peers``, while a :class:`MQTTRemoteAgent` of the same ``agent_id`` is open in this process, the
        connection is that agent's too: then it stays, and so do the calls, until that agent is closed.
        """
        self._client.stop()
        if self._requester is not None:
            self._requester.close()
            self._requester = None
            self._kept = {}

    async def aclose(self) -> None:
        """The same as :meth:`close`, awaited."""
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
    def _selection(self) -> Selection:
        return Selection(self.tools, self.exclude, self.servers, self.tags, self.where)

    @property
    def _tool_client(self) -> Any:
        return self._client if self.peers is None else AgentToolClient(self._agent())

    def _agent(self) -> Agent:
        if self._requester is None:
            self._requester = Requester(
                self._agent_id,
                broker=self.broker,
                namespace=self.namespace,
                store=self.store,
                credentials=self.credentials,
                tls=self.tls,
            )
        return self._requester.agent

    def _complain(self, on_unavailable: str, tools: list[str], peers: list[str]) -> None:
        missing = [(name, "server offers this tool") for name in tools]
        missing += [(name, "agent of this name is online") for name in peers]
        for name, what in missing if on_unavailable != "ignore" else ():
            message = f"{name}: no {what} now in namespace {self.namespace!r}"
            if on_unavailable == "raise":
                raise ToolUnavailable(message, tool=name)
            logger.warning("%s; it is left out", message)

    def _make_tools(self, found: Found, peers: list[AgentCard]) -> list[BaseTool]:
        taken: set[str] = set()
        made: list[BaseTool] = []
        kept: dict[str, tuple[Any, BaseTool]] = {}
        for name, card in name_all(found.tools, taken, prefix=self.prefix):
            made.append(self._keep(kept, name, _essence(card), partial(self._make_tool, card, name)))
        for card in peers:
            name = legal_name(f"ask_{card.name}", taken)
            made.append(self._keep(kept, name, _essence(card), partial(self._make_peer_tool, card, name)))
        self._kept = kept
        return made

    def _keep(
        self, kept: dict[str, tuple[Any, BaseTool]], name: str, essence: Any, make: Callable[[], BaseTool]
    ) -> BaseTool:
        known = self._kept.get(name)
        kept[name] = known if known is not None and known[0] == essence else (essence, make())
        return kept[name][1]

    def _make_tool(self, card: ToolCard, name: str) -> BaseTool:
        return make_tool(self._tool_client, card, name, self.timeout, self.handle_tool_error)

    def _make_peer_tool(self, card: AgentCard, name: str) -> BaseTool:
        remote = MQTTRemoteAgent(card.name, agent=self._agent(), timeout=self.timeout)
        return remote.as_tool(name=name, description=describe_peer(card), handle_tool_error=self.handle_tool_error)


def _essence(card: ToolCard | AgentCard) -> Any:
    return card.model_copy(update={"last_seen": ""})
