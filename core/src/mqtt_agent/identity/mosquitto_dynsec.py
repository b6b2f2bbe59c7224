"""Mosquitto with the plugin for dynamic security: the JSON file of the plugin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mqtt_agent.errors import RosterError
from mqtt_agent.identity.filters import without_share
from mqtt_agent.identity.passwords import ITERATIONS, hashed_of
from mqtt_agent.identity.plans import PLAIN_NOTE, Plan, Rule
from mqtt_agent.identity.rights import Grant, Profile, Role, roles
from mqtt_agent.identity.rights_table import Action
from mqtt_agent.identity.roster import Login, Roster

__all__ = ["mosquitto_dynsec"]

_NOTES = (
    "The file has no administrator. Add one with mosquitto_ctrl dynsec, or give the plugin a new file and restart the"
    " broker after each change of the roster.",
    "A client without a password cannot log in: give --passwords, or use mosquitto_ctrl dynsec setClientPassword.",
)
_CONF = """\
allow_anonymous false
plugin {plugin}
plugin_opt_config_file {folder}/dynamic-security.json
"""


def mosquitto_dynsec(
    roster: Roster,
    profile: Profile = "bound",
    *,
    passwords: Mapping[str, str] | None = None,
    variables: bool = False,
    folder: str = "/etc/mosquitto/mqtt-agent",
    plugin: str = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so",
) -> Plan:
    """Make the file of Mosquitto's plugin for dynamic security.

    Subscriptions with wildcards over the names of others are denied, and each user name is bound to one client id.

    Args:
        roster: The roster.
        profile: ``bound``, or ``mixed`` to allow the plain topics too.
        passwords: The passwords by user name. Logins without one cannot connect until they get one.
        variables: Whether the plugin knows ``%u`` and ``%c``: True from Mosquitto 2.1 on. Then all logins with the same
            rights share one role. For Mosquitto 2.0, each login gets a role of its own.
        folder: Where the file will stand, for ``mosquitto.conf``.
        plugin: The path of the plugin, for ``mosquitto.conf``.

    Raises:
        RosterError: ``passwords`` lacks a login.
    """
    plan = Plan("mosquitto-dynsec", roster, profile)
    if variables:
        plan.variables = {"%u": lambda login: login.user, "%c": lambda login: login.client_id}
    plan.notes += [*_NOTES[: 1 if passwords else 2], *([PLAIN_NOTE] if profile == "mixed" else [])]
    roles_json: list[dict[str, Any]] = []
    clients: list[dict[str, Any]] = []
    for role in roles(roster, profile):
        parts = [(role.name, role.logins)] if variables else [(each.user, (each,)) for each in role.logins]
        for name, logins in parts:
            topics: list[tuple[Action, str]] = [
                (each.action, _topic(each, role, logins, variables)) for each in role.grants
            ]
            roles_json.append({"rolename": name, "acls": _acls(topics)})
            users = frozenset(each.user for each in logins)
            for action, topic in topics:
                plan.rules.append(Rule(f"{_rule_type(action, topic)} {topic} (role {name})", action, topic, users))
            clients += [_client(each, name, passwords) for each in logins]
    content = {
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": clients,
        "groups": [],
        "roles": roles_json,
    }
    plan.files = {
        "dynamic-security.json": json.dumps(content, indent=2, ensure_ascii=False) + "\n",
        "mosquitto.conf": _CONF.format(folder=folder, plugin=plugin),
    }
    return plan


def _topic(grant: Grant, role: Role, logins: tuple[Login, ...], variables: bool) -> str:
    if not variables or "{self}" not in grant.topic:
        return grant.filled(logins[0])
    if all(grant.own_name(each) == each.user for each in logins):
        return grant.topic.replace("{self}", "%u")
    if all(grant.own_name(each) == each.client_id for each in logins):
        return grant.topic.replace("{self}", "%c")
    if len({grant.own_name(each) for each in logins}) == 1:
        return grant.filled(logins[0])
    raise RosterError(
        f"the programs of role {role.name} host tool servers, and neither %u nor %c is the id of such a server;"
        " make the file for Mosquitto 2.0"
    )


def _rule_type(action: Action, topic: str) -> str:
    if action == "publish":
        return "publishClientSend"
    return "subscribePattern" if "+" in topic or "#" in topic or "%" in topic else "subscribeLiteral"


def _acls(topics: Iterable[tuple[Action, str]]) -> list[dict[str, Any]]:
    """The entries of a role. Who may subscribe may also receive."""
    entries: dict[tuple[str, str], None] = {}
    for action, topic in topics:
        entries[_rule_type(action, topic), topic] = None
        if action == "subscribe":
            entries["publishClientReceive", without_share(topic)] = None
    return [{"acltype": kind, "topic": topic, "priority": 0, "allow": True} for kind, topic in entries]


def _client(login: Login, role: str, passwords: Mapping[str, str] | None) -> dict[str, Any]:
    client: dict[str, Any] = {
        "username": login.user,
        **({"clientid": login.client_id} if login.binds_client_id else {}),
        "textname": f"{login.program.kind} {login.program.name}",
        "roles": [{"rolename": role}],
    }
    if passwords is not None:
        salt, digest = hashed_of(login.user, passwords)
        client |= {"salt": salt, "password": digest, "iterations": ITERATIONS}
    return client
