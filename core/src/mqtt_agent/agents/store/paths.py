"""The default path of an agent's SQLite file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from platformdirs import user_state_path

from mqtt_agent.wire.identifiers import normalize_namespace, validate_identifier

__all__ = ["default_store_path"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_READABLE = 40


def default_store_path(namespace: str, agent_id: str) -> Path:
    """The path of the file for one agent's tasks, in the user's state directory.

    The file's name contains the namespace and the agent id, shortened and without unsafe characters. Two agents may
    have this part in common, and some file systems ignore case. So the name ends with a hash of the full names.

    Raises:
        InvalidIdentifier: The namespace or the agent id cannot be used in topics.
    """
    namespace = normalize_namespace(namespace)
    validate_identifier(agent_id, "agent id")
    digest = hashlib.sha256(f"{namespace}/{agent_id}".encode()).hexdigest()[:16]
    readable = "-".join(_UNSAFE.sub("-", name)[:_READABLE] for name in (namespace, agent_id))
    return user_state_path("mqtt-agent", appauthor=False) / f"{readable}-{digest}.db"
