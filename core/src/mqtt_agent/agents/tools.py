"""The tools of an agent: its tool client, and the tool servers on its connection."""

from __future__ import annotations

from mqtt_agent.agents.scope import Scope
from mqtt_agent.tools import ToolClient, ToolServer
from mqtt_agent.wire import Topics

__all__ = ["AgentTools"]


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
