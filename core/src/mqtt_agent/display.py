"""How cards, tasks and errors look in a notebook, and tasks in a terminal.

All that comes from the network is escaped and shortened: the author of a card must not get a script into the browser of
whoever looks at it. Neither IPython nor a front end of our own is needed; IPython is used when it is there.
"""

from __future__ import annotations

import html
import itertools
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

if TYPE_CHECKING:
    from mqtt_agent.agents.handle import TaskHandle
    from mqtt_agent.sync.agents import TaskHandle as BlockingHandle
    from mqtt_agent.wire import AgentCard, ServerCard, ToolCard

__all__ = [
    "NEXT_STEPS",
    "PeerList",
    "Screen",
    "ServerList",
    "TaskList",
    "TaskView",
    "ToolList",
    "agent_card",
    "server_card",
    "short_traceback",
    "tool_card",
]

_LONGEST = 300
_MOST_ROWS = 200
_MOST_ARGUMENTS = 30
_BAR = 20

_COLOURS = {
    **dict.fromkeys(("online", "completed"), "#1a7f37"),
    **dict.fromkeys(("offline", "canceled", "submitted"), "#7d8590"),
    **dict.fromkeys(("failed", "rejected"), "#cf222e"),
    **dict.fromkeys(("input-required", "auth-required"), "#bf8700"),
    "working": "#0969da",
}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
_MUTED = "opacity:.7"
_ROUND = "height:8px;border-radius:4px"

T = TypeVar("T")
H = TypeVar("H", bound="TaskHandle | BlockingHandle")


# Cards


def tool_card(card: ToolCard) -> str:
    """The HTML of one tool card: what the tool is called, what it takes, and how to treat it."""
    rows = [
        (f"<code>{_text(name)}</code>", _text(type), "yes" if required else "", _text(description))
        for name, type, required, description in _arguments(card.input_schema)
    ]
    takes = _table(("argument", "type", "required", "description"), rows) if rows else "takes no arguments"
    hints = [
        f"server {_text(card.server)}",
        *(["read-only"] if card.read_only else []),
        *(["idempotent"] if card.idempotent else []),
        *(["streams"] if card.supports_streaming else []),
    ]
    return _card(card.title or card.tool, card.status, card.description, hints, takes)


def agent_card(card: AgentCard) -> str:
    """The HTML of one agent card: who it is, and what it can do."""
    rows = [
        (f"<code>{_text(skill.id)}</code>", _text(skill.description or skill.name), _text(", ".join(skill.tags)))
        for skill in card.skills or ()
    ]
    can = [f"can {_text(', '.join(card.capabilities))}"] if card.capabilities else []
    hints = [f"namespace {_text(card.namespace)}", *can, f"last seen {_text(card.last_seen)}"]
    return _card(card.name, card.status, card.description, hints, _table(("skill", "", "tags"), rows) if rows else "")


def server_card(card: ServerCard) -> str:
    """The HTML of one server card: which replica it is, and what it serves."""
    tools = f"serves {_text(', '.join(card.tools))}" if card.tools else "serves nothing"
    hints = [tools, *(["stands by"] if card.standby else []), f"last seen {_text(card.last_seen)}"]
    return _card(card.server, card.status, "", hints, "")


class _Table(list[T]):
    """A list that a notebook shows as a table; in everything else it is the list that it is."""

    _what: ClassVar[str]
    _columns: ClassVar[Sequence[str]]

    def _row(self, item: T) -> Sequence[str]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        if not self:
            return f"<i>no {self._what}s</i>"
        shown = _table(self._columns, [self._row(item) for item in self[:_MOST_ROWS]])
        more = f"<i>and {len(self) - _MOST_ROWS:,} more</i>" if len(self) > _MOST_ROWS else ""
        return shown + more


class ToolList(_Table["ToolCard"]):
    """What :meth:`ToolClient.list_tools` returns."""

    _what = "tool"
    _columns = ("tool", "takes", "description", "server", "status")

    def _row(self, item: ToolCard) -> Sequence[str]:
        takes = ", ".join(
            f"{name}: {type}" + ("" if required else " (optional)")
            for name, type, required, _ in _arguments(item.input_schema)
        )
        name = f"<b>{_text(item.tool)}</b>"
        return name, _text(takes), _text(item.description), _text(item.server), _state(item.status)


class ServerList(_Table["ServerCard"]):
    """What :meth:`ToolClient.list_servers` returns."""

    _what = "server"
    _columns = ("server", "tools", "status", "last seen")

    def _row(self, item: ServerCard) -> Sequence[str]:
        tools = "stands by" if item.standby else ", ".join(item.tools)
        return f"<b>{_text(item.server)}</b>", _text(tools), _state(item.status), _text(item.last_seen)


class PeerList(_Table["AgentCard"]):
    """What :meth:`Agent.peers` returns."""

    _what = "peer"
    _columns = ("agent", "capabilities", "description", "status", "last seen")

    def _row(self, item: AgentCard) -> Sequence[str]:
        name, can = f"<b>{_text(item.name)}</b>", _text(", ".join(item.capabilities))
        return name, can, _text(item.description), _state(item.status), _text(item.last_seen)


