"""EMQX with JSON Web Tokens and the rules of its ``acl.conf``."""

from __future__ import annotations

from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.plans import PLAIN_NOTE, Plan, Rule
from mqtt_agent.identity.rights import Profile, roles
from mqtt_agent.identity.rights_table import Action
from mqtt_agent.identity.roster import Login, Roster

__all__ = ["client_attributes", "emqx"]

_NOTES = (
    "These rules were checked with a model of EMQX's matcher, and not with a running EMQX.",
    "EMQX 5.9 or later is needed, for conditions on client attributes. The attributes come from the claim"
    " client_attrs of the token (mqtt-agent token issue sets it), so the authentication must be JWT.",
    'Set authorization { no_match = deny, deny_action = ignore, sources = [{type = file, path = "acl.conf"}] }.',
    "EMQX compares a shared subscription without $share/group/: a login can choose another group for the topics that"
    " it may read anyway.",
    'Bind client ids in the authentication: verify_claims { client_id = "${clientid}", username = "${username}" }.',
)
_ATTRIBUTES = {"server": "server_id"}


def emqx(roster: Roster, profile: Profile = "bound") -> Plan:
    """Make ``acl.conf`` for EMQX.

    The claims of a login are its client attributes. Rules of agents and clients use ``${client_attrs.agent_id}``, and
    rules of servers ``${client_attrs.server_id}``. Each rule is for the attribute ``role``, so that EMQX never looks
    at a rule whose attribute the login lacks.

    Args:
        roster: The roster.
        profile: ``bound``, or ``mixed`` to allow the plain topics too.
    """
    plan = Plan(
        "emqx",
        roster,
        profile,
        variables={
            "${client_attrs.agent_id}": lambda login: login.agent_id,
            "${client_attrs.server_id}": lambda login: login.server_id,
            "${username}": lambda login: login.user,
        },
    )
    plan.sees_shares, plan.plus_takes_hash = False, True
    plan.notes += [*_NOTES, *([PLAIN_NOTE] if profile == "mixed" else [])]
    lines = [f"%% Made by mqtt-agent acl from {roster.source}, profile {profile}. Change the roster, not this file."]
    for role in roles(roster, profile):
        users = frozenset(login.user for login in role.logins)
        topics: list[tuple[Action, str]] = [(each.action, _topic(each.topic, each.part)) for each in role.grants]
        for action, topic in dict.fromkeys(topics):
            lines.append(f'{{allow, {{client_attr, "role", "{role.name}"}}, {action}, ["{topic}"]}}.')
            plan.rules.append(Rule(lines[-1], action, topic, users))
    lines.append("{deny, all}.")
    plan.files["acl.conf"] = "\n".join(lines) + "\n"
    return plan


def client_attributes(roster: Roster, login: Login, profile: Profile = "bound") -> dict[str, str]:
    """The claim ``client_attrs`` of a login: what the rules of :func:`emqx` compare."""
    role = next(each.name for each in roles(roster, profile) if login in each.logins)
    named = {"role": role, "agent_id": login.agent_id, "server_id": login.server_id}
    return {name: value for name, value in named.items() if value is not None}


def _topic(topic: str, part: str) -> str:
    if part in ("auditor", "operator"):
        return without_share(topic)
    return without_share(topic).replace("{self}", f"${{client_attrs.{_ATTRIBUTES.get(part, 'agent_id')}}}")
