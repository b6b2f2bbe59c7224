"""Who may do what at the broker: the roster of a namespace, the rights, and each broker's configuration for them.

A :class:`Roster` names the programs. :data:`RIGHTS` is the only table of rights. :func:`plan_for` makes a broker's
configuration from both, and :meth:`Plan.explain` says which rule decides about an attempt::

    from mqtt_agent.identity import Roster, plan_for

    plan = plan_for("mosquitto-dynsec", Roster.read("roster.toml"))
    print(plan.files["dynamic-security.json"])
    print(plan.explain("agent-a", "publish", "a2a/v1/tasks/agent-b/inbox/agent-a").why)

An :class:`Identity` signs the messages of an endpoint, and proves who has signed those that arrive. It needs the extra
``signed``. An :class:`Audit` keeps a line about each message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mqtt_agent.errors import RosterError
from mqtt_agent.identity.audit import Audit
from mqtt_agent.identity.checking import Difference, differences
from mqtt_agent.identity.cloudsignal import cloudsignal
from mqtt_agent.identity.ejabberd import ejabberd
from mqtt_agent.identity.emqx import client_attributes, emqx
from mqtt_agent.identity.filters import covers, without_share
from mqtt_agent.identity.mosquitto_acl import mosquitto_acl
from mqtt_agent.identity.mosquitto_dynsec import mosquitto_dynsec
from mqtt_agent.identity.passwords import read_passwords
from mqtt_agent.identity.plans import Decision, Plan, Rule
from mqtt_agent.identity.rights import Grant, Profile, Role, allows, grants, roles
from mqtt_agent.identity.rights_table import RIGHTS, Action, Right
from mqtt_agent.identity.roster import EVERYBODY, Kind, Login, Program, Roster
from mqtt_agent.identity.tokens import claims_of, issue

if TYPE_CHECKING:
    from mqtt_agent.identity.keys import PrivateKey, PublicKey, TrustedKeys
    from mqtt_agent.identity.signing import Identity
    from mqtt_agent.identity.statements import Statement, make_statement

__all__ = [
    "BROKERS",
    "EVERYBODY",
    "RIGHTS",
    "Action",
    "Audit",
    "Decision",
    "Difference",
    "Grant",
    "Identity",
    "Kind",
    "Login",
    "Plan",
    "PrivateKey",
    "Profile",
    "Program",
    "PublicKey",
    "Right",
    "Role",
    "Roster",
    "RosterError",
    "Rule",
    "Statement",
    "TrustedKeys",
    "allows",
    "claims_of",
    "client_attributes",
    "cloudsignal",
    "covers",
    "differences",
    "ejabberd",
    "emqx",
    "grants",
    "issue",
    "make_statement",
    "mosquitto_acl",
    "mosquitto_dynsec",
    "plan_for",
    "read_passwords",
    "roles",
    "without_share",
]

BROKERS: dict[str, Callable[..., Plan]] = {
    "mosquitto": mosquitto_acl,
    "mosquitto-dynsec": mosquitto_dynsec,
    "ejabberd": ejabberd,
    "emqx": emqx,
    "cloudsignal": cloudsignal,
}
"""The brokers for which a configuration can be made, by the name that ``mqtt-agent acl --for`` takes."""


def plan_for(broker: str, roster: Roster, profile: Profile = "bound", **options: Any) -> Plan:
    """Make the configuration of a broker.

    Args:
        broker: A name of :data:`BROKERS`.
        roster: The roster.
        profile: ``bound`` for endpoints with ``bound="require"``, or ``mixed`` to allow the plain topics too.
        options: Further arguments of the broker's own function, such as ``passwords`` of :func:`mosquitto_acl`.

    Raises:
        RosterError: The broker is unknown, or cannot hold a name of the roster.
    """
    if broker not in BROKERS:
        raise RosterError(f"no configuration can be made for {broker!r}; use one of {', '.join(BROKERS)}")
    return BROKERS[broker](roster, profile, **options)


def __getattr__(name: str) -> Any:
    # These names need PyNaCl, which a program that only reads a roster does not need.
    if name == "Identity":
        from mqtt_agent.identity.signing import Identity

        return Identity
    if name in ("PrivateKey", "PublicKey", "TrustedKeys"):
        from mqtt_agent.identity import keys

        return getattr(keys, name)
    if name in ("Statement", "make_statement"):
        from mqtt_agent.identity import statements

        return getattr(statements, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
