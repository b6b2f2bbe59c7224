"""Shows a task while it changes: in one place of a notebook, or line after line in a terminal."""

from __future__ import annotations

import sys
from typing import Any

from mqtt_agent.display.tasks import TaskView

__all__ = ["Screen", "find_shell"]


class Screen:
    """Shows one task while it changes. A notebook redraws the task in place. A terminal gets a line for each change."""

    def __init__(self) -> None:
        ipython = find_shell()
        self._notebook = ipython is not None and hasattr(ipython, "kernel")
        self._place: Any = None
        self._last: tuple[object, ...] | None = None

    def draw(self, view: TaskView) -> None:
        """Show the task in its present state."""
        if not self._notebook:
            if view.news != self._last:
                print(view, flush=True)  # noqa: T201 - show() is meant to print
            self._last = view.news
        elif self._place is None:
            self._place = sys.modules["IPython"].display.display(view, display_id=True)
        else:
            self._place.update(view)


def find_shell() -> Any:
    """The IPython shell that this process runs in, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
