"""Every attempt of the attack suite: who tries what, and on which broker it cannot be prevented."""

from __future__ import annotations

from dataclasses import dataclass

from mqtt_agent.identity import Roster

ROSTER = Roster.parse(
    """
namespace = "ns"
org_id = "acme"

[programs.agent-a]
kind = "agent"
calls = "*"
delegates_to = "*"

[programs.agent-b]
kind = "agent"
calls = "*"
delegates_to = "*"

[programs.writer]
kind = "agent"
calls = "*"
delegates_to = "*"

[programs.desk]
kind = "agent"
calls = "*"
delegates_to = "*"
hosts = "files:desk"
serves = ["read_file"]

[programs.web]
kind = "client"
calls = "*"

[programs.reader]
kind = "client"
calls = "*"
reads = ["evil"]

[programs.weather]
kind = "server"
replicas = ["1", "2"]
serves = ["forecast"]

[programs.evil]
kind = "server"
serves = ["evil-tool"]

[programs.pool-a]
kind = "agent"
pool = true
members = ["1", "2"]
delegates_to = "*"

[programs.pool-b]
kind = "agent"
pool = true
members = ["1"]
delegates_to = "*"

[programs.audit]
kind = "auditor"

[programs.audit-b]
kind = "auditor"
"""
)

ACL_FILE, DYNSEC, EJABBERD = "mosquitto-acl_file", "mosquitto-dynsec", "ejabberd-jwt"
OWN_NAME = "own-name-of-another-kind"
CASE = "case-of-a-name"
SHARE_GROUP = "foreign-share-group"
CLIENT_ID = "taken-client-id"
KEPT_SESSION = "taken-session"
UNSUBSCRIBE = "foreign-unsubscribe"
OLD_TOKEN = "connection-outlives-token"
SILENT_SUBSCRIPTION = "subscription-not-refused"


@dataclass(frozen=True)
class Publishing:
    """An attempt to publish.

    Attributes:
        name: What is tried.
        attacker: Who tries it, with a valid login.
        topic: The topic, below the namespace.
        retain: Whether the message shall stay.
        empty: Whether a retained message shall be removed.
        possible: The brokers that cannot prevent it, each with the name that docs/identity.md gives to this gap.
    """

    name: str
    attacker: str
    topic: str
    retain: bool = False
    empty: bool = False
    possible: tuple[tuple[str, str], ...] = ()


