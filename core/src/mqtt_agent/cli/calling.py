"""The verb ``call``: calls a tool, and shows what it streams while it runs."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, cast

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mqtt_agent.cli.output import Output, in_one_line
from mqtt_agent.cli.values import arguments_from
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.tools import CallHandle

__all__ = ["Live", "add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``call``."""
    verb(app, "call")(call)


async def call(
    session: Session,
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="name=text, name=@file, or name:=json for any JSON value."),
    ] = None,
    arguments: Annotated[
        str | None,
        typer.Option("--arguments", "-a", metavar="JSON", help="The arguments as JSON; - or @FILE reads them."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until the call fails.", min=0)] = CALL_TIMEOUT,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a server offers the tool.")] = False,
    call_id: Annotated[str | None, typer.Option(help="The call's id, to attach to an earlier call.")] = None,
) -> None:
    """Call a tool, and print its result. What the tool streams goes to the standard error. Ctrl-C cancels the call."""
    async with session.client() as client:
        card = await client.get_tool(tool)
        given = arguments_from(words or [], arguments, card.input_schema if card is not None else {})
        handle = await client.submit(tool, given, timeout=timeout, wait_online=wait, call_id=call_id)
        try:
            with Live(session.out) as live:
                async for partial in handle.partials():
                    live.show(partial)
            result = await handle.result()
        finally:
            if not handle.done:
                await handle.cancel("the caller gave up")
        _print(session.out, handle, result)


def _print(out: Output, handle: CallHandle, result: Any) -> None:
    if not out.machine:
        out.value(result)
        return
    facts = {"call_id": handle.call_id, "server": handle.server, "attempt": handle.attempt}
    out.json({"result": result, **facts, "elapsed_ms": handle.elapsed_ms})


class Live:
    """Shows partial results as lines, and progress as a bar, on the standard error. Use it with ``with``.

    Args:
        out: Prints for people or for machines. Machines get a JSON line for each partial result.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[done]}", markup=False),
            TimeElapsedColumn(),
            console=out.err,
            transient=True,
        )
        self._bar: TaskID | None = None

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *error: object) -> None:
        self.pause()

    def pause(self) -> None:
        """Remove the bar, until more progress is reported."""
        if self._bar is not None:
            self._progress.stop()
            self._progress.remove_task(self._bar)
            self._bar = None

    def show(self, partial: Any) -> None:
        """Show one partial result, or the progress that it reports."""
        if self._out.machine:
            self._out.json({"partial": partial})
        elif isinstance(partial, dict) and _number(cast("dict[str, Any]", partial).get("progress")) is not None:
            report = cast("dict[str, Any]", partial)
            self.advance(report["progress"], report.get("total"), report.get("message"))
        else:
            text = partial if isinstance(partial, str) else json.dumps(partial, ensure_ascii=False)
            self._out.quote(text, "dim")

    def advance(self, done: object, total: object, message: object) -> None:
        """Show how far the work is: as a bar at a terminal, else as a line.

        Args:
            done: How much is done. What peers send may be any value here, and none of these stops the command.
            total: How much there is to do, if known.
            message: What is being done now, if known.
        """
        part, whole = _number(done) or 0.0, _number(total) or 0.0
        known = whole if whole > 0 else None
        share = f"{part:g}/{known:g}" if known is not None else f"{part:g}"
        text = in_one_line(message) if message else "working"
        if not self._out.err.is_terminal:
            self._out.note(f"{text} {share}", "dim")
            return
        if self._bar is None:
            self._progress.start()
            self._bar = self._progress.add_task(text, total=known, done=share)
        self._progress.update(self._bar, completed=part, total=known, description=text, done=share)


def _number(value: object) -> float | None:
    """A number of a peer that can be shown; None for any other value."""
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None