class TaskList(_Table[H]):
    """What :meth:`Agent.delegations` returns."""

    _what = "task"
    _columns = ("task", "agent", "state", "progress", "attempt", "elapsed")

    def _row(self, item: H) -> Sequence[str]:
        view = TaskView.of(item)
        percent = "" if view.fraction is None else f"{view.fraction:.0%}"
        attempt = "" if view.attempt is None else str(view.attempt)
        return (
            f"<code>{_text(view.task_id)}</code>",
            _text(view.peer),
            _state(view.state),
            percent,
            attempt,
            _seconds(view.elapsed),
        )


# Tasks


@dataclass(frozen=True)
class TaskView:
    """What there is to see of a task at one moment.

    Attributes:
        task_id: Which task.
        peer: The agent that is to do it.
        state: Where it stands.
        attempt: Which attempt its peer is at, when known.
        queued: Whether it waits for a peer that is offline.
        elapsed: Seconds since it was delegated, until it was over.
        progress: How much was done, as its peer said last.
        total: How much there is, if known.
        message: What its peer says: what it does now, what it asks, or why it failed.
        over: Whether nothing more is to come.
        asks: Whether it waits for an answer.
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
    def of(cls, handle: TaskHandle | BlockingHandle) -> TaskView:
        """The task of a handle as it is now."""
        told = handle.progress
        return cls(
            task_id=handle.task_id,
            peer=handle.peer,
            state=str(handle.state),
            attempt=handle.attempt,
            queued=handle.queued and str(handle.state) == "submitted",
            elapsed=handle.elapsed,
            progress=told.progress if told is not None else None,
            total=told.total if told is not None else None,
            message=handle.message,
            over=handle.done,
            asks=handle.question is not None and not handle.done,
        )

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1, when that is known. Without a total, a number below 1 is taken for it."""
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
            f"{_plain(self.peer)}:",
            _plain(self.state),
            *([f"[{'#' * done}{'.' * (_BAR - done)}] {fraction:4.0%}"] if fraction is not None else []),
            *([_plain(self.message)] if self.message else []),
            *([f"(attempt {self.attempt})"] if self.attempt and self.attempt > 1 else []),
            *(["(waits until its agent is online)"] if self.queued else []),
            f"{_seconds(self.elapsed)}",
        ]

    @property
    def _news(self) -> tuple[object, ...]:
        """What of it is worth a line of its own."""
        return self.state, self.attempt, self.progress, self.message, self.over

    def _repr_html_(self) -> str:
        colour = _COLOURS.get(self.state, "#7d8590")
        hints = [
            *([f"{self.fraction:.0%}"] if self.fraction is not None else []),
            _seconds(self.elapsed),
            *([f"attempt {self.attempt}"] if self.attempt else []),
            *(["waits until its agent is online"] if self.queued else []),
            f"<code>{_text(self.task_id)}</code>",
        ]
        bar = ""
        if self.fraction is not None:
            bar = (
                f'<div style="max-width:32em;margin:4px 0;background:rgba(127,127,127,.25);{_ROUND}">'
                f'<div style="width:{self.fraction:.1%};background:{colour};{_ROUND}"></div></div>'
            )
        return _card(self.peer, self.state, self.message, hints, "", bar)


class Screen:
    """Where a task is shown while it changes: one place in a notebook, line after line in a terminal."""

    def __init__(self) -> None:
        shell = _shell()
        self._notebook = shell is not None and hasattr(shell, "kernel")
        self._place: Any = None
        self._last: tuple[object, ...] | None = None

    def draw(self, view: TaskView) -> None:
        """Show the task as it is now."""
        if not self._notebook:
            if view._news != self._last:  # pyright: ignore[reportPrivateUsage]
                print(view, flush=True)  # noqa: T201 - that is what show() is for
            self._last = view._news  # pyright: ignore[reportPrivateUsage]
        elif self._place is None:
            self._place = sys.modules["IPython"].display.display(view, display_id=True)
        else:
            self._place.update(view)


# Errors

