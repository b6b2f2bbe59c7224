"""Compares a broker's rules with the roster: what the broker allows too much, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.plans import Plan
from mqtt_agent.identity.rights import granting, grants, roles
from mqtt_agent.identity.rights_table import RIGHTS, Action
from mqtt_agent.identity.roster import Login

__all__ = ["Difference", "differences"]


@dataclass(frozen=True)
class Difference:
    """One attempt for which the broker decides otherwise than the roster.

    Attributes:
        user: Who tries it.
        action: ``publish`` or ``subscribe``.
        topic: The topic or the topic filter.
        allowed: Whether the broker allows the attempt. Then the broker allows more than the roster says; otherwise a
            right is missing.
    """

    user: str
    action: Action
    topic: str
    allowed: bool


def differences(plan: Plan) -> list[Difference]:
    """Ask the model of a broker's matcher about every right of every login, also about the rights of others.

    Args:
        plan: The plan of a broker.

    Returns:
        The attempts for which the broker and the roster differ. A missing right is a fault of this package. A right too
        many is one of the plan's notes, or such a fault.
    """
    found: list[Difference] = []
    logins = _some_of_each_role(plan)
    attempts = list(dict.fromkeys(_attempts(plan, logins)))
    for login in logins:
        granted = grants(plan.roster, login.program, plan.profile, shares=plan.shares)
        for action, topic in attempts:
            wanted = granting(granted, login, action, topic) is not None
            allowed = plan.decide(login, action, topic).allowed
            if wanted != allowed and not _repeats(plan, action, topic):
                found.append(Difference(login.user, action, topic, allowed))
    return found


def _repeats(plan: Plan, action: Action, topic: str) -> bool:
    """Whether an attempt differs only by the share group, at a broker that does not look at share groups."""
    return not plan.sees_shares and action == "subscribe" and without_share(topic) != topic


def _some_of_each_role(plan: Plan) -> list[Login]:
    """Two logins of each role: the others differ from them only by their names."""
    some = [login for role in roles(plan.roster, plan.profile, shares=plan.shares) for login in role.logins[:2]]
    return [login for login in some if login.user not in plan.left_out]


def _attempts(plan: Plan, logins: list[Login]) -> Iterator[tuple[Action, str]]:
    """Each right of each login, and the wildcards that nobody but an auditor may use."""
    namespace = plan.roster.namespace
    yield "subscribe", "#"
    yield "subscribe", f"{namespace}/#"
    for login in logins:
        for grant in grants(plan.roster, login.program, "mixed", shares=plan.shares):
            topic = grant.filled(login)
            yield grant.action, topic if grant.action == "subscribe" else _concrete(topic)
    for right in RIGHTS:
        if right.action == "publish" and right.part not in ("auditor", "operator"):
            for login in logins:  # as a program of another kind, under its own user name
                yield "publish", _concrete(_opened(right.topic.replace("{self}", login.user), namespace))
        topic = _opened(right.topic.replace("{self}", "+"), namespace)
        if right.action == "subscribe" and not topic.startswith("$share/"):
            yield "subscribe", topic


def _opened(topic: str, namespace: str) -> str:
    for placeholder in ("{serves}", "{calls}", "{reads}", "{delegates}", "{name}"):
        topic = topic.replace(placeholder, "+")
    return topic.replace("{ns}", namespace)


def _concrete(topic: str) -> str:
    """A topic that the filter covers."""
    return topic.replace("+", "somebody")
