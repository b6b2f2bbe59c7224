"""What a verb prints: tables and lines for people, one JSON value in each line for machines, and errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mqtt_agent.cli.settings import Settings, UsageError
from mqtt_agent.display.html import one_line
from mqtt_agent.display.suggestions import counted
from mqtt_agent.display.tracebacks import message_lines, next_step
from mqtt_agent.errors import (
    BrokerUnreachable,
    CallTimeout,
    ConnectionRefused,
    InvalidArguments,
    InvalidIdentifier,
    MQTTAgentError,
    PeerUnavailable,
    RosterError,
    SessionTakenOver,
    TaskCanceled,
    TaskError,
    TaskFailed,
    TaskNotFound,
    TaskRejected,
    ToolFailed,
    ToolNameTaken,
    ToolUnavailable,
)
from mqtt_agent.logs import traceback_of

__all__ = [
    "ANSWER_WAS_ERROR",
    "INTERRUPTED",
    "NOBODY_THERE",
    "WRONG_USAGE",
    "Output",
    "counted",
    "first_line",
    "in_one_line",
    "printable",
]

ANSWER_WAS_ERROR = 1
WRONG_USAGE = 2
NOBODY_THERE = 3
INTERRUPTED = 130

_NEXT: dict[type[BaseException], str] = {
    BrokerUnreachable: "start a broker with 'mqtt-agent broker', or name yours with --broker URL",
    ConnectionRefused: "check --user with --password-file or --token-file, and what the broker allows this user",
    SessionTakenOver: "choose another name with --as NAME",
    InvalidArguments: "see what the tool takes with 'mqtt-agent tools NAME'",
    ToolUnavailable: "see which tools are online with 'mqtt-agent tools', or wait for a server with --wait",
    ToolNameTaken: "stop the other server, or give the function another name",
    ToolFailed: "--json shows the code and the data of the error; the tool server's log names the line that failed",
    CallTimeout: "the call may still run: the same command with --call-id attaches to it, and --timeout waits longer",
    PeerUnavailable: "see which agents there are with 'mqtt-agent agents --all', or let the task wait with --wait",
    TaskFailed: "--json shows the code and the data of the error; the log of its agent names the line that failed",
    TaskRejected: "give the task to another agent: 'mqtt-agent agents' lists them",
    TaskCanceled: "give the task again with 'mqtt-agent delegate' if its result is still wanted",
    TaskNotFound: "list the tasks of this command line with 'mqtt-agent tasks', or name the agent with --peer",
    TaskError: "see the state of the task with 'mqtt-agent show ID'",
}
"""What to do next at a command line, where it differs from what to do in a program."""

_UNREACHABLE = {
    "certificate was not accepted": "give the certificate authority with --ca FILE, and a host name of the certificate",
    "client certificate": "give the client certificate with --certificate FILE and --key FILE",
    "another scheme": "correct the scheme or the port of --broker URL",
}
"""What to do next about a broker that answers, but not as expected, by words of the message."""

_FOR_PROGRAMS = re.compile(
    r"(: check the id with peers\(\), or pass wait_online=True|: use delegate\(\), or pass wait_online=True"
    r"|\. Give the tools of server .*$|; give peer= to ask the peer for it|; give credentials=Password\(.*$"
    r"|; name the certificate authority with tls=TLS\(ca=\.\.\.\)|; give tls=TLS\(certificate=\.\.\., key=\.\.\.\))"
)
"""What a message tells a programmer to do next. A person at a command line is told what the command line can do."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")


def printable(text: object) -> str:
    """A text of a peer, without the characters that no terminal can show, or that change how it shows the rest."""
    return _CONTROL.sub("\ufffd", str(text).replace("\r\n", "\n"))


def in_one_line(text: object) -> str:
    """A text with values of peers, as one line: no value of a peer may look like another line of this program."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def first_line(text: str, longest: int = 80) -> str:
    """The first line of a peer's text, for a cell of a table. It has at most ``longest`` characters."""
    return one_line(text.strip().partition("\n")[0], longest)