PATTERN = ((ACL_FILE, OWN_NAME),)
PUBLISHING = [
    # In the name of another agent.
    Publishing("a task in the name of another agent", "agent-b", "tasks/writer/inbox/agent-a"),
    Publishing("a task in the name of its own receiver", "agent-b", "tasks/writer/inbox/writer"),
    Publishing("a control message in the name of the requester", "agent-b", "tasks/writer/control/agent-a"),
    Publishing("the message of an agent to itself", "agent-b", "tasks/writer/control/writer"),
    Publishing("a result in the name of the executor", "agent-b", "tasks/agent-a/results/writer"),
    Publishing("an event in the name of the executor", "agent-b", "tasks/agent-a/events/writer/t-1"),
    Publishing("a result in the name of its own reader", "agent-b", "tasks/agent-a/results/agent-a"),
    Publishing("the card of another agent", "agent-b", "agents/agent-a/card", retain=True),
    Publishing("the status of another agent", "agent-b", "agents/agent-a/status", retain=True),
    Publishing("the removal of an agent's card", "agent-b", "agents/agent-a/card", retain=True, empty=True),
    Publishing("the removal of an agent's status", "agent-b", "agents/agent-a/status", retain=True, empty=True),
    Publishing("the card of an agent that does not exist", "agent-b", "agents/ghost/card", retain=True),
    Publishing("a task with a foreign name before its own", "agent-b", "tasks/writer/inbox/agent-a/agent-b"),
    Publishing("a task with a foreign name after its own", "agent-b", "tasks/writer/inbox/agent-b/agent-a"),
    Publishing("a task with an empty name", "agent-b", "tasks/writer/inbox/"),
    Publishing("a task in another case of a foreign name", "agent-b", "tasks/writer/inbox/Agent-A"),
    Publishing(
        "a task in another case of its own name",
        "agent-b",
        "tasks/writer/inbox/Agent-B",
        possible=((EJABBERD, CASE),),
    ),
    Publishing("a copy of another agent's card", "agent-b", "agents/agent-a/card/writer"),
    Publishing("a copy of another agent's status", "agent-b", "agents/agent-a/status/writer"),
    Publishing("a question for cards in the name of another agent", "agent-b", "agents/agent-a/query"),
    # In the name of a client.
    Publishing("a call in the name of a client", "agent-b", "mcp/tools/forecast/call/web"),
    Publishing("a cancellation in the name of a client", "agent-b", "mcp/tools/forecast/cancel/web"),
    Publishing("a query in the name of a client", "agent-b", "mcp/servers/weather:1/query/web"),
    Publishing("the message of a client to itself", "agent-b", "mcp/clients/web/responses/web"),
    Publishing("a call by a server in the name of a client", "evil:1", "mcp/tools/forecast/call/web"),
    Publishing("a call by an auditor in the name of a client", "audit-b", "mcp/tools/forecast/call/web"),
    Publishing("a copy of a tool's card", "evil:1", "mcp/tools/forecast/card/web"),
    Publishing("a copy of a server's card", "evil:1", "mcp/servers/weather:1/card/web"),
    Publishing("a claim among the replicas of a server", "evil:1", "mcp/servers/weather/query"),
    Publishing("a request by a client that may not read the server", "reader", "mcp/servers/weather:1/request/reader"),
    Publishing("a request in the name of a client", "agent-b", "mcp/servers/weather:1/request/web"),
    Publishing("a request on the plain topic", "agent-b", "mcp/servers/weather:1/request"),
    # In the name of a server.
    Publishing("a change in the name of a server, by a server", "evil:1", "mcp/servers/weather:1/events/web"),
    Publishing("a change in the name of a server, by an agent", "agent-b", "mcp/servers/weather:1/events/web"),
    Publishing("a change in the name of another replica", "weather:2", "mcp/servers/weather:1/events/web"),
    Publishing("a response in the name of a server, by an agent", "agent-b", "mcp/clients/web/responses/weather:1"),
    Publishing("a response in the name of a server, by a server", "evil:1", "mcp/clients/web/responses/weather:1"),
    Publishing("a response in the name of another replica", "weather:2", "mcp/clients/web/responses/weather:1"),
    Publishing("a partial result in the name of a server", "evil:1", "mcp/clients/web/stream/weather:1/c-1"),
    Publishing("a partial result by an agent", "agent-b", "mcp/clients/web/stream/weather:1/c-1"),
    Publishing("the description of a foreign tool, by an agent", "agent-b", "mcp/tools/forecast/card", retain=True),
    Publishing("the description of a foreign tool, by a server", "evil:1", "mcp/tools/forecast/card", retain=True),
    Publishing("the removal of a tool's card", "evil:1", "mcp/tools/forecast/card", retain=True, empty=True),
    Publishing("the card of a foreign server, by an agent", "agent-b", "mcp/servers/weather:1/card", retain=True),
    Publishing("the card of a foreign server, by a server", "evil:1", "mcp/servers/weather:1/card", retain=True),
    Publishing("the card of a replica that does not exist", "evil:1", "mcp/servers/weather:3/card", retain=True),
    Publishing("the removal of a server's card", "evil:1", "mcp/servers/weather:1/card", retain=True, empty=True),
    Publishing("a tool that the roster does not give to the server", "evil:1", "mcp/tools/other/card", retain=True),
    Publishing("the query of one server in the name of another", "evil:1", "mcp/servers/weather:2/query/weather:1"),
    Publishing("the card of a tool that another agent hosts", "agent-b", "mcp/tools/read_file/card", retain=True),
    Publishing("a response in the name of a hosted server", "agent-b", "mcp/clients/web/responses/files:desk"),
    Publishing("a response of a hosted server under its agent's name", "desk", "mcp/clients/web/responses/desk"),
    # As another kind of program, under its own name.
    Publishing("an agent's card by a server", "evil:1", "agents/evil/card", retain=True),
    Publishing("a task by a server under its user name", "evil:1", "tasks/writer/inbox/evil.1", possible=PATTERN),
    Publishing("a call by a server under its user name", "evil:1", "mcp/tools/forecast/call/evil.1"),
    Publishing("a task by a client", "web", "tasks/writer/inbox/web", possible=PATTERN),
    Publishing("a result by a client in the name of an agent", "web", "tasks/agent-a/results/writer"),
    Publishing("a task by an auditor", "audit-b", "tasks/writer/inbox/audit-b", possible=PATTERN),
    # As a member of another pool.
    Publishing("a message to the members of another pool", "pool-b.1", "agents/pool-a/members/all/control"),
    Publishing("a message to a member, by another agent", "agent-b", "agents/pool-a/members/0a1b2c3d4e5f/control"),
    Publishing("the end of another pool", "pool-b.1", "agents/pool-a/status", retain=True),
    Publishing("the card of another pool", "pool-b.1", "agents/pool-a/card", retain=True),
    Publishing("a result in the name of another pool", "pool-b.1", "tasks/agent-a/results/pool-a"),
    Publishing("a task in the name of another pool", "pool-b.1", "tasks/writer/inbox/pool-a"),
    Publishing("a task by a member under its user name", "pool-b.1", "tasks/writer/inbox/pool-b.1", possible=PATTERN),
    # On topics that prove nothing.
    Publishing("a task on the plain topic", "agent-b", "tasks/writer/inbox"),
    Publishing("a task on the overview's topic", "agent-b", "agents/writer/inbox"),
    Publishing("a control message on the plain topic", "agent-b", "tasks/writer/control"),
    Publishing("a result on the plain topic", "agent-b", "tasks/agent-a/results"),
    Publishing("the result of one task on the plain topic", "agent-b", "tasks/t-1/result"),
    Publishing("an event on the plain topic", "agent-b", "tasks/t-1/events"),
    Publishing("a call on the plain topic", "agent-b", "mcp/tools/forecast/call"),
    Publishing("a cancellation on the plain topic", "agent-b", "mcp/tools/forecast/cancel"),
    Publishing("a query on the plain topic", "agent-b", "mcp/servers/weather:1/query"),
    Publishing("a response on the plain topic", "evil:1", "mcp/clients/web/responses"),
    Publishing("a partial result on the plain topic", "evil:1", "mcp/tools/forecast/stream/c-1"),
]


