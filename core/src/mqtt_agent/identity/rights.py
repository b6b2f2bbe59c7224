"""The rights of each kind of program: one table, from which the documentation and every broker's rules are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mqtt_agent.identity.filters import covers, without_share
from mqtt_agent.identity.roster import EVERYBODY, Kind, Login, Program, Roster

__all__ = ["RIGHTS", "Action", "Grant", "Profile", "Right", "Role", "allows", "granting", "grants", "parts", "roles"]

Action = Literal["publish", "subscribe"]
"""What a right is about. ``subscribe`` also stands for the delivery of the messages."""
Profile = Literal["bound", "mixed"]
"""``bound`` is for endpoints with ``bound="require"``; ``mixed`` also has the plain topics, for older peers."""

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


@dataclass(frozen=True)
class Grant:
    """A right of a program, with the names of its entry in the roster; ``{self}`` is still open.

    Attributes:
        right: The line of the table.
        topic: The topic filter. Only ``{self}`` is not filled in.
    """

    right: Right
    topic: str

    @property
    def part(self) -> Kind:
        """The part of the program that has the right."""
        return self.right.part

    @property
    def action(self) -> Action:
        """What the right allows."""
        return self.right.action

    def own_name(self, login: Login) -> str:
        """The name that stands for ``{self}`` when this login uses the right."""
        return (login.server_id if self.part == "server" else login.agent_id) or login.user

    def filled(self, login: Login) -> str:
        """The topic filter for one login."""
        return self.topic.replace("{self}", self.own_name(login))


@dataclass(frozen=True)
class Role:
    """Logins with exactly the same rights, apart from their own names.

    Attributes:
        name: The kind of the programs, and a short hash of their rights. It changes only when their rights change.
        logins: The logins.
        grants: Their rights.
    """

    name: str
    logins: tuple[Login, ...]
    grants: tuple[Grant, ...]


def parts(program: Program) -> set[Kind]:
    """The kinds whose rights a program has."""
    played: set[Kind] = {program.kind}
    if program.kind == "agent" and program.calls:
        played.add("client")
    if program.kind == "agent" and program.hosts:
        played.add("server")
    return played


def grants(roster: Roster, program: Program, profile: Profile = "bound", *, shares: bool = True) -> list[Grant]:
    """The rights of a program.

    Args:
        roster: The roster.
        program: The program.
        profile: The set of rights.
        shares: Whether the broker has shared subscriptions.
    """
    played = parts(program)
    entries = {
        "{serves}": program.serves,
        "{calls}": _wild(program.calls),
        "{reads}": _wild(roster.replicas_of(program.reads)),
        "{delegates}": _wild(program.delegates_to),
        "{name}": (program.hosts.partition(":")[0] if program.hosts else program.name,),
    }
    made: list[Grant] = []
    for right in RIGHTS:
        if right.pooled and not program.pool:
            continue
        if right.part in played and (profile == "mixed" or not right.plain) and not (right.unshared and shares):
            made += [Grant(right, topic.replace("{ns}", roster.namespace)) for topic in _spread(right.topic, entries)]
    seen: dict[tuple[Action, str, bool], Grant] = {}
    for grant in made:  # an agent that calls tools has some rights twice
        seen.setdefault((grant.action, grant.topic, grant.part == "server"), grant)
    return list(seen.values())


def roles(roster: Roster, profile: Profile = "bound", *, shares: bool = True) -> list[Role]:
    """The logins of a roster, grouped by their rights. The members of a pool with logins of their own are a group."""
    found: dict[tuple[str, str, tuple[Grant, ...]], list[Login]] = {}
    for login in roster.logins():
        pool = login.program.name if login.program.members else ""
        granted = tuple(grants(roster, login.program, profile, shares=shares))
        found.setdefault((login.program.kind, pool, granted), []).append(login)
    return [
        Role(f"{kind}-{f'{pool}-' if pool else ''}{_hash(granted)}", tuple(logins), granted)
        for (kind, pool, granted), logins in found.items()
    ]


def _hash(granted: tuple[Grant, ...]) -> str:
    text = "\n".join(f"{each.action} {each.topic}" for each in granted)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def allows(
    roster: Roster, login: Login, action: Action, topic: str, profile: Profile = "bound", *, shares: bool = True
) -> Grant | None:
    """The right by which a login may do this; None when it may not.

    Args:
        roster: The roster.
        login: Who asks.
        action: What the login wants to do.
        topic: The topic of a message, or the topic filter of a subscription.
        profile: The set of rights.
        shares: Whether the broker has shared subscriptions.
    """
    return granting(grants(roster, login.program, profile, shares=shares), login, action, topic)


def granting(granted: Iterable[Grant], login: Login, action: Action, topic: str) -> Grant | None:
    """The one of a login's rights by which the login may do this; None when it may not."""
    for grant in granted:
        if grant.action == action:
            filled = grant.filled(login)
            if covers(filled, topic) or (action == "subscribe" and covers(without_share(filled), topic)):
                return grant
    return None


def _wild(names: tuple[str, ...]) -> tuple[str, ...]:
    return ("+",) if EVERYBODY in names else names


def _spread(topic: str, entries: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """The topic once for each name of the entry that it mentions."""
    for placeholder, names in entries.items():
        if placeholder in topic:
            yield from (topic.replace(placeholder, name) for name in names)
            return
    yield topic
