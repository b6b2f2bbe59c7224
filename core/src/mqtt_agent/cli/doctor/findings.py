"""What the doctor says: findings, each with a level and with what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mqtt_agent.display.suggestions import counted

__all__ = ["Finding", "Level", "listed"]

Level = Literal["ok", "note", "warning", "wrong"]
"""How bad a finding is. ``note`` is worth to know, ``warning`` may hurt later, ``wrong`` does not work now."""

_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One result of the examination.

    Attributes:
        check: What was examined: ``broker``, ``login``, ``rights``, ``open``, ``limits``, ``names``, ``cards``,
            ``clocks`` or ``sessions``.
        level: How bad the finding is.
        message: What was found, and what follows from it.
        next: What to do; None when there is nothing to do.
    """

    check: str
    level: Level
    message: str
    next: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding for machines, without empty fields."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def listed(names: list[str]) -> str:
    """The first names of a list, and how many others there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {counted(len(names) - _SHOWN, 'other')}"