@dataclass(frozen=True)
class Reading:
    """An attempt to read what is for others.

    Attributes:
        name: What is tried.
        attacker: Who tries it, with a valid login.
        topic_filter: The subscription; ``{ns}`` is the namespace.
    """

    name: str
    attacker: str
    topic_filter: str


READING = [
    Reading("everything", "agent-b", "#"),
    Reading("everything with two wildcards", "agent-b", "+/#"),
    Reading("the namespace", "agent-b", "{ns}/#"),
    Reading("the namespace, by a server", "evil:1", "{ns}/#"),
    Reading("all tasks", "agent-b", "{ns}/tasks/#"),
    Reading("all levels of tasks", "agent-b", "+/+/+/+/+"),
    Reading("the inboxes of all agents", "agent-b", "{ns}/tasks/+/inbox/+"),
    Reading("the inbox of one agent", "agent-b", "{ns}/tasks/writer/inbox/+"),
    Reading("the inbox of one agent for one requester", "agent-b", "{ns}/tasks/writer/inbox/agent-a"),
    Reading("everything of one agent", "agent-b", "{ns}/tasks/writer/#"),
    Reading("the control messages of all agents", "agent-b", "{ns}/tasks/+/control/+"),
    Reading("the results of all agents", "agent-b", "{ns}/tasks/+/results/+"),
    Reading("the results of one agent", "agent-b", "{ns}/tasks/agent-a/results/+"),
    Reading("all events", "agent-b", "{ns}/tasks/+/events/+/+"),
    Reading("the events of one agent", "agent-b", "{ns}/tasks/agent-a/events/#"),
    Reading("all of MCP", "evil:1", "{ns}/mcp/#"),
    Reading("the calls of all tools", "evil:1", "{ns}/mcp/tools/+/call/+"),
    Reading("the calls of a foreign tool", "evil:1", "{ns}/mcp/tools/forecast/call/+"),
    Reading("the calls of a foreign tool, by an agent", "agent-b", "{ns}/mcp/tools/forecast/call/+"),
    Reading("everything of a foreign tool", "evil:1", "{ns}/mcp/tools/forecast/#"),
    Reading("the cancellations of a foreign tool", "evil:1", "{ns}/mcp/tools/forecast/cancel/+"),
    Reading("the queries to a foreign server", "evil:1", "{ns}/mcp/servers/+/query/+"),
    Reading("the responses to all clients", "agent-b", "{ns}/mcp/clients/+/responses/+"),
    Reading("the responses to one client", "agent-b", "{ns}/mcp/clients/web/responses/+"),
    Reading("all partial results", "agent-b", "{ns}/mcp/clients/+/stream/+/+"),
    Reading("the partial results of one call", "agent-b", "{ns}/mcp/clients/web/stream/weather:1/c-1"),
    Reading("the changes that all clients are told", "agent-b", "{ns}/mcp/servers/+/events/+"),
    Reading("the changes that one client is told", "agent-b", "{ns}/mcp/servers/weather:1/events/web"),
    Reading("the requests to a foreign server", "evil:1", "{ns}/mcp/servers/+/request/+"),
    Reading("the responses, by a server", "evil:1", "{ns}/mcp/clients/+/responses/+"),
    Reading("the messages among the members of another pool", "pool-b.1", "{ns}/agents/pool-a/members/+/control"),
    Reading("the tasks of another pool", "pool-b.1", "{ns}/tasks/pool-a/inbox/+"),
    Reading(
        "a share of the tasks of another pool", "pool-b.1", "$share/agent-bound-inbox-pool-a/{ns}/tasks/pool-a/inbox/+"
    ),
    Reading("a copy of the calls in a group of its own", "evil:1", "$share/own/{ns}/mcp/tools/forecast/call/+"),
    Reading("a copy of the tasks in a group of its own", "agent-b", "$share/own/{ns}/tasks/writer/inbox/+"),
    Reading("everything in a group of its own", "agent-b", "$share/own/#"),
]

GAPS = {OWN_NAME, CASE, SHARE_GROUP, CLIENT_ID, KEPT_SESSION, UNSUBSCRIBE, OLD_TOKEN, SILENT_SUBSCRIPTION}
"""What some broker cannot prevent. docs/identity.md names each of them."""
