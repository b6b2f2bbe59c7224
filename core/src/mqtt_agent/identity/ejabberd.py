"""ejabberd with ``mod_mqtt`` and JSON Web Tokens."""

from __future__ import annotations

import json
from typing import Any

from mqtt_agent.errors import RosterError
from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.plans import PLAIN_NOTE, Plan, Rule
from mqtt_agent.identity.rights import Profile, roles
from mqtt_agent.identity.rights_table import Action
from mqtt_agent.identity.roster import Login, Roster

__all__ = ["ejabberd"]

_FORBIDDEN = "\"&'/:<>@ %"
_NOTES = (
    "ejabberd binds no client id to a user. A login gets its own session even with the client id of another login, so"
    " it ends no foreign connection.",
    "ejabberd ignores the case of user names, and of the levels that it compares with a user name.",
    "In ejabberd 23.01, an UNSUBSCRIBE ends the subscriptions of all logins to the same topic filter. So a login can"
    " make others deaf until they subscribe again. No access rule prevents it.",
    "ejabberd checks a token only at the connect: a connection stays open after its token has expired.",
    "The key file must not be readable by others: who has the key can make a token for every login.",
)


def ejabberd(
    roster: Roster,
    profile: Profile = "bound",
    *,
    host: str = "localhost",
    key_file: str = "/etc/ejabberd/mqtt-agent.jwk",
) -> Plan:
    """Make the part of ``ejabberd.yml`` for ``mod_mqtt``: who logs in with a token, and the access rules.

    The rules have one entry for each topic filter, and name the users in lists. So only the lists grow with the number
    of agents.

    Args:
        roster: The roster.
        profile: ``bound``, or ``mixed`` to allow the plain topics too.
        host: ejabberd's virtual host. The claim ``jid`` of a token is ``USER@HOST``.
        key_file: The file with the key (JWK) that verifies the tokens.

    Raises:
        RosterError: A name cannot be a user name of ejabberd, or two names differ only in case.
    """
    _check_users(roster)
    plan = Plan("ejabberd", roster, profile, variables={"%u": lambda login: login.user.lower()})
    plan.shares = plan.sees_shares = False
    plan.plus_takes_hash = plan.ignores_case = True
    plan.notes += [*_NOTES, *([PLAIN_NOTE] if profile == "mixed" else [])]
    users: dict[tuple[Action, str], list[str]] = {}
    for role in roles(roster, profile, shares=False):
        for grant in role.grants:
            topic = without_share(grant.topic)
            for login in role.logins:
                filled = _filled(topic, login, grant.own_name(login))
                users.setdefault((grant.action, filled), []).append(login.user)
    names: dict[tuple[str, ...], str] = {}
    access: dict[str, dict[str, str]] = {"publish": {}, "subscribe": {}}
    for (action, topic), listed in users.items():
        who = tuple(dict.fromkeys(listed))
        name = names.setdefault(who, f"mqtt_agent_{len(names) + 1}")
        access[action][topic] = name
        plan.rules.append(Rule(f"access_{action} {topic}: {name}", action, topic, frozenset(who)))
    depth = max(topic.count("/") for _, topic in users)
    plan.files["ejabberd.yml"] = _config(names, access, host, key_file, max(8, depth))
    return plan


def _config(
    names: dict[tuple[str, ...], str], access: dict[str, dict[str, str]], host: str, key_file: str, depth: int
) -> str:
    config: dict[str, Any] = {
        "hosts": [host],
        "auth_method": ["jwt"],
        "jwt_key": key_file,
        "acl": {name: {"user": [f"{user}@{host}" for user in who]} for who, name in names.items()},
        "access_rules": {name: [{"allow": name}] for name in names.values()},
        "modules": {
            "mod_mqtt": {
                "access_publish": access["publish"],
                "access_subscribe": access["subscribe"],
                "max_topic_depth": depth,
            }
        },
    }
    head = (
        "# Made by mqtt-agent acl. Add these keys to ejabberd.yml. JSON is YAML, so the file can be read by ejabberd.\n"
    )
    return head + json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _filled(topic: str, login: Login, own: str) -> str:
    return topic.replace("{self}", "%u" if own == login.user else own)


def _check_users(roster: Roster) -> None:
    seen: dict[str, str] = {}
    for login in roster.logins():
        user = login.user
        bad = [each for each in _FORBIDDEN if each in user]
        if bad:
            raise RosterError(
                f"the user name {user!r} contains {bad[0]!r}, which no user of ejabberd may have; rename the program"
            )
        other = seen.setdefault(user.lower(), user)
        if other != user:
            raise RosterError(
                f"{user!r} and {other!r} are one user for ejabberd, which ignores case; rename one of them"
            )
