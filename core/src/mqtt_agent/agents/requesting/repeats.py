"""Limits how often a task is sent again because of messages that anybody may write."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Repeats"]

_FIRST, _MAX = 5.0, 300.0
"""Seconds until a task may be sent again: after the first time, and at most. A peer is asked again after 10 s."""
_MOST = 10_000
"""How many tasks are remembered. The oldest are forgotten."""


@dataclass(slots=True)
class _Repeat:
    """When a task may be sent again, in loop time; and the length of the present interval, in seconds."""

    due: float
    interval: float


class Repeats:
    """Lets each task be sent again at once, then after 5 s, and then after intervals that double up to 300 s.

    A task that was left alone for as long as its latest interval begins anew.
    """

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, _Repeat] = OrderedDict()

    def may(self, task_id: str, now: float) -> bool:
        """Whether a task may be sent again now. This counts as a time, if it may.

        Args:
            task_id: The task's id.
            now: The present loop time.
        """
        known = self._tasks.get(task_id)
        if known is not None and now < known.due:
            return False
        anew = known is None or now >= known.due + known.interval
        interval = _FIRST if anew or known is None else min(_MAX, 2 * known.interval)
        self._tasks[task_id] = _Repeat(now + interval, interval)
        self._tasks.move_to_end(task_id)
        if len(self._tasks) > _MOST:
            self._tasks.popitem(last=False)
        return True
