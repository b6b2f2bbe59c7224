"""The rights of the programs of a roster, from which the documentation and every broker's rules are made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mqtt_agent.identity.filters import covers, without_share
from mqtt_agent.identity.rights_table import RIGHTS, Action, Right
from mqtt_agent.identity.roster import EVERYBODY, Kind, Login, Program, Roster

__all__ = ["Grant", "Profile", "Role", "allows", "granting", "grants", "parts", "roles"]

Profile = Literal["bound", "mixed"]
"""``bound`` is for endpoints with ``bound="require"``; ``mixed`` also has the plain topics, for older peers."""


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
