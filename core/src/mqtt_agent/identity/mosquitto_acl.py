"""Mosquitto with ``acl_file`` and ``password_file``."""

from __future__ import annotations

from collections.abc import Mapping

from mqtt_agent.errors import RosterError
from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.passwords import ITERATIONS, hashed_of
from mqtt_agent.identity.plans import PLAIN_NOTE, Plan, Rule
from mqtt_agent.identity.rights import Grant, Profile, roles
from mqtt_agent.identity.rights_table import Action, Right
from mqtt_agent.identity.roster import EVERYBODY, Login, Roster

__all__ = ["mosquitto_acl"]

_WORDS = {"publish": "write", "subscribe": "read"}
_NOTES = (
    "acl_file refuses no subscription: it only withholds messages that a login may not read. So a login can join a"
    " foreign share group and swallow a part of its messages. The dynamic security plugin refuses such subscriptions.",
    "acl_file binds no client id: a login can connect with the client id of another login and end its connection.",
)
_PATTERN_NOTE = (
    "A pattern holds for every login, whatever its kind, under its own user name: a tool server or a member of a pool"
    " could give tasks as {user!r}, for example. Without patterns (--exact), each login gets lines of its own."
)
_CONF = """\
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
"""


def mosquitto_acl(
    roster: Roster,
    profile: Profile = "bound",
    *,
    passwords: Mapping[str, str] | None = None,
    exact: bool = False,
    folder: str = "/etc/mosquitto/mqtt-agent",
) -> Plan:
    """Make the files of Mosquitto's ``acl_file``.

    A right that all programs of a kind have in the same form becomes one pattern for all of them, so the file does
    not grow with their number.

    Args:
        roster: The roster.
        profile: ``bound``, or ``mixed`` to allow the plain topics too.
        passwords: The passwords by user name. None makes no password file: use ``mosquitto_passwd``.
        exact: Whether to use no patterns, and to name each login instead.
        folder: Where the files will stand, for ``mosquitto.conf``.

    Raises:
        RosterError: A user name cannot stand in Mosquitto's files.
    """
    for login in roster.logins():
        _check_user(login)
    plan = Plan("mosquitto", roster, profile, variables={"%u": lambda login: login.user})
    plan.sees_shares = plan.checks_subscriptions = False
    plan.notes += [*_NOTES, *([PLAIN_NOTE] if profile == "mixed" else [])]
    found = roles(roster, profile)
    everything = () if exact else [each for role in found for each in role.grants]
    common = dict.fromkeys(_pattern(each) for each in everything if _common(roster, each.right))
    lines = [f"# Made by mqtt-agent acl from {roster.source}, profile {profile}. Change the roster, not this file."]
    for action, topic in common:
        lines.append(f"pattern {_WORDS[action]} {topic}")
        plan.rules.append(Rule(lines[-1], action, topic))
    for role in found:
        for login in role.logins:
            own_grants = [each for each in role.grants if exact or not _is_in_pattern(roster, each, login)]
            own: list[tuple[Action, str]] = [(each.action, without_share(each.filled(login))) for each in own_grants]
            if own:
                lines += ["", f"user {login.user}"]
            for action, topic in dict.fromkeys(own):
                lines.append(f"topic {_WORDS[action]} {topic}")
                text = f"{lines[-1]} (below user {login.user})"
                plan.rules.append(Rule(text, action, topic, frozenset({login.user})))
    others = [login for role in found for login in role.logins if login.user != login.agent_id]
    if common and (speaking := [each for each in others if each.program.kind in ("server", "agent")]):
        plan.notes.append(_PATTERN_NOTE.format(user=speaking[0].user))
    plan.files = {"acl": "\n".join(lines) + "\n", "mosquitto.conf": _CONF.format(folder=folder)}
    if passwords is None:
        plan.notes.append("Set the password of each login: mosquitto_passwd -b passwords USER PASSWORD.")
    else:
        plan.files["passwords"] = _password_file(roster, passwords)
    return plan


def _common(roster: Roster, right: Right) -> bool:
    """Whether a right can be one pattern for all logins, and gives no agent or client more than its entry."""
    if right.part in ("auditor", "operator") or "{serves}" in right.topic:
        return False
    if right.part == "server" and "{self}" in right.topic:
        return False  # the user name of a replica is not its server id
    agents = [each for each in roster.programs if each.kind == "agent"]
    clients = [each for each in roster.programs if each.kind == "client"]
    if "{calls}" in right.topic:
        return all(EVERYBODY in each.calls for each in (*agents, *clients))
    if "{reads}" in right.topic:
        return all(EVERYBODY in each.reads for each in (*agents, *clients))
    return "{delegates}" not in right.topic or all(EVERYBODY in each.delegates_to for each in agents)


def _is_in_pattern(roster: Roster, grant: Grant, login: Login) -> bool:
    """Whether a pattern gives this right to a login. A pattern stands for the user name, so not for a pool's name."""
    named = "{self}" in grant.topic
    return _common(roster, grant.right) and (not named or grant.own_name(login) == login.user)


def _pattern(grant: Grant) -> tuple[Action, str]:
    return grant.action, without_share(grant.topic).replace("{self}", "%u")


def _check_user(login: Login) -> None:
    bad = [each for each in (":", "/", "+", "#", "%") if each in login.user]
    if bad or login.user != login.user.strip():
        found = f"contains {bad[0]!r}" if bad else "begins or ends with a space"
        raise RosterError(
            f"the user name {login.user!r} {found}, which Mosquitto's files cannot hold; rename the program"
        )


def _password_file(roster: Roster, passwords: Mapping[str, str]) -> str:
    lines: list[str] = []
    for login in roster.logins():
        salt, digest = hashed_of(login.user, passwords)
        lines.append(f"{login.user}:$7${ITERATIONS}${salt}${digest}")
    return "\n".join(lines) + "\n"
