"""Sender-bound topics: the topics whose name says who writes, so that a broker can check who speaks."""

from __future__ import annotations

import functools

from mqtt_agent.wire.identifiers import is_identifier, validate_identifier

__all__ = ["BOUND", "BoundTopics"]

BOUND: str = "bound"
"""The entry in a card's ``features`` that says: this endpoint speaks sender-bound topics (ours)."""


class BoundTopics:
    """Builds and reads the sender-bound topics below one namespace (ours).

    A sender-bound topic has the name of its writer as a level of its own. A broker can therefore allow each login to
    write topics with its own name, and to read topics below its own name. A method that is given no writer returns the
    topic filter of the reader, with ``+`` in the place of the writer.

    Example:
        >>> BoundTopics("a2a/v1").call("forecast", "agent-a")
        'a2a/v1/mcp/tools/forecast/call/agent-a'
        >>> BoundTopics("a2a/v1").responses("agent-a")
        'a2a/v1/mcp/clients/agent-a/responses/+'

    Args:
        namespace: The prefix of all topics, without leading and trailing ``/``.

    Raises:
        InvalidIdentifier: A name given to a method cannot be used in a topic.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._tools = f"{namespace}/mcp/tools/"
        self._servers = f"{namespace}/mcp/servers/"
        self._clients = f"{namespace}/mcp/clients/"
        self._tasks = f"{namespace}/tasks/"

    # Calls

    def call(self, tool: str, client: str) -> str:
        """The topic to which one client publishes its calls of a tool."""
        return _topic(self._tools, tool, "tool name", "call", client, "client name")

    def calls_shared(self, tool: str) -> str:
        """The shared topic filter by which replicas subscribe to the calls of all clients.

        The group has another name than the group for the plain topic, because some brokers know a group by its name
        alone.
        """
        return f"$share/mcp-bound-{tool}/{self._tools}{validate_identifier(tool, 'tool name')}/call/+"

    def cancel(self, tool: str, client: str | None = None) -> str:
        """The topic to which one client publishes the cancellations of its calls."""
        return f"{self._tools}{validate_identifier(tool, 'tool name')}/cancel/{_writer(client, 'client name')}"

    def query(self, server: str, client: str | None = None) -> str:
        """The topic on which one client asks one replica which of its calls the replica knows."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/query/{_writer(client, 'client name')}"

    def input(self, server: str, client: str | None = None) -> str:
        """The topic on which one client answers the requests for input of one replica."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/input/{_writer(client, 'client name')}"

    def request(self, server: str, client: str | None = None) -> str:
        """The topic on which one client asks one replica for resources, prompts and completions."""
        return f"{self._servers}{validate_identifier(server, 'server name')}/request/{_writer(client, 'client name')}"

    def responses(self, client: str, server: str | None = None) -> str:
        """The topic of the responses of one replica to one client."""
        return _topic(self._clients, client, "client name", "responses", server, "server name")

    def stream(self, client: str, call_id: str, server: str | None = None) -> str:
        """The topic of the partial results of one call."""
        names = f"{validate_identifier(client, 'client name')}/stream/{_writer(server, 'server name')}"
        return f"{self._clients}{names}/{validate_identifier(call_id, 'call id')}"

    # Tasks

    def inbox(self, agent: str, sender: str | None = None) -> str:
        """The topic to which one requester publishes tasks for an agent."""
        return _topic(self._tasks, agent, "agent id", "inbox", sender, "agent id")

    def control(self, agent: str, sender: str | None = None) -> str:
        """The topic of one requester's control messages to an agent."""
        return _topic(self._tasks, agent, "agent id", "control", sender, "agent id")

    def results(self, requester: str, executor: str | None = None) -> str:
        """The topic of the results that one executor sends to a requester."""
        return _topic(self._tasks, requester, "agent id", "results", executor, "agent id")

    def events(self, requester: str, task_id: str, executor: str | None = None) -> str:
        """The topic of the events of one task."""
        below = _topic(self._tasks, requester, "agent id", "events", executor, "agent id")
        return f"{below}/{validate_identifier(task_id, 'task id')}"

    def all_events(self, requester: str) -> str:
        """The topic filter of the events of all tasks that a requester has given."""
        return f"{self._tasks}{validate_identifier(requester, 'agent id')}/events/+/+"

    # Reading

    def writer(self, topic: str) -> str | None:
        """The name of the endpoint that a topic belongs to as its writer; None when the topic is not sender-bound.

        Example:
            >>> BoundTopics("a2a/v1").writer("a2a/v1/tasks/agent-b/inbox/agent-a")
            'agent-a'
            >>> BoundTopics("a2a/v1").writer("a2a/v1/tasks/agent-b/inbox") is None
            True
        """
        return _writer_of(self._namespace, topic)


_KINDS: tuple[tuple[str, dict[str, int]], ...] = (
    ("/mcp/tools/", {"call": 3, "cancel": 3}),
    ("/mcp/servers/", {"query": 3, "input": 3, "request": 3}),
    ("/mcp/clients/", {"responses": 3, "stream": 4}),
    ("/tasks/", {"inbox": 3, "control": 3, "results": 3, "events": 4}),
)
"""By what follows the namespace: how many levels come then in the topics of each kind that name their writer."""


@functools.lru_cache(1024)  # many messages arrive on the same topics
def _writer_of(namespace: str, topic: str) -> str | None:
    for room, kinds in _KINDS:
        prefix = namespace + room
        if topic.startswith(prefix):
            levels = topic[len(prefix) :].split("/")
            if len(levels) >= 3 and kinds.get(levels[1]) == len(levels) and is_identifier(levels[2]):
                return levels[2]
    return None


@functools.lru_cache(1024)  # calls and tasks build the same topics again and again
def _topic(prefix: str, name: str, what: str, kind: str, writer: str | None, who: str) -> str:
    return f"{prefix}{validate_identifier(name, what)}/{kind}/{_writer(writer, who)}"


def _writer(name: str | None, what: str) -> str:
    return "+" if name is None else validate_identifier(name, what)
