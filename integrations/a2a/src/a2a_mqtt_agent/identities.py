"""Who speaks over HTTP, and as whom: each bearer token stands for an agent id at the MQTT side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mqtt_agent.transport import Credentials, Password
from mqtt_agent.wire import validate_identifier

__all__ = ["Identity", "by_bearer", "read_identities"]


@dataclass(frozen=True)
class Identity:
    """A caller at the HTTP side.

    Attributes:
        agent_id: The agent id of the caller at the MQTT side, where it is the sender of all tasks of the caller.
        bearer: The bearer token of the caller; None for every caller, at the loopback address only.
        credentials: How the caller's connection logs in at the broker; None means as the gateway itself.
    """

    agent_id: str
    bearer: str | None = field(default=None, repr=False)
    credentials: Credentials | None = None

    def __post_init__(self) -> None:
        validate_identifier(self.agent_id, "agent id")
        if self.bearer is not None and (not self.bearer or not self.bearer.isascii() or " " in self.bearer):
            raise ValueError(
                f"the bearer token of {self.agent_id} is empty, or has a space, or a character beyond ASCII"
            )


def by_bearer(identities: Sequence[Identity]) -> dict[bytes, Identity]:
    """The identities by the digest of their tokens, so that the time of a look-up tells nothing about a token.

    Raises:
        ValueError: Two identities have one agent id or one token, or one of several identities has no token.
    """
    found: dict[bytes, Identity] = {}
    names = [each.agent_id for each in identities]
    if len(set(names)) < len(names):
        raise ValueError("two identities have the same agent id")
    if not identities or (len(identities) > 1 and any(each.bearer is None for each in identities)):
        raise ValueError("there must be one identity, or several identities with a bearer token each")
    for each in identities:
        digest = digest_of(each.bearer or "")
        if digest in found:
            raise ValueError(f"{each.agent_id} and {found[digest].agent_id} have the same bearer token")
        found[digest] = each
    return found


def digest_of(bearer: str) -> bytes:
    """The digest of a token."""
    return hashlib.sha256(bearer.encode(errors="surrogatepass")).digest()


def read_identities(path: Path) -> list[Identity]:
    """Read a file of identities: ``{"alice": {"bearer": "...", "user": "...", "password": "..."}}``.

    ``user`` and ``password`` are the login at the broker; without them the gateway's own login is used.

    Raises:
        ValueError: The file is no such JSON.
        OSError: The file cannot be read.
    """
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
        raise ValueError(f'{path} must hold a JSON object such as {{"alice": {{"bearer": "..."}}}}')
    found = list[Identity]()
    for agent_id, each in value.items():
        if not isinstance(each.get("bearer"), str):
            raise ValueError(f"{path}: {agent_id} has no bearer token")
        login = Password(str(each.get("user", agent_id)), str(each["password"])) if "password" in each else None
        found.append(Identity(agent_id, each["bearer"], login))
    return found
