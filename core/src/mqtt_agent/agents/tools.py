"""The tools of an agent: its tool client, the tool servers on its connection, and the agent's methods for both."""

from __future__ import annotations

from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.lifecycle import Lifecycle
from mqtt_agent.tools import ToolClient, ToolServer
from mqtt_agent.wire import Topics

__all__ = ["AgentTools", "ToolUser"]


class AgentTools:
    """A tool client and any number of tool servers, which share the agent's connection.

    Args:
        scope: The agent's shared values.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._client: ToolClient | None = None
        self._servers: list[ToolServer] = []

    def client(self, *, starts_on_use: bool) -> ToolClient:
        """The tool client, which is made by the first call.

        Args:
            starts_on_use: Whether the client starts at its first use. False while the agent is not started.
        """
        if self._client is None:
            scope = self._scope
            self._client = ToolClient(
                scope.agent_id, connection=scope.connection, namespace=scope.topics.namespace, bound=scope.bound
            )
        self._client.starts_on_use = starts_on_use
        return self._client

    def add(self, server: ToolServer) -> None:
        """Add a tool server that has not started; see :meth:`Agent.serve_tools`."""
        namespace = self._scope.topics.namespace
        if Topics(server.namespace).namespace != namespace:
            raise ValueError(f"server {server.name!r} is for namespace {server.namespace!r}, not {namespace!r}")
        server.move_to(self._scope.connection, self._scope.agent_id, self._scope.bound)
        self._servers.append(server)

    def allow_use(self) -> None:
        """Let the tool client start at its next use, because the agent is started now."""
        if self._client is not None:
            self._client.starts_on_use = True

    async def start(self) -> None:
        """Start the tool servers."""
        for server in list(self._servers):
            await server.start()

    async def stop(self) -> None:
        """Stop the tool client and the tool servers."""
        if self._client is not None:
            self._client.starts_on_use = False
            await self._client.stop()
        for server in list(self._servers):
            await server.stop()


class ToolUser:
    """The methods with which an agent calls tools and serves tools.

    Attributes:
        agent_id: The agent's id.
    """

    agent_id: str
    _is_pool: bool
    _lifecycle: Lifecycle
    _tools: AgentTools

    @property
    def tool_client(self) -> ToolClient:
        """A tool client with this agent's connection and id.

        The client starts at its first use while the agent runs, and stops with the agent.

        Example:
            >>> await agent.tool_client.call("forecast", {"city": "Oslo"})  # doctest: +SKIP
        """
        return self._tools.client(starts_on_use=self._lifecycle.started)

    async def serve_tools(self, server: ToolServer) -> None:
        """Serve tools over this agent's connection, from now or from the agent's start, until the agent stops.

        The server's card names the agent: when the agent goes offline, the server's tools go offline too. While the
        agent is not connected, the broker keeps the agent's session for ``session_expiry`` seconds, and still puts a
        share of the calls into the session. So a server that has replicas elsewhere should have its own connection.

        Args:
            server: A server that has not started. Its own broker and credentials are not used.

        Raises:
            ValueError: The server is for another namespace.
            RuntimeError: The server has started already.
            TransportError: See :meth:`ToolServer.start`.
        """
        self.add_server(server)
        async with self._lifecycle.turn():
            if self._lifecycle.started:
                await server.start()

    def add_server(self, server: ToolServer) -> None:
        """Serve tools from the agent's next start.

        This is :meth:`serve_tools` without ``await``, for an agent that is not started.

        Args:
            server: A server that has not started. Its own broker and credentials are not used.

        Raises:
            ValueError: The server is for another namespace, or the agent is a pool: then each member is online for as
                long as another one is, and the server needs a Last Will of its own.
            RuntimeError: The server has started already.
        """
        if self._is_pool:
            raise ValueError(f"agent {self.agent_id!r} is a pool: give server {server.name!r} a connection of its own")
        self._tools.add(server)
