"""Chooses the agent id of a program when the user gave no agent id. Each run of the program gets the same id."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import sys
import uuid
from pathlib import Path
from typing import IO, Any

from mqtt_agent.agents.store import default_store_path
from mqtt_agent.aio.forks import in_child
from mqtt_agent.logs import logger_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["default_agent_id"]

logger: logging.Logger = logger_of(__name__)

_held: dict[str, IO[Any]] = {}


@in_child
def _let_go() -> None:
    # The parent process keeps the locks. With these copies open, the locks would outlive the parent.
    for lock in _held.values():
        lock.close()
    _held.clear()


def default_agent_id(namespace: str, part: str = "") -> tuple[str, bool]:
    """Choose a name that is the same each time this program runs on this machine, to find its tasks again.

    While another process of the same program uses this name, or when the name cannot be locked, choose a new random
    name.

    Args:
        namespace: The prefix of all topics.
        part: The part of the program that gets a name of its own; empty for the program itself.

    Returns:
        The name, and whether the next run of the program gets the same name.
    """
    program = Path(sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c") else sys.executable)
    place = f"{_user()}@{socket.gethostname()}:{program.absolute()}"
    readable = part or re.sub(r"[^A-Za-z0-9]+", "-", program.stem).strip("-")[:24] or "python"
    name = f"{readable}-{hashlib.sha256((place + part).encode()).hexdigest()[:10]}"
    if _hold(default_store_path(namespace, name).with_suffix(".lock")):
        return name, True
    fresh = f"{readable}-{uuid.uuid4().hex[:10]}"
    logger.info(
        "agent id %s is in use by another process of %s, or its lock file cannot be locked; so this process runs as "
        "agent %s, and no later process can resume its tasks: set an agent_id to change this",
        name,
        program,
        fresh,
    )
    return fresh, False


def _user() -> str:
    import getpass  # only a program without an agent_id needs this module, which imports modules for terminals

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _hold(path: Path) -> bool:
    """Lock a file for the life of this process. False when another process has the lock, or files cannot be locked."""
    if str(path) in _held:
        return True
    if fcntl is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        logger.info("the lock file %s cannot be opened: %s", path, error)
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return False
    _held[str(path)] = lock
    return True
