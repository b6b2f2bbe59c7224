"""Building blocks for the HTML that a notebook shows: cards, tables, states in colour.

Text from the network is escaped and shortened: the author of a card must not be able to run a script in the browser of
a person who looks at the card.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, TypeVar

from mqtt_agent.display.lacking import first_few

__all__ = ["ROUND", "Table", "card", "colour_of", "coloured", "duration", "escaped", "one_line", "table"]

_LONGEST = 300
_MOST_ROWS = 200

# The colours have medium brightness. They can be read on white and on the dark theme of a notebook.
_GREY = "#757e8a"  # offline, canceled, submitted, and unknown states
_COLOURS = {
    **dict.fromkeys(("online", "completed"), "#1d903e"),
    **dict.fromkeys(("failed", "rejected"), "#e14752"),
    **dict.fromkeys(("input-required", "auth-required"), "#a87700"),
    "working": "#147bf5",
}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
_MUTED = "opacity:.7"
ROUND: str = "height:8px;border-radius:4px"
"""The CSS of a progress bar."""

T = TypeVar("T")


class Table(list[T], ABC):
    """A list that a notebook shows as a table. In all other respects it is an ordinary list.

    Args:
        items: The entries.
        incomplete: What the list lacks and why, one sentence for each reason.
        missing: Whose entries the list lacks, by name, each with the reason.

    Attributes:
        incomplete: What the list lacks and why, one sentence for each reason. Empty when the list is whole.
        missing: The servers or agents whose entries the list lacks, by name, each with the reason.
    """

    _what: ClassVar[str]
    _columns: ClassVar[Sequence[str]]

    def __init__(
        self, items: Iterable[T] = (), incomplete: Iterable[str] = (), missing: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(items)
        self.incomplete: list[str] = list(incomplete)
        self.missing: dict[str, str] = dict(missing or {})

    @abstractmethod
    def _row(self, item: T) -> Sequence[str]:
        """The cells of one row, as HTML."""

    def _repr_html_(self) -> str:
        lacks = "".join(f"<div><i>incomplete: {escaped(each)}</i></div>" for each in first_few(self.incomplete))
        if not self:
            return f"<i>no {self._what}s</i>{lacks}"
        shown = table(self._columns, [self._row(item) for item in self[:_MOST_ROWS]])
        more = f"<i>and {len(self) - _MOST_ROWS:,} more</i>" if len(self) > _MOST_ROWS else ""
        return shown + more + lacks


def card(name: str, state: str, text: str, hints: Iterable[str], body: str = "", bar: str = "") -> str:
    """The HTML of a tool, an agent, a task or another object with a name and a state.

    Args:
        name: The name, as plain text.
        state: The state, as plain text.
        text: The description, as plain text.
        hints: Short remarks, as HTML.
        body: What is shown below, as HTML.
        bar: What is shown after the state, such as a progress bar, as HTML.
    """
    described = f"<div>{escaped(text)}</div>" if text else ""
    return (
        f"<div><b>{escaped(name)}</b> {coloured(state)}{bar}{described}"
        f'<div style="font-size:90%;{_MUTED}">{" &middot; ".join(hints)}</div>{body}</div>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The HTML of a table, from column titles and cells that are HTML already."""
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL};max-width:40em">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def colour_of(state: str) -> str:
    """The CSS colour of a state."""
    return _COLOURS.get(state, _GREY)


def coloured(state: str) -> str:
    """The HTML of a state in its colour."""
    return f'<span style="color:{colour_of(state)}">&#9679; {escaped(state)}</span>'


def escaped(value: object) -> str:
    """The HTML of a value's text, shortened to one line."""
    return html.escape(one_line(str(value)))


def one_line(text: str, longest: int = _LONGEST) -> str:
    """The text in one line of at most ``longest`` characters, without control characters that a terminal would obey."""
    text = text[: longest + 1]
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def duration(seconds: float) -> str:
    """Seconds in a form for people, for example ``2 min 05 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
