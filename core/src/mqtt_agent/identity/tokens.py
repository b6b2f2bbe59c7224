"""Makes JSON Web Tokens with the claims of a login."""

from __future__ import annotations

import importlib
import time
import uuid
from typing import Any

from mqtt_agent.errors import RosterError
from mqtt_agent.identity.emqx import client_attributes
from mqtt_agent.identity.rights import Profile
from mqtt_agent.identity.roster import Login, Roster

__all__ = ["claims_of", "issue"]


def claims_of(
    roster: Roster, login: Login, *, lifetime: float, host: str = "localhost", profile: Profile = "bound"
) -> dict[str, Any]:
    """The claims of a token for a login.

    They are ``agent_id``, ``server_id``, ``tool_id``, ``user_id`` and ``org_id`` as far as the login has them (spec);
    ``sub``, ``iat``, ``exp`` and ``jti`` of JWT; and what single brokers need (ours): ``username`` and ``client_id``,
    ``jid`` for ejabberd, ``client_attrs`` for EMQX. A token that all members of a pool share has no ``client_id``,
    because each member has a client id of its own.

    Args:
        roster: The roster.
        login: Whose token it is.
        lifetime: Seconds until the token expires.
        host: ejabberd's virtual host, for the claim ``jid``.
        profile: The profile of the rules, for ``client_attrs``.
    """
    now = int(time.time())
    return {
        **login.claims,
        "sub": login.user,
        "iat": now,
        "exp": now + int(lifetime),
        "jti": uuid.uuid4().hex,
        "username": login.user,
        **({"client_id": login.client_id} if login.binds_client_id else {}),
        "jid": f"{login.user}@{host}",
        "client_attrs": client_attributes(roster, login, profile),
    }


def issue(claims: dict[str, Any], key: str | bytes, algorithm: str = "HS256", *, key_id: str | None = None) -> str:
    r"""Sign claims as a JSON Web Token.

    Example:
        >>> roster = Roster.parse('[programs.planner]\nkind = "agent"')
        >>> token = issue(claims_of(roster, roster.login("planner"), lifetime=3600), "k" * 32)
        >>> token.count(".")
        2

    Args:
        claims: The claims; see :func:`claims_of`.
        key: The secret of HS256, of at least 32 bytes, or a private key in PEM for the other algorithms.
        algorithm: ``HS256``, ``RS256``, ``ES256`` or ``EdDSA``. All but the first need the package ``cryptography``.
        key_id: The ``kid`` of the header, for a broker with several keys.

    Raises:
        RosterError: The key does not fit the algorithm.
        ImportError: The package ``pyjwt`` is missing.
    """
    try:
        jwt: Any = importlib.import_module("jwt")
    except ImportError as error:
        raise ImportError("tokens need PyJWT: pip install 'mqtt-agent[identity]'") from error
    secret = key.encode() if isinstance(key, str) else key
    if algorithm.startswith("HS") and len(secret) < 32:
        raise RosterError(f"the secret has {len(secret)} bytes; make 32 with: openssl rand -hex 32")
    try:
        return jwt.encode(claims, secret, algorithm=algorithm, headers=None if key_id is None else {"kid": key_id})
    except (jwt.exceptions.PyJWTError, NotImplementedError, TypeError, ValueError) as error:
        raise RosterError(
            f"the key does not fit {algorithm}: {error}; give a private key in PEM, and install cryptography"
        ) from error