class Output:
    """Prints what a verb found out.

    Args:
        machine: Whether the output is for machines.
    """

    def __init__(self, *, machine: bool = False) -> None:
        self.machine: bool = machine
        self._out = _console(sys.stdout)
        self.err: Console = _console(sys.stderr)
        """For what is not the answer itself: progress, notes, questions, errors."""
        self._in_line = False
        self.advice: dict[type[BaseException], str] = {}
        """What to do next about an error of the verb that runs, where it differs from what other verbs say."""

    def json(self, value: Any) -> None:
        """Print one JSON value in one line."""
        line = json.dumps(value, ensure_ascii=False, default=str)
        line = _HALF.sub("\ufffd", line)  # half a character of a peer cannot be written
        # JSON lets DEL, the C1 controls and the line separators stand as they are, and a terminal may obey them.
        sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line) + "\n")
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
        """Print a table.

        Args:
            columns: The heads of the columns.
            rows: The cells of each row.
            nothing: The line to print, on the standard error, when there are no rows.
        """
        if not rows:
            self.note(nothing)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate(columns):
            table.add_column(name, overflow="fold", no_wrap=place == 0)
        for row in rows:
            table.add_row(*(Text(in_one_line(cell)) for cell in row))
        self._out.print(table)

    def text(self, text: object, style: str = "") -> None:
        """Print a text on the standard output, which may have several lines, such as an answer."""
        self._end_line()
        self._out.print(Text(printable(text), style=style), soft_wrap=True)

    def line(self, text: object, style: str = "") -> None:
        """Print one line on the standard output, whatever values of peers it has."""
        self.text(in_one_line(text), style)

    def words(self, text: str, style: str = "") -> None:
        """Print what a peer says on the standard output. Its lines after the first one are indented."""
        self.text(_indented(text), style)

    def value(self, value: Any) -> None:
        """Print a JSON value as the answer: a text as it is, anything else as indented JSON."""
        if self.machine:
            self.json(value)
        else:
            self.text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))

    def stream(self, text: str) -> None:
        """Print a part of a text on the standard error, without a new line. The next output begins a new line."""
        self.err.print(Text(printable(text), style="dim"), end="", soft_wrap=True)
        self._in_line = not text.endswith("\n")

    def _end_line(self) -> None:
        if self._in_line:
            self._in_line = False
            self.err.print()

    def note(self, text: str, style: str = "") -> None:
        """Print one line for people on the standard error. Machines get none."""
        self.quote(in_one_line(text), style)

    def quote(self, text: str, style: str = "") -> None:
        """Print what a peer says for people on the standard error, as :meth:`words` does. Machines get nothing."""
        if not self.machine:
            self._end_line()
            self.err.print(Text(printable(_indented(text)), style=style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line on the standard error, also for machines: what is on the standard output lacks something."""
        self._end_line()
        self.err.print(Text(in_one_line(text), style="yellow"), soft_wrap=True)

    def ask(self, text: str) -> None:
        """Print a question on the standard error. The answer is typed in the same line."""
        self._end_line()
        self.err.print(Text(printable(text)), end="", soft_wrap=True)

    def error(self, error: BaseException, settings: Settings | None) -> int:
        """Print an error, and return the exit code that belongs to the error."""
        self._end_line()
        code, following = _code_of(error), _following(error, self.advice)
        if settings is not None and settings.debug:
            sys.stderr.write(traceback_of(error))
        if self.machine:
            about = {"type": type(error).__name__, "message": _FOR_PROGRAMS.sub("", str(error)), "next": following}
            more = {name: getattr(error, name, None) for name in ("code", "data", "call_id", "task_id", "retryable")}
            self.json({"error": {**about, **{name: value for name, value in more.items() if value is not None}}})
            return code
        if isinstance(error, MQTTAgentError):
            lines = message_lines(error, colors=False)
            for line in lines[:-1] if next_step(error) is not None else lines:  # without what a program would do
                self.err.print(Text(printable(_FOR_PROGRAMS.sub("", line)), style="red"), soft_wrap=True)
        else:
            expected = isinstance(error, (UsageError, ImportError, OSError))
            what = str(error) if expected else in_one_line(f"{type(error).__name__}: {error}")
            what += "" if expected else "; --debug shows the traceback"
            self.err.print(Text(f"mqtt-agent: {printable(what)}", style="red"), soft_wrap=True)
        if following:
            self.err.print(Text.assemble(("Next: ", "bold"), printable(following) + "."), soft_wrap=True)
        return code


def _indented(text: str) -> str:
    return text.strip("\r\n").replace("\n", "\n  ")


def _console(stream: Any) -> Console:
    # In a pipe or a file, nothing may be cut off or broken into several lines.
    width = None if stream.isatty() else 10_000
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _following(error: BaseException, advice: dict[type[BaseException], str]) -> str | None:
    if isinstance(error, BrokerUnreachable):
        for words, step in _UNREACHABLE.items():
            if words in str(error):
                return step
    for kind, step in [*advice.items(), *_NEXT.items()]:
        if isinstance(error, kind):
            step = step.replace("NAME'", f"{getattr(error, 'tool', None) or 'NAME'}'")
            return step.replace(" ID'", f" {getattr(error, 'task_id', None) or 'ID'}'")
    return next_step(error)


def _code_of(error: BaseException) -> int:
    if isinstance(error, (UsageError, InvalidIdentifier, RosterError)):
        return WRONG_USAGE
    if isinstance(error, (BrokerUnreachable, ToolUnavailable, PeerUnavailable)):
        return NOBODY_THERE
    return ANSWER_WAS_ERROR
