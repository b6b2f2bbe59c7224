"""Where something is shown while it changes."""

from __future__ import annotations

import sys
from typing import Any

from mqtt_agent.display.tasks import TaskView

__all__ = ["Screen", "find_shell"]


class Screen:
    """Where a task is shown while it changes: one place in a notebook, line after line in a terminal."""

    def __init__(self) -> None:
        ipython = find_shell()
        self._notebook = ipython is not None and hasattr(ipython, "kernel")
        self._place: Any = None
        self._last: tuple[object, ...] | None = None

    def draw(self, view: TaskView) -> None:
        """Show the task as it is now."""
        if not self._notebook:
            if view.news != self._last:
                print(view, flush=True)  # noqa: T201 - that is what show() is for
            self._last = view.news
        elif self._place is None:
            self._place = sys.modules["IPython"].display.display(view, display_id=True)
        else:
            self._place.update(view)


def find_shell() -> Any:
    """IPython's shell, when this runs in one."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
