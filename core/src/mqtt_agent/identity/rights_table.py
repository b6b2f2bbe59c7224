"""The table of the rights of each kind of program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mqtt_agent.identity.roster import Kind

__all__ = ["RIGHTS", "Action", "Right"]

Action = Literal["publish", "subscribe"]
"""What a right is about. ``subscribe`` also stands for the delivery of the messages."""

_ROOT = "{ns}/"


@dataclass(frozen=True)
class Right:
    """One line of the table.

    Attributes:
        part: Who has the right. An agent that may call tools also has the rights of a client, and an agent that hosts a
            tool server also has those of a server.
        action: What the right allows.
        topic: The topic filter. ``{self}`` is the program's own name: its agent id, or the id of its replica.
            ``{name}`` is the name of its server, which all replicas share. ``{serves}``, ``{calls}``, ``{reads}`` and
            ``{delegates}`` stand for each name in the roster's entry of the program, and
            for ``+`` when the entry is ``*``. ``{reads}`` stands for each replica of a server.
        why: What the right is used for.
        plain: Whether the topic is not sender-bound. Then only the profile ``mixed`` has the right.
        unshared: Whether the right is used only at brokers without shared subscriptions.
        pooled: Whether only the members of a pool use the right.
    """

    part: Kind
    action: Action
    topic: str
    why: str
    plain: bool = False
    unshared: bool = False
    pooled: bool = False


def _rows(
    part: Kind,
    plain: bool,
    rows: Iterable[tuple[Action, str, str]],
    *,
    unshared: bool = False,
    pooled: bool = False,
) -> list[Right]:
    return [
        Right(part, action, topic if topic.startswith("$share/") else _ROOT + topic, why, plain, unshared, pooled)
        for action, topic, why in rows
    ]


RIGHTS: tuple[Right, ...] = (
    *_rows(
        "agent",
        False,
        [
            ("publish", "agents/{self}/card", "its own card"),
            ("publish", "agents/{self}/status", "its own status, and its Last Will"),
            ("publish", "tasks/{delegates}/inbox/{self}", "tasks for the agents to which it delegates"),
            ("publish", "tasks/{delegates}/control/{self}", "cancel, answers and questions about these tasks"),
            ("publish", "tasks/{self}/control/{self}", "a message to itself, which shows that a list is complete"),
            ("publish", "tasks/+/results/{self}", "the results of tasks that it has executed"),
            ("publish", "tasks/+/events/{self}/+", "the events of tasks that it executes"),
            ("subscribe", "agents/+/card", "the cards of all agents"),
            ("subscribe", "agents/+/status", "the statuses of all agents"),
            ("subscribe", "tasks/{self}/inbox/+", "tasks for itself"),
            ("subscribe", "tasks/{self}/control/+", "control messages about these tasks"),
            ("subscribe", "tasks/{self}/results/+", "the results of tasks that it has delegated"),
            ("subscribe", "tasks/{self}/events/+/+", "the events of tasks that it has delegated"),
        ],
    ),
    *_rows(
        "agent",
        True,
        [
            ("publish", "tasks/{delegates}/inbox", "tasks for agents that do not speak sender-bound topics"),
            ("publish", "tasks/{delegates}/control", "control messages to such agents"),
            ("publish", "tasks/{self}/control", "a message to itself"),
            ("publish", "tasks/+/results", "results for such requesters"),
            ("publish", "tasks/+/result", "results of single requests"),
            ("publish", "tasks/+/events", "events for such requesters"),
            ("subscribe", "tasks/{self}/inbox", "tasks of such requesters"),
            ("subscribe", "agents/{self}/inbox", "tasks at the inbox of the specification's overview"),
            ("subscribe", "tasks/{self}/control", "control messages of such requesters"),
            ("subscribe", "tasks/{self}/results", "results of such executors"),
            ("subscribe", "tasks/+/result", "results of single requests"),
            ("subscribe", "tasks/+/events", "events of such executors"),
        ],
    ),
    *_rows(
        "client",
        False,
        [
            ("publish", "mcp/tools/{calls}/call/{self}", "its calls"),
            ("publish", "mcp/tools/{calls}/cancel/{self}", "the cancellations of its calls"),
            ("publish", "mcp/servers/+/query/{self}", "questions about its calls"),
            ("publish", "mcp/servers/+/input/{self}", "its answers to what its calls ask"),
            ("publish", "mcp/servers/{reads}/request/{self}", "its requests for resources, prompts and contents"),
            (
                "publish",
                "mcp/clients/{self}/responses/{self}",
                "a message to itself, which shows that a list is complete",
            ),
            ("subscribe", "mcp/clients/{self}/responses/+", "the responses to its calls"),
            ("subscribe", "mcp/clients/{self}/stream/+/+", "the partial results of its calls"),
            ("subscribe", "mcp/servers/+/events/{self}", "the changes of resources and prompts for which it has asked"),
            ("subscribe", "mcp/tools/+/card", "the cards of all tools"),
            ("subscribe", "mcp/servers/+/card", "the cards of all servers"),
            ("subscribe", "agents/+/status", "whether an agent that hosts a tool server is online"),
        ],
    ),
    *_rows(
        "client",
        True,
        [
            ("publish", "mcp/tools/{calls}/call", "calls of servers that do not speak sender-bound topics"),
            ("publish", "mcp/tools/{calls}/cancel", "cancellations of such calls"),
            ("publish", "mcp/servers/+/query", "questions about such calls"),
            ("publish", "mcp/servers/+/input", "answers to what such calls ask"),
            ("publish", "mcp/servers/{reads}/request", "requests to such servers for resources, prompts and contents"),
            ("publish", "mcp/clients/{self}/responses", "a message to itself"),
            ("subscribe", "mcp/clients/{self}/responses", "responses of such servers"),
            ("subscribe", "mcp/tools/+/stream/+", "partial results of such servers"),
        ],
    ),
    *_rows(
        "server",
        False,
        [
            ("publish", "mcp/servers/{self}/card", "the card of the replica, and its Last Will"),
            ("publish", "mcp/tools/{serves}/card", "the cards of its tools"),
            ("publish", "mcp/clients/+/responses/{self}", "its responses"),
            ("publish", "mcp/clients/+/stream/{self}/+", "its partial results"),
            ("publish", "mcp/servers/{self}/events/+", "changes of its resources and prompts, for those that ask"),
            ("publish", "mcp/servers/+/query/{self}", "messages to itself, and questions whether a server is there"),
            ("subscribe", "$share/mcp-bound-{serves}/{ns}/mcp/tools/{serves}/call/+", "its share of the calls"),
            ("subscribe", "mcp/tools/{serves}/cancel/+", "the cancellations of calls"),
            ("subscribe", "mcp/servers/{self}/query/+", "questions about its calls"),
            ("subscribe", "mcp/clients/{self}/responses/+", "answers of servers that it asks whether they are there"),
            ("subscribe", "mcp/servers/{self}/input/+", "the answers to what its calls ask"),
            ("subscribe", "mcp/servers/{self}/request/+", "requests for resources, prompts and contents"),
            ("subscribe", "mcp/tools/{serves}/card", "whether another server has published the card"),
            ("subscribe", "mcp/servers/+/card", "the other replicas and servers"),
            ("subscribe", "agents/+/status", "whether an agent that hosts a tool server is online"),
        ],
    ),
    *_rows(
        "server",
        True,
        [
            ("publish", "mcp/clients/+/responses", "responses to clients that do not speak sender-bound topics"),
            ("publish", "mcp/tools/{serves}/stream/+", "partial results for such clients"),
            ("publish", "mcp/servers/+/query", "messages to itself, and questions whether a server is there"),
            ("subscribe", "$share/mcp-tool-{serves}/{ns}/mcp/tools/{serves}/call", "its share of such calls"),
            ("subscribe", "mcp/tools/{serves}/cancel", "the cancellations of such calls"),
            ("subscribe", "mcp/servers/{self}/query", "questions about such calls"),
            ("subscribe", "mcp/clients/{self}/responses", "answers of such servers whether they are there"),
            ("subscribe", "mcp/servers/{self}/input", "the answers to what such calls ask"),
            ("subscribe", "mcp/servers/{self}/request", "requests of such clients for resources, prompts and contents"),
        ],
    ),
    *_rows(
        "agent",
        False,
        [
            ("publish", "agents/{self}/query", "to ask all agents for their cards"),
            ("publish", "agents/{self}/card/+", "copies of its card for those that ask"),
            ("publish", "agents/{self}/status/+", "copies of its status for those that ask"),
            ("subscribe", "agents/+/query", "the questions of all agents"),
            ("subscribe", "agents/+/card/{self}", "the copies of cards for itself"),
            ("subscribe", "agents/+/status/{self}", "the copies of statuses for itself"),
        ],
        unshared=True,
    ),
    *_rows(
        "client",
        False,
        [
            ("publish", "mcp/clients/{self}/query", "to ask all servers for their cards"),
            ("subscribe", "mcp/servers/+/card/{self}", "the copies of server cards for itself"),
            ("subscribe", "mcp/tools/+/card/{self}", "the copies of tool cards for itself"),
        ],
        unshared=True,
    ),
    *_rows(
        "server",
        False,
        [
            ("publish", "mcp/clients/{self}/query", "to ask all servers for their cards"),
            ("publish", "mcp/servers/{self}/card/+", "copies of its card for those that ask"),
            ("publish", "mcp/tools/{serves}/card/+", "copies of its tools' cards for those that ask"),
            ("publish", "mcp/servers/{name}/query", "to ask the other replicas of the server for their claims"),
            ("subscribe", "mcp/clients/+/query", "the questions of all clients and servers"),
            ("subscribe", "mcp/servers/+/card/{self}", "the copies of server cards for itself"),
            ("subscribe", "mcp/tools/{serves}/card/{self}", "the copies of its tools' cards for itself"),
            ("subscribe", "mcp/servers/{name}/query", "the questions of the other replicas of the server"),
        ],
        unshared=True,
    ),
    *_rows(
        "agent",
        False,
        [
            ("publish", "agents/{self}/members/+/control", "messages to the other members of its pool"),
            ("subscribe", "agents/{self}/members/+/control", "messages of the other members of its pool"),
            ("subscribe", "$share/agent-bound-inbox-{self}/{ns}/tasks/{self}/inbox/+", "a member's share of the tasks"),
            (
                "subscribe",
                "$share/agent-bound-control-{self}/{ns}/tasks/{self}/control/+",
                "a member's share of the control messages",
            ),
            (
                "subscribe",
                "$share/agent-bound-results-{self}/{ns}/tasks/{self}/results/+",
                "a member's share of the results",
            ),
        ],
        pooled=True,
    ),
    *_rows(
        "agent",
        True,
        [
            ("subscribe", "$share/agent-inbox-{self}/{ns}/tasks/{self}/inbox", "a member's share of such tasks"),
            ("subscribe", "$share/agent-overview-{self}/{ns}/agents/{self}/inbox", "a member's share of such tasks"),
            (
                "subscribe",
                "$share/agent-control-{self}/{ns}/tasks/{self}/control",
                "a member's share of such control messages",
            ),
            ("subscribe", "$share/agent-results-{self}/{ns}/tasks/{self}/results", "a member's share of such results"),
        ],
        pooled=True,
    ),
    *_rows("auditor", False, [("subscribe", "#", "every message of the namespace")]),
    *_rows(
        "operator",
        False,
        [
            ("subscribe", "#", "every message of the namespace"),
            ("publish", "agents/+/card", "to remove the cards of agents that are gone"),
            ("publish", "agents/+/status", "to remove the statuses of agents that are gone"),
            ("publish", "mcp/tools/+/card", "to remove the cards of tools that are gone"),
            ("publish", "mcp/servers/+/card", "to remove the cards of servers that are gone"),
        ],
    ),
)
"""Every right, for every kind of program (ours)."""
