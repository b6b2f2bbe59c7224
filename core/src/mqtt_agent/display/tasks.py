"""How a task is shown in a notebook and in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mqtt_agent.display.html import ROUND, Table, card, colour_of, coloured, duration, escaped, one_line

__all__ = ["TaskList", "TaskView"]

_BAR = 20


class _Progress(Protocol):
    @property
    def progress(self) -> float | None: ...
    @property
    def total(self) -> float | None: ...


class _Handle(Protocol):
    """What a task handle must offer so that its task can be shown."""

    @property
    def task_id(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def state(self) -> object: ...
    @property
    def attempt(self) -> int | None: ...
    @property
    def queued(self) -> bool: ...
    @property
    def elapsed(self) -> float: ...
    @property
    def progress(self) -> _Progress | None: ...
    @property
    def message(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def question(self) -> object | None: ...


H = TypeVar("H", bound=_Handle)


@dataclass(frozen=True)
class TaskView:
    """A snapshot of a task, for display.

    Attributes:
        task_id: The id of the task.
        peer: The agent that the task was given to.
        state: The state of the task.
        attempt: The number of the peer's present attempt, if known.
        queued: Whether the task waits for a peer that is offline.
        elapsed: Seconds from the delegation until now, or until the end of the task.
        progress: How much is done, from the peer's latest report.
        total: How much there is to do, if known.
        message: The peer's latest text: what it does now, what it asks, or why it failed.
        over: Whether the task has ended.
        asks: Whether the peer waits for an answer to a question.
    """

    task_id: str
    peer: str
    state: str
    attempt: int | None
    queued: bool
    elapsed: float
    progress: float | None
    total: float | None
    message: str
    over: bool
    asks: bool

    @classmethod
    def of(cls, handle: _Handle) -> TaskView:
        """Take a snapshot of the task of a handle."""
        report = handle.progress
        return cls(
            task_id=handle.task_id,
            peer=handle.peer,
            state=str(handle.state),
            attempt=handle.attempt,
            queued=handle.queued and str(handle.state) == "submitted",
            elapsed=handle.elapsed,
            progress=report.progress if report is not None else None,
            total=report.total if report is not None else None,
            message=handle.message,
            over=handle.done,
            asks=handle.question is not None and not handle.done,
        )

    @property
    def fraction(self) -> float | None:
        """The share that is done, from 0 to 1, or None when it is unknown.

        Without a total, a progress between 0 and 1 counts as the share.
        """
        if self.state == "completed":
            return 1.0
        if self.progress is None or not self.progress >= 0:
            return None
        if self.total is not None and self.total > 0:
            return min(1.0, self.progress / self.total)
        return self.progress if self.total is None and 0 < self.progress < 1 else None

    def __repr__(self) -> str:
        return " ".join(self._parts())

    def _parts(self) -> list[str]:
        fraction = self.fraction
        done = round((fraction or 0) * _BAR)
        return [
            f"{one_line(self.peer)}:",
            one_line(self.state),
            *([f"[{'#' * done}{'.' * (_BAR - done)}] {fraction:4.0%}"] if fraction is not None else []),
            *([one_line(self.message)] if self.message else []),
            *([f"(attempt {self.attempt})"] if self.attempt and self.attempt > 1 else []),
            *(["(waits until its agent is online)"] if self.queued else []),
            f"{duration(self.elapsed)}",
        ]

    @property
    def news(self) -> tuple[object, ...]:
        """The values whose change is worth a new line in a terminal."""
        return self.state, self.attempt, self.progress, self.message, self.over

    def _repr_html_(self) -> str:
        hints = [
            *([f"{self.fraction:.0%}"] if self.fraction is not None else []),
            duration(self.elapsed),
            *([f"attempt {self.attempt}"] if self.attempt else []),
            *(["waits until its agent is online"] if self.queued else []),
            f"<code>{escaped(self.task_id)}</code>",
        ]
        bar = ""
        if self.fraction is not None:
            bar = (
                f'<div style="max-width:32em;margin:4px 0;background:rgba(127,127,127,.25);{ROUND}">'
                f'<div style="width:{self.fraction:.1%};background:{colour_of(self.state)};{ROUND}"></div></div>'
            )
        return card(self.peer, self.state, self.message, hints, bar=bar)


class TaskList(Table[H]):
    """The list of task handles that :meth:`Agent.delegations` returns. A notebook shows it as a table."""

    _what = "task"
    _columns = ("task", "agent", "state", "progress", "attempt", "elapsed")

    def _row(self, item: H) -> Sequence[str]:
        view = TaskView.of(item)
        percent = "" if view.fraction is None else f"{view.fraction:.0%}"
        attempt = "" if view.attempt is None else str(view.attempt)
        return (
            f"<code>{escaped(view.task_id)}</code>",
            escaped(view.peer),
            coloured(view.state),
            percent,
            attempt,
            duration(view.elapsed),
        )
