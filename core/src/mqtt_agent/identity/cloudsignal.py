"""CloudSignal's policy: JSON with ``{$self}``, which stands for a claim of the token."""

from __future__ import annotations

import json
from typing import Any

from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.plans import PLAIN_NOTE, Plan, Rule
from mqtt_agent.identity.rights import Profile, parts
from mqtt_agent.identity.rights_table import RIGHTS, Action, Right
from mqtt_agent.identity.roster import EVERYBODY, Login, Roster

__all__ = ["cloudsignal"]

_NOTES = (
    "This policy was checked with a model of CloudSignal's published matcher, and not with a running CloudSignal.",
    "A rule holds for every token that has the claim of its binding. So a policy cannot tell two programs apart that"
    " have the same claims.",
    "A server with several tools needs one token for each tool_id, or a token service that accepts a list.",
)
_ACTIONS = {"publish": "pub", "subscribe": "sub"}


def cloudsignal(roster: Roster, profile: Profile = "bound") -> Plan:
    """Make CloudSignal's policy.

    The policy does not depend on the names of programs: it binds topics to the claims ``agent_id``, ``server_id`` and
    ``tool_id``. So it does not grow at all.

    Args:
        roster: The roster.
        profile: ``bound``, or ``mixed`` to allow the plain topics too.
    """
    plan = Plan("cloudsignal", roster, profile)
    plan.sees_shares, plan.plus_takes_hash = False, True
    plan.left_out = frozenset(each.name for each in roster.programs if each.kind in ("auditor", "operator"))
    plan.notes += [*_NOTES, *([PLAIN_NOTE] if profile == "mixed" else [])]
    plan.notes += [f"The policy does not say: {each}" for each in _lost(roster)]
    actions: dict[tuple[str, str], set[str]] = {}
    for right in RIGHTS:
        if right.unshared or (right.plain and profile != "mixed"):
            continue
        bound = _bound(right)
        having = [each for each in roster.programs if right.part in parts(each) and (each.pool or not right.pooled)]
        if bound is not None and having:
            topic = bound[0].replace("{ns}", roster.namespace)
            actions.setdefault((topic, bound[1]), set()).add(_ACTIONS[right.action])
    rules: list[dict[str, Any]] = []
    for (topic, binding), words in actions.items():
        rules.append({"topic": topic, "action": "+".join(sorted(words)), "binding": binding})
        text = json.dumps(rules[-1])
        for action in ("publish", "subscribe"):
            if _ACTIONS[action] in words:
                plan.rules += _rules(text, action, topic, binding, roster)
    policy = {"version": "2.1", "default": "deny", "global": [], "rules": rules, "publishers": []}
    plan.files["policy.json"] = json.dumps(policy, indent=2) + "\n"
    return plan


def _bound(right: Right) -> tuple[str, str] | None:
    """The topic with ``{$self}``, and the claim that is meant; None when one claim cannot say it."""
    topic = without_share(right.topic)
    if right.part in ("auditor", "operator"):
        return None
    for entry in ("{calls}", "{reads}", "{delegates}"):
        topic = topic.replace(entry, "+")
    if "{serves}" in topic:
        return topic.replace("{serves}", "{$self}"), "tool_id"
    return topic.replace("{self}", "{$self}"), "server_id" if right.part == "server" else "agent_id"


def _rules(text: str, action: Action, topic: str, binding: str, roster: Roster) -> list[Rule]:
    """The rule once for each value of its claim: a model of how the broker fills ``{$self}`` in."""
    holders: dict[str, set[str]] = {}
    for login in roster.logins():
        for value in _values(login, binding):
            holders.setdefault(value, set()).add(login.user)
    if "{$self}" not in topic:
        everyone = frozenset(user for users in holders.values() for user in users)
        return [Rule(text, action, topic, everyone)]
    return [Rule(text, action, topic.replace("{$self}", value), frozenset(users)) for value, users in holders.items()]


def _values(login: Login, claim: str) -> list[str]:
    value = {"agent_id": login.agent_id, "server_id": login.server_id}.get(claim)
    values = login.program.serves if claim == "tool_id" else (value,)
    return [each for each in values if each and not set(each) & set("/+#\0")]


def _lost(roster: Roster) -> list[str]:
    """What the roster says and the policy cannot."""
    lost: list[str] = []
    for program in roster.programs:
        for key in ("calls", "reads", "delegates_to"):
            names: tuple[str, ...] = getattr(program, key)
            if names and EVERYBODY not in names:
                lost.append(f"{key} of {program.name!r}; its token may use every name.")
        if program.kind in ("auditor", "operator"):
            lost.append(f"the rights of the {program.kind} {program.name!r}; add them in the console of the broker.")
    return lost
