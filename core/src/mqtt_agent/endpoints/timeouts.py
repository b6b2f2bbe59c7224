"""The default timeouts of calls and tasks, the same in every interface of the project."""

from __future__ import annotations

import math

from mqtt_agent.transport.packing import MAX_SECONDS

__all__ = ["CALL_TIMEOUT", "TASK_TIMEOUT", "checked_seconds"]

CALL_TIMEOUT: float = 60.0
"""Seconds that a tool call may take. A caller waits for each call, so a call that never ends must fail."""
TASK_TIMEOUT: float | None = None
"""Seconds to wait for a task. None is no limit: both agents store the task, so it outlives the process that waits."""


def checked_seconds(seconds: float | None, name: str = "timeout") -> float | None:
    """Return a time that a timer can wait for. A time of 2^32-1 s (136 years) or more becomes None, which is no limit.

    Args:
        seconds: The time; None means no limit.
        name: The name of the time, for the error.

    Raises:
        ValueError: The time is NaN.
    """
    if seconds is None or seconds >= MAX_SECONDS:
        return None
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds or None, not {seconds!r}")
    return seconds
