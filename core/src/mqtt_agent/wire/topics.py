"""Topics: builds each topic of a namespace from a name, and reads the name back from a topic."""

from __future__ import annotations

from mqtt_agent.wire.bound_topics import BoundTopics
from mqtt_agent.wire.identifiers import is_identifier, normalize_namespace, validate_identifier

__all__ = ["DEFAULT_NAMESPACE", "Topics"]

DEFAULT_NAMESPACE: str = "a2a/v1"
"""The namespace when none is given (spec)."""


class Topics:
    """Builds and reads the topics below one namespace.

    Every name is validated before it becomes part of a topic.

    Example:
        >>> Topics("a2a/v1").tool_call("forecast")
        'a2a/v1/mcp/tools/forecast/call'

    Args:
        namespace: The prefix of all topics; leading and trailing ``/`` are trimmed (spec).

    Attributes:
        namespace: The trimmed namespace.
        bound: The topics whose names say who writes them (ours).

    Raises:
        InvalidIdentifier: The namespace, or a name given to a method, cannot be used in a topic.
    """

    def __init__(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        self.namespace: str = normalize_namespace(namespace)
        self.bound: BoundTopics = BoundTopics(self.namespace)
        self._tools = f"{self.namespace}/mcp/tools/"
        self._servers = f"{self.namespace}/mcp/servers/"
        self._clients = f"{self.namespace}/mcp/clients/"
        self._agents = f"{self.namespace}/agents/"
        self._tasks = f"{self.namespace}/tasks/"

    def server_card(self, server: str) -> str:
        """The topic of a server's retained card (spec)."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/card"

    def tool_card(self, tool: str) -> str:
        """The topic of a tool's retained card (spec)."""
        return f"{self._tools}{validate_identifier(tool, 'tool name')}/card"

    def tool_call(self, tool: str) -> str:
        """The topic to which callers publish calls (spec)."""
        return f"{self._tools}{validate_identifier(tool, 'tool name')}/call"

    def tool_call_shared(self, tool: str) -> str:
        """The shared topic filter by which replicas subscribe to calls (spec).

        All implementations must use the same group name, because each group gets every call.
        """
        return f"$share/mcp-tool-{tool}/{self.tool_call(tool)}"

    def tool_cancel(self, tool: str) -> str:
        """The topic to which callers publish cancel messages (ours)."""
        return f"{self._tools}{validate_identifier(tool, 'tool name')}/cancel"

    def tool_stream(self, tool: str, call_id: str) -> str:
        """The topic of the partial results of one call (spec)."""
        return f"{self._tools}{validate_identifier(tool, 'tool name')}/stream/{validate_identifier(call_id, 'call id')}"

    def client_responses(self, client: str) -> str:
        """The topic of the responses to one caller: its inbox (spec)."""
        return f"{self._clients}{validate_identifier(client, 'client name')}/responses"

    def server_query(self, server: str) -> str:
        """The topic on which callers ask one replica which of their calls it knows (ours)."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/query"

    def server_input(self, server: str) -> str:
        """The topic on which callers answer the requests for input of one replica (ours)."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/input"

    def server_request(self, server: str) -> str:
        """The topic on which clients ask one replica for resources, prompts and completions (ours)."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/request"

    def server_events(self, server: str, client: str) -> str:
        """The topic on which one replica tells one client of changes of its resources and prompts (ours).

        The topic names its writer and its reader, so it is sender-bound and plain at once.
        """
        name = validate_identifier(server, "server name")
        return f"{self._servers}{name}/events/{validate_identifier(client, 'client name')}"

    def all_server_events(self, client: str) -> str:
        """The topic filter for what all servers tell one client (ours)."""
        return f"{self._servers}+/events/{validate_identifier(client, 'client name')}"

    def server_of_events(self, topic: str, client: str) -> str | None:
        """The server that tells a client something on this topic; None for any other topic."""
        return _level_between(topic, self._servers, f"/events/{client}")

    def client_query(self, client: str) -> str:
        """The topic on which a client asks all servers for their cards (ours)."""
        return f"{self._clients}{validate_identifier(client, 'client name')}/query"

    @property
    def all_client_queries(self) -> str:
        """The topic filter for the questions of all clients (ours)."""
        return f"{self._clients}+/query"

    @property
    def all_server_cards(self) -> str:
        """The topic filter for the cards of all servers (spec)."""
        return f"{self._servers}+/card"

    @property
    def all_tool_cards(self) -> str:
        """The topic filter for the cards of all tools (spec)."""
        return f"{self._tools}+/card"

    def server_of_card(self, topic: str) -> str | None:
        """The server whose card topic this is; None for any other topic."""
        return _level_between(topic, self._servers, "/card")

    def tool_of_card(self, topic: str) -> str | None:
        """The tool whose card topic this is; None for any other topic."""
        return _level_between(topic, self._tools, "/card")

    def client_of_responses(self, topic: str) -> str | None:
        """The caller whose inbox this topic is; None for any other topic."""
        return _level_between(topic, self._clients, "/responses")

    def client_of_query(self, topic: str) -> str | None:
        """The client that asks on this topic; None for any other topic."""
        return _level_between(topic, self._clients, "/query")

    # Agents and tasks

    def agent_card(self, agent: str) -> str:
        """The topic of an agent's retained card (spec)."""
        return f"{self._agents}{validate_identifier(agent, 'agent id')}/card"

    def agent_status(self, agent: str) -> str:
        """The topic of an agent's retained status, and of its Last Will (spec)."""
        return f"{self._agents}{validate_identifier(agent, 'agent id')}/status"

    def inbox(self, agent: str) -> str:
        """The topic to which peers publish tasks for an agent (spec)."""
        return f"{self._tasks}{validate_identifier(agent, 'agent id')}/inbox"

    def overview_inbox(self, agent: str) -> str:
        """Another inbox topic, from the specification's overview (spec). Agents subscribe to both."""
        return f"{self._agents}{validate_identifier(agent, 'agent id')}/inbox"

    def results(self, agent: str) -> str:
        """The topic of the results of the tasks that an agent has delegated (spec)."""
        return f"{self._tasks}{validate_identifier(agent, 'agent id')}/results"

    def control(self, agent: str) -> str:
        """The topic of control messages to an agent, about tasks that it has received (ours)."""
        return f"{self._tasks}{validate_identifier(agent, 'agent id')}/control"

    def task_result(self, task_id: str) -> str:
        """The topic of the result of one synchronous request (spec)."""
        return f"{self._tasks}{validate_identifier(task_id, 'task id')}/result"

    def task_events(self, task_id: str) -> str:
        """The topic of the events of one task (ours)."""
        return f"{self._tasks}{validate_identifier(task_id, 'task id')}/events"

    def agent_query(self, agent: str) -> str:
        """The topic on which an agent asks all agents for their cards (ours)."""
        return f"{self._agents}{validate_identifier(agent, 'agent id')}/query"

    def member_control(self, agent: str, member: str) -> str:
        """The topic of messages to one member of a pool, or to ``all`` members (ours)."""
        names = f"{validate_identifier(agent, 'agent id')}/members/{validate_identifier(member, 'member id')}"
        return f"{self._agents}{names}/control"

    def pool_shared(self, agent: str, topic_filter: str) -> str:
        """The shared topic filter by which the members of a pool subscribe to a topic of their agent (ours).

        Each topic has a share group of its own, because some brokers know a group by its name alone.

        Example:
            >>> Topics("a2a/v1").pool_shared("agent-a", "a2a/v1/tasks/agent-a/inbox/+")
            '$share/agent-bound-inbox-agent-a/a2a/v1/tasks/agent-a/inbox/+'
        """
        room, _, kind, *bound = topic_filter[len(self.namespace) + 1 :].split("/")
        group = "overview" if room == "agents" else f"bound-{kind}" if bound else kind
        return f"$share/agent-{group}-{validate_identifier(agent, 'agent id')}/{topic_filter}"

    @property
    def all_agent_queries(self) -> str:
        """The topic filter for the questions of all agents (ours)."""
        return f"{self._agents}+/query"

    @property
    def all_agent_cards(self) -> str:
        """The topic filter for the cards of all agents (spec)."""
        return f"{self._agents}+/card"

    @property
    def all_agent_statuses(self) -> str:
        """The topic filter for the statuses of all agents (spec)."""
        return f"{self._agents}+/status"

    def agent_of_results(self, topic: str) -> str | None:
        """The agent whose results topic this is; None for any other topic."""
        return _level_between(topic, self._tasks, "/results")

    def agent_of_card(self, topic: str) -> str | None:
        """The agent whose card topic this is; None for any other topic."""
        return _level_between(topic, self._agents, "/card")

    def agent_of_status(self, topic: str) -> str | None:
        """The agent whose status topic this is; None for any other topic."""
        return _level_between(topic, self._agents, "/status")

    def agent_of_query(self, topic: str) -> str | None:
        """The agent that asks on this topic; None for any other topic."""
        return _level_between(topic, self._agents, "/query")

    # Copies

    @staticmethod
    def copy(topic: str, asker: str) -> str:
        """The topic of the copy of a card or status for one asker. ``topic`` may be a topic filter (ours).

        Example:
            >>> Topics.copy("a2a/v1/mcp/servers/weather:a/card", "agent-a")
            'a2a/v1/mcp/servers/weather:a/card/agent-a'
        """
        return f"{topic}/{validate_identifier(asker, 'client name')}"


def _level_between(topic: str, prefix: str, suffix: str) -> str | None:
    if not (topic.startswith(prefix) and topic.endswith(suffix)):
        return None
    level = topic[len(prefix) : -len(suffix)]
    return level if is_identifier(level) else None
