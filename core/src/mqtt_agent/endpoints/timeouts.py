"""How long callers and requesters wait when they give no timeout: the same in every interface of the project."""

from __future__ import annotations

__all__ = ["CALL_TIMEOUT", "TASK_TIMEOUT"]

CALL_TIMEOUT: float = 60.0
"""Seconds that a tool call may take. Somebody waits for a call, so a call that never ends must fail."""
TASK_TIMEOUT: float | None = None
"""Seconds that a task may take. None is no limit: a task is stored at both ends and outlives the process that waits."""
