"""Endpoints of one name in one process, as when a notebook cell runs twice: the second one goes on."""

from __future__ import annotations

from weakref import WeakValueDictionary

from mqtt_agent.errors import SessionTakenOver

__all__ = ["begins_here", "taken_over"]

_here: WeakValueDictionary[tuple[str, str], object] = WeakValueDictionary()
"""What this process has started, by its name and the time at which it began."""


def begins_here(owner: object, name: str, began: str) -> None:
    """Note that this process starts an endpoint.

    Args:
        owner: An object that lives as long as the endpoint.
        name: The agent id or server id.
        began: When the endpoint began, as its card or status says; ISO 8601 UTC.
    """
    _here[name, began] = owner


def taken_over(name: str, what: str, since: str, advice: str) -> SessionTakenOver:
    """The error of an endpoint whose name is used by another endpoint that began later.

    Args:
        name: The agent id or server id.
        what: The endpoint, for people: ``agent 'researcher'``.
        since: When the other endpoint began, as its card or status says.
        advice: What to do when another process uses the name.
    """
    if (name, since) in _here:
        return SessionTakenOver(
            f"this process has started {what} a second time, and the second object goes on: call stop() before you "
            "start the same name again, for example in a notebook cell that runs twice"
        )
    return SessionTakenOver(f"another process runs as {what} since {since}: {advice}")
