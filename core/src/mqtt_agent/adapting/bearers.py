"""Who speaks over HTTP, and as whom: each bearer token stands for an agent id at the MQTT side."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mqtt_agent.transport import Credentials, Password
from mqtt_agent.wire import validate_identifier

__all__ = ["SPEAKS_FOR_OTHERS", "Identity", "by_bearer", "identity_of", "is_loopback", "read_identities"]

SPEAKS_FOR_OTHERS: str = "mqtt-agent/speaks-for-others"
"""The key in the ``meta`` of the card of an agent that speaks for callers of another protocol, and does no tasks."""


@dataclass(frozen=True)
class Identity:
    """A caller at the HTTP side.

    Attributes:
        agent_id: The agent id of the caller at the MQTT side, where it is the sender of the caller's tasks and calls.
        bearer: The bearer token of the caller; None for every caller, at the loopback address only.
        credentials: How the caller's connection logs in at the broker; None means as the program itself.
        client_id: The MQTT client id of the caller's connection, for a broker that binds client ids to logins; None
            makes a new id.
    """

    agent_id: str
    bearer: str | None = field(default=None, repr=False)
    credentials: Credentials | None = None
    client_id: str | None = None

    def __post_init__(self) -> None:
        validate_identifier(self.agent_id, "agent id")
        if self.bearer is not None and (not self.bearer or not self.bearer.isascii() or " " in self.bearer):
            raise ValueError(
                f"the bearer token of {self.agent_id} is empty, or has a space, or a character beyond ASCII"
            )


def by_bearer(identities: Sequence[Identity]) -> dict[bytes, Identity]:
    """The identities by the digest of their tokens, so that the time of a look-up tells nothing about a token.

    Raises:
        ValueError: Two identities have one agent id, one client id or one token, or one of several identities has no
            token.
    """
    found: dict[bytes, Identity] = {}
    for what in ("agent id", "client id"):
        names = [name for each in identities if (name := getattr(each, what.replace(" ", "_"))) is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"two identities have the same {what}")
    if not identities or (len(identities) > 1 and any(each.bearer is None for each in identities)):
        raise ValueError("there must be one identity, or several identities with a bearer token each")
    for each in identities:
        digest = _digest_of(each.bearer or "")
        if digest in found:
            raise ValueError(f"{each.agent_id} and {found[digest].agent_id} have the same bearer token")
        found[digest] = each
    return found


def identity_of(identities: Mapping[bytes, Identity], authorization: str) -> Identity | None:
    """The identity of a caller; None when the caller must not speak.

    Args:
        identities: The identities by the digests of their tokens; see :func:`by_bearer`.
        authorization: The caller's ``Authorization`` header; empty when there is none.
    """
    without_token = identities.get(_digest_of(""))
    if without_token is not None:  # one caller without a token, at the loopback address
        return without_token
    scheme, _, token = authorization.partition(" ")
    return identities.get(_digest_of(token.strip())) if scheme.lower() == "bearer" and token.strip() else None


def _digest_of(bearer: str) -> bytes:
    return hashlib.sha256(bearer.encode(errors="surrogatepass")).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_identities(path: Path) -> list[Identity]:
    """Read a file of identities: ``{"alice": {"bearer": "...", "user": "...", "password": "..."}}``.

    ``user`` and ``password`` are the login at the broker; without them the program's own login is used.
    ``client_id`` is the MQTT client id, for a broker that binds client ids to logins.

    Raises:
        ValueError: The file is no such JSON.
        OSError: The file cannot be read.
    """
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in cast("Any", value).values()):
        raise ValueError(f'{path} must hold a JSON object such as {{"alice": {{"bearer": "..."}}}}')
    found = list[Identity]()
    for agent_id, each in cast("dict[str, dict[str, Any]]", value).items():
        if not isinstance(each.get("bearer"), str):
            raise ValueError(f"{path}: {agent_id} has no bearer token")
        login = Password(str(each.get("user", agent_id)), str(each["password"])) if "password" in each else None
        client_id = str(each["client_id"]) if "client_id" in each else None
        found.append(Identity(agent_id, each["bearer"], login, client_id))
    return found
