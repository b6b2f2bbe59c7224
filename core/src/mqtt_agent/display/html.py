"""The pieces of what a notebook shows.

All that comes from the network is escaped and shortened: the author of a card must not get a script into the browser of
whoever looks at it.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

__all__ = ["ROUND", "Table", "card", "colour_of", "coloured", "duration", "escaped", "one_line", "table"]

_LONGEST = 300
_MOST_ROWS = 200

# As dark as they are light: they stand on the white of a notebook as well as on the near black of its dark theme.
_GREY = "#757e8a"  # offline, canceled, submitted, and what we do not know
_COLOURS = {
    **dict.fromkeys(("online", "completed"), "#1d903e"),
    **dict.fromkeys(("failed", "rejected"), "#e14752"),
    **dict.fromkeys(("input-required", "auth-required"), "#a87700"),
    "working": "#147bf5",
}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
_MUTED = "opacity:.7"
ROUND = "height:8px;border-radius:4px"
"""The style of a bar."""

T = TypeVar("T")


class Table(list[T], ABC):
    """A list that a notebook shows as a table; in everything else it is the list that it is."""

    _what: ClassVar[str]
    _columns: ClassVar[Sequence[str]]

    @abstractmethod
    def _row(self, item: T) -> Sequence[str]:
        """What stands in each column, as HTML."""

    def _repr_html_(self) -> str:
        if not self:
            return f"<i>no {self._what}s</i>"
        shown = table(self._columns, [self._row(item) for item in self[:_MOST_ROWS]])
        more = f"<i>and {len(self) - _MOST_ROWS:,} more</i>" if len(self) > _MOST_ROWS else ""
        return shown + more


def card(name: str, state: str, text: str, hints: Iterable[str], body: str = "", bar: str = "") -> str:
    """Something that has a name and a state.

    Args:
        name: What it is called, as text.
        state: Where it stands, as text.
        text: What it says of itself, as text.
        hints: Short remarks, as HTML.
        body: What stands below, as HTML.
        bar: What stands right behind the state, as HTML.
    """
    described = f"<div>{escaped(text)}</div>" if text else ""
    return (
        f"<div><b>{escaped(name)}</b> {coloured(state)}{bar}{described}"
        f'<div style="font-size:90%;{_MUTED}">{" &middot; ".join(hints)}</div>{body}</div>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML."""
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL};max-width:40em">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def colour_of(state: str) -> str:
    """The CSS colour of a state."""
    return _COLOURS.get(state, _GREY)


def coloured(state: str) -> str:
    """A state in its colour."""
    return f'<span style="color:{colour_of(state)}">&#9679; {escaped(state)}</span>'


def escaped(value: object) -> str:
    """The HTML of one line of text."""
    return html.escape(one_line(str(value)))


def one_line(text: str, longest: int = _LONGEST) -> str:
    """The text in one line, not too long, with nothing in it that a terminal obeys."""
    text = text[: longest + 1]
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def duration(seconds: float) -> str:
    """Seconds as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
