"""What a server says about tool names that another server has: in its error, and in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, get_args

from mqtt_agent.display.suggestions import counted
from mqtt_agent.errors import ToolNameTaken
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.wire import ServerCard

__all__ = ["OnConflict", "SharedNames", "checked_on_conflict", "listed", "name_taken", "tell_refused"]

logger: logging.Logger = logger_of(__name__)

OnConflict = Literal["raise", "standby"]
"""What a server does about a tool whose name another server has: raise an error, or wait until the name is free."""


def checked_on_conflict(value: str) -> OnConflict:
    """Check a value of ``on_conflict``.

    Raises:
        ValueError: There is no such value.
    """
    if value not in get_args(OnConflict):
        raise ValueError(f"on_conflict is 'raise' or 'standby', not {value!r}")
    return value  # type: ignore[return-value]


def name_taken(scope: Scope, taken: Mapping[str, list[ServerCard]]) -> ToolNameTaken:
    """Make the error about tools whose names other servers have, and write it into the log.

    Args:
        scope: What all parts of the refused server share.
        taken: The tools, each with the cards of the servers that have the name.
    """
    tool, owners = next(iter(taken.items()))
    owner = owners[0].shared_name
    others = [other for other in taken if other != tool]
    also = f" (and also {listed(others)})" if others else ""
    message = (
        f"{tool}: server {scope.name!r} cannot offer this tool, because server {owner!r} ({owners[0].server}) offers"
        f" a tool of this name{also} in namespace {scope.topics.namespace!r}. {_cure(scope.name)}, or wait until"
        f" server {owner!r} is gone with on_conflict='standby'"
    )
    logger.warning("%s", message)
    return ToolNameTaken(message, tool=tool, server=scope.name, owner=owner)


def tell_refused(own: str, owner: str, tools: list[str]) -> None:
    """Log that server ``own`` waits for tools whose names server ``owner`` has."""
    logger.warning(
        "server %r does not serve %s: server %r has %s. Server %r waits until server %r is gone. %s",
        own,
        listed(tools),
        owner,
        "this name" if len(tools) == 1 else "these names",
        own,
        owner,
        _cure(own),
    )


class SharedNames:
    """Logs that two servers serve one tool, once for each pair of servers.

    Args:
        own: The name of the server that tells it.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._told: set[str] = set()

    def tell(self, tool: str, other: ServerCard) -> None:
        """Log that another server serves one of this server's tools."""
        if other.shared_name not in self._told:
            self._told.add(other.shared_name)
            logger.warning(
                "servers %r and %r (%s) both serve tool %r, so a call may reach either of them. %s",
                self._own,
                other.shared_name,
                other.server,
                tool,
                _cure(self._own),
            )


def _cure(server: str) -> str:
    return f"Give the tools of server {server!r} other names, for example with prefix=True"


def listed(tools: list[str]) -> str:
    """The names of the first five tools, for a message."""
    shown = ", ".join(repr(tool)[:80] for tool in tools[:5])
    return shown if len(tools) <= 5 else f"{shown} and {counted(len(tools) - 5, 'more tool')}"