NEXT_STEPS = {
    "InvalidIdentifier": "choose a name that can be one level of an MQTT topic, such as 'weather-1'",
    "WireError": "pass plain JSON values, dataclasses or pydantic models",
    "TransportError": "look at the broker's log",
    "BrokerUnreachable": "start a broker there, give broker=..., or set MQTT_AGENT_BROKER; EmbeddedBroker() is one",
    "ConnectionRefused": "check credentials= and the user's rights at the broker",
    "ConnectionLost": "start it again; what was stored is taken up: agent.resume(task_id), or submit(..., call_id=...)",
    "SessionTakenOver": "give each process an agent id or client id of its own",
    "NotAuthorized": "let this user publish or subscribe there in the broker's access rules: docs/production.md",
    "PublishRefused": "look at the broker's log for why it refused the message",
    "PayloadTooLarge": "send less, send a reference to it, or raise the broker's Maximum Packet Size",
    "QueueFull": "wait for calls that are under way before making more, or raise max_pending",
    "ToolCallError": "see its .call_id",
    "InvalidArguments": "await client.get_tool(name) shows what the tool takes",
    "Unauthorized": "ask whoever runs the tool server to let this caller in",
    "ToolFailed": "see its .code and .data; the tool server's log has the traceback",
    "CallTimeout": "submit(..., call_id=error.call_id) attaches to the call, which may still run",
    "CallCancelled": "make the call again if it is still wanted",
    "ToolUnavailable": "start its server, or call with wait_online=True; .maybe_executed tells whether it may have run",
    "TaskError": "see its .task_id",
    "TaskFailed": "see its .code, .type and .data; the log of its agent has the traceback",
    "TaskRejected": "give it to another agent: await agent.peers() lists them",
    "TaskCanceled": "delegate it again, with another task id, if it is still wanted",
    "TaskExpired": "delegate it again with a later expires_at",
    "TaskTimeout": "the task goes on: handle = await agent.resume(error.task_id)",
    "TaskNotFound": "await agent.delegations() lists what the store knows; or name the peer: resume(task_id, peer=...)",
    "PeerUnavailable": "await agent.peers() lists who is online; delegate(..., wait_online=True) waits for it",
    "StoreError": "check the file's path, rights and disk space; a damaged file is never overwritten",
}
"""What to do about an error, by the name of its class."""


def short_traceback(error: BaseException) -> list[str]:
    """What IPython shows of an error: the reader's own lines, the message, and what to do next."""
    shell = _shell()
    if shell is not None and getattr(shell.InteractiveTB, "mode", "") in ("Verbose", "Docs"):
        return shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_the_readers(frame.filename)]
    lines: list[str] = []
    for frame in frames[-3:]:
        code = linecache.getline(frame.filename, frame.lineno or 0).strip() or frame.line or ""
        place = "" if "ipykernel" in frame.filename or frame.filename.startswith("<") else f"{frame.filename}, "
        lines.append(f"{place}line {frame.lineno}: {code}")
    steps = (NEXT_STEPS.get(kind.__name__) for kind in type(error).__mro__)
    step = next((step for step in steps if step is not None), None)
    if lines:
        lines.append("")
    lines.append(f"\x1b[31m{type(error).__name__}\x1b[0m: {_plain(str(error), 2000)}")
    if step is not None:
        lines.append(f"\x1b[1mNext:\x1b[0m {step}.")
    lines.append("(%xmode Verbose before the cell shows the whole traceback.)")
    return lines


def _is_the_readers(file: str) -> bool:
    libraries = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}
    ours = str(Path(__file__).parent)
    return not file.startswith((ours, "<frozen", *libraries)) and "site-packages" not in file


def _shell() -> Any:
    """IPython's shell, when this runs in one."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


# Pieces


def _card(name: str, state: str, text: str, hints: Iterable[str], body: str, bar: str = "") -> str:
    described = f"<div>{_text(text)}</div>" if text else ""
    return (
        f"<div><b>{_text(name)}</b> {_state(state)}{bar}{described}"
        f'<div style="font-size:90%;{_MUTED}">{" &middot; ".join(hints)}</div>{body}</div>'
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL};max-width:40em">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _state(state: str) -> str:
    return f'<span style="color:{_COLOURS.get(state, "#7d8590")}">&#9679; {_text(state)}</span>'


def _text(value: object) -> str:
    return html.escape(_plain(str(value)))


def _plain(text: str, longest: int = _LONGEST) -> str:
    """The text in one line, not too long, with nothing in it that a terminal obeys."""
    text = text[: longest + 1]
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _arguments(schema: Any) -> list[tuple[str, str, bool, str]]:
    """Name, type, whether required, and description of what a tool takes; whatever its schema looks like."""
    schema = _mapping(schema)
    required: Any = schema.get("required")
    found: list[tuple[str, str, bool, str]] = []
    for name, each in itertools.islice(_mapping(schema.get("properties")).items(), _MOST_ARGUMENTS):
        must = isinstance(required, list) and name in required
        described = _mapping(each)
        default = f"default {described['default']!r}" if "default" in described else ""
        words = [str(word) for word in (described.get("description"), default) if word]
        found.append((name, _type(described), must, "; ".join(words)))
    return found


def _type(schema: dict[str, Any], depth: int = 0) -> str:
    kind: Any = schema.get("type")
    if isinstance(schema.get("enum"), list):
        return " | ".join(repr(each) for each in schema["enum"][:10])
    if isinstance(kind, str):
        items = _mapping(schema.get("items"))
        return f"{kind} of {_type(items, depth + 1)}" if kind == "array" and items and depth < 3 else kind
    if isinstance(kind, list):
        return " | ".join(str(each) for each in cast("list[object]", kind))
    if isinstance(schema.get("anyOf"), list) and depth < 3:
        return " | ".join(_type(_mapping(each), depth + 1) for each in schema["anyOf"][:10])
    return str(schema["$ref"]).rsplit("/", 1)[-1] if "$ref" in schema else "any"


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
