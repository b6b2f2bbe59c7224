"""The default timeouts of calls and tasks, the same in every interface of the project."""

from __future__ import annotations

__all__ = ["CALL_TIMEOUT", "TASK_TIMEOUT"]

CALL_TIMEOUT: float = 60.0
"""Seconds that a tool call may take. A caller waits for each call, so a call that never ends must fail."""
TASK_TIMEOUT: float | None = None
"""Seconds to wait for a task. None is no limit: both agents store the task, so it outlives the process that waits."""
