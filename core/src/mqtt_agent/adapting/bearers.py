"""Who speaks over HTTP, and as whom: each bearer token, or other proof, stands for an agent id at the MQTT side."""

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

__all__ = [
    "SPEAKS_FOR_OTHERS",
    "Identity",
    "by_bearer",
    "check_distinct",
    "identity_of",
    "is_loopback",
    "read_identities",
]

SPEAKS_FOR_OTHERS: str = "mqtt-agent/speaks-for-others"
"""The key in the ``meta`` of the card of an agent that speaks for callers of another protocol, and does no tasks."""
_PROOFS = ("bearer", "api_key", "basic", "subject", "certificate")
"""The attributes of an identity that prove who calls."""


@dataclass(frozen=True)
class Identity:
    """A caller at the HTTP side.

    Attributes:
        agent_id: The agent id of the caller at the MQTT side, where it is the sender of the caller's tasks and calls.
        bearer: The bearer token of the caller; None for every caller, at the loopback address only.
        credentials: How the caller's connection logs in at the broker; None means as the program itself.
        client_id: The MQTT client id of the caller's connection, for a broker that binds client ids to logins; None
            makes a new id.
        api_key: The API key of the caller.
        basic: The name and the password of the caller for HTTP's basic authentication, as ``name:password``.
        subject: The name of the caller in the tokens of an issuer.
        certificate: The common name in the caller's TLS certificate.
    """

    agent_id: str
    bearer: str | None = field(default=None, repr=False)
    credentials: Credentials | None = None
    client_id: str | None = None
    api_key: str | None = field(default=None, repr=False)
    basic: str | None = field(default=None, repr=False)
    subject: str | None = None
    certificate: str | None = None

    def __post_init__(self) -> None:
        validate_identifier(self.agent_id, "agent id")
        for what, secret in (("bearer token", self.bearer), ("API key", self.api_key)):
            if secret is not None and (not secret or not secret.isascii() or " " in secret):
                raise ValueError(f"the {what} of {self.agent_id} is empty, or has a space, or a character beyond ASCII")
        if self.basic is not None and not all(self.basic.partition(":")):
            raise ValueError(f"the basic authentication of {self.agent_id} must have the form name:password")
        if "" in (self.subject, self.certificate):
            raise ValueError(f"the subject or the certificate of {self.agent_id} is empty")

    @property
    def proofs(self) -> dict[str, str]:
        """What proves that a caller is this identity, by the names of the attributes; empty for every caller."""
        known = {name: getattr(self, name) for name in _PROOFS}
        return {name: proof for name, proof in known.items() if proof is not None}


def by_bearer(identities: Sequence[Identity]) -> dict[bytes, Identity]:
    """The identities by the digest of their tokens, so that the time of a look-up tells nothing about a token.

    Raises:
        ValueError: Two identities have one agent id, one client id or one token, or one of several identities has no
            token.
    """
    check_distinct(identities)
    if any(each.bearer is None and each.proofs for each in identities):  # else it would stand for every caller
        raise ValueError("only bearer tokens prove here who calls, and an identity has another proof and no token")
    return {_digest_of(each.bearer or ""): each for each in identities}


def check_distinct(identities: Sequence[Identity]) -> None:
    """Check that identities can be told apart.

    Raises:
        ValueError: Two identities have one agent id, one client id or one proof, or one of several identities has no
            proof.
    """
    for what in ("agent id", "client id"):
        names = [name for each in identities if (name := getattr(each, what.replace(" ", "_"))) is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"two identities have the same {what}")
    if not identities or (len(identities) > 1 and not all(each.proofs for each in identities)):
        raise ValueError("there must be one identity, or several identities with a bearer token each, or another proof")
    owners: dict[tuple[str, str], str] = {}
    for each in identities:
        for kind, proof in each.proofs.items():
            other = owners.setdefault((kind, proof), each.agent_id)
            if other != each.agent_id:
                what = {"bearer": "bearer token", "api_key": "API key"}.get(kind, kind)
                raise ValueError(f"{each.agent_id} and {other} have the same {what}")


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

    Instead of ``bearer``, or beside it, there may be ``api_key``, ``basic``, ``subject`` and ``certificate``; see
    :class:`Identity`.
    ``user`` and ``password`` are the login at the broker; without them the program's own login is used.
    ``client_id`` is the MQTT client id, for a broker that binds client ids to logins.

    Raises:
        ValueError: The file is no such JSON.
        OSError: The file cannot be read.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in cast("Any", value).values()):
        raise ValueError(f'{path} must hold a JSON object such as {{"alice": {{"bearer": "..."}}}}')
    found = list[Identity]()
    for agent_id, each in cast("dict[str, dict[str, Any]]", value).items():
        proofs = {name: each[name] for name in _PROOFS if name in each}
        if not proofs or not all(isinstance(proof, str) for proof in proofs.values()):
            raise ValueError(f"{path}: {agent_id} has no bearer token, and no other proof of {', '.join(_PROOFS[1:])}")
        login = Password(str(each.get("user", agent_id)), str(each["password"])) if "password" in each else None
        client_id = str(each["client_id"]) if "client_id" in each else None
        found.append(Identity(agent_id, credentials=login, client_id=client_id, **proofs))
    return found
