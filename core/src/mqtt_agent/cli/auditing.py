"""The verb ``audit``: keeps a line about each message of a namespace, and finds lines in what was kept."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Annotated, Any, cast

import typer

from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, group_with_default, verb, while_connected
from mqtt_agent.display.suggestions import counted
from mqtt_agent.endpoints.screen import why_unproven
from mqtt_agent.endpoints.trail import line_about
from mqtt_agent.identity import Audit
from mqtt_agent.transport import InboundMessage, MessageIdentity
from mqtt_agent.wire import Topics

__all__ = ["add_to"]

_FILE = Path("audit.jsonl")
_SESSION = 3600  # seconds for which the broker keeps the messages when the audit does not run
_COLUMNS = ("time", "direction", "claimed", "proven", "how", "kind", "of", "id", "outcome", "reason")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_to(app: typer.Typer) -> None:
    """Add the verb ``audit`` with its parts."""
    group = typer.Typer(
        help="Keep a line about each message of the namespace until Ctrl-C, or find lines with: audit query.",
        cls=group_with_default("listen"),
    )
    verb(group, "listen")(listen)
    verb(group, "query", shared=False)(query)
    app.add_typer(group, name="audit")


async def listen(
    session: Session,
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="The file to append to; - is the standard output.")
    ] = _FILE,
    trusted: Annotated[
        Path | None,
        typer.Option("--trusted", metavar="JWKS", help="Trusted keys: a message that none of them proves is refused."),
    ] = None,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="Also keep the payloads. They may hold secrets.")
    ] = False,
    required: Annotated[bool, typer.Option("--required", help="End when a line cannot be written.")] = False,
) -> None:
    """Keep a line about each message of the namespace until Ctrl-C.

    The login must be allowed to read all of the namespace: the kind "auditor" of a roster. The MQTT client id is the
    name given with --as, or "audit". The broker keeps the messages for an hour while the audit does not run.
    """
    topics = Topics(session.settings.place.namespace)
    name = session.settings.name or "audit"
    audit = Audit(session.out.json if str(file) == "-" else file.absolute(), payloads=payloads, required=required)
    identity = None if trusted is None else _identity(trusted)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_message(message: InboundMessage) -> None:
        message.identity = identity
        unproven = None if identity is None else why_unproven(topics, message)
        line = line_about(topics, name, message, unproven, payloads=payloads)
        line["direction"] = "seen"
        if unproven is not None:
            line["outcome"] = "refused"
        elif line["outcome"] == "accepted":
            line["outcome"] = "seen"  # nobody can know what the receivers did
        try:
            audit.write(line)
        except OSError as error:  # AuditFailed
            if not ended.done():
                ended.set_exception(error)

    connection = session.settings.place.connection(name, session_expiry=_SESSION)
    await connection.subscribe(f"{topics.namespace}/#", on_message)
    await connection.start()
    try:
        session.out.note(f"keeping {topics.namespace}/# of {session.settings.url} in {file}; Ctrl-C ends", "dim")
        await while_connected(connection, ended)
    finally:
        await connection.stop()


def query(
    session: Session,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Files of audits. Rotated files beside them (FILE.1) are read too."),
    ] = None,
    who: Annotated[
        str | None, typer.Option("--who", metavar="NAME", help="Only messages of this sender, claimed or proven.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only later lines: 90s, 15m, 1h, 2d, or ISO 8601.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="WORD", help="Only lines with this value: an id, a kind, a tool, an outcome."),
    ] = None,
) -> None:
    """Find lines of audits, for example what one agent has called: --who agent-a --since 1h --only call."""
    earliest = None if since is None else _time(since)
    kept: list[dict[str, Any] | None] = []
    places: dict[str, list[int]] = {}
    unreadable = 0
    for line in _lines(files or [_FILE]):
        try:
            fields = json.loads(line)
            time = datetime.fromisoformat(str(fields["time"]).replace("Z", "+00:00"))
        except (ValueError, KeyError, TypeError):
            unreadable += 1
            continue
        if "revises" in fields and (first := places.get(_first_line(fields, fields["revises"]))):
            kept[first.pop()] = None  # its handler has refused the message after the first line was written
        if earliest is not None and time < earliest:
            continue
        if who is not None and not _is_of(who, fields):
            continue
        if only and not all(word in fields.values() for word in only):
            continue
        if fields.get("outcome") == "accepted":
            places.setdefault(_first_line(fields, fields["time"]), []).append(len(kept))
        kept.append(fields)
    found = [each for each in kept if each is not None]
    if session.out.machine:
        for fields in found:
            session.out.json(fields)
    else:
        rows = [tuple("" if each.get(name) is None else each[name] for name in _COLUMNS) for each in found]
        session.out.table(_COLUMNS, rows, "no line of the audit fits")
    if unreadable:
        session.out.note(f"not shown, because they could not be read: {counted(unreadable, 'line')}", "red")


def _first_line(line: dict[str, Any], time: object) -> str:
    """What is the same in the first line about a message and in the line that revises it."""
    return json.dumps([time, *(line.get(name) for name in ("endpoint", "topic", "id", "claimed", "proven"))])


def _is_of(name: str, line: dict[str, Any]) -> bool:
    """Whether a line is about a sender. A server's name stands for its replicas."""
    return any(name in (each, each.partition(":")[0]) for each in (line.get("claimed"), line.get("proven")) if each)


def _lines(files: list[Path]) -> Iterator[bytes]:
    """The lines of files and of their rotated files, the oldest file first."""
    found = {each for file in files for each in (file, *file.parent.glob(f"{file.name}.*")) if each.is_file()}
    missing = [file for file in files if not any(each.name.startswith(file.name) for each in found)]
    if missing:
        raise UsageError(f"there is no audit {missing[0]}: name the file that Audit or mqtt-agent audit writes")
    for path in sorted(found, key=lambda each: each.stat().st_mtime):
        try:
            with cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
                yield from file
        except (OSError, EOFError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error


def _time(text: str) -> datetime:
    now = datetime.now(timezone.utc)
    matched = re.fullmatch(r"(\d{1,9})([smhd])", text)
    try:
        if matched is not None:
            return now - timedelta(**{_UNITS[matched[2]]: int(matched[1])})
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--since {text!r} is no time: write 90s, 15m, 1h, 2d, or 2026-01-31T12:00:00Z") from error
    return time if time.tzinfo is not None else time.astimezone()


def _identity(trusted: Path) -> MessageIdentity:
    try:
        from mqtt_agent.identity.signing import Identity

        return Identity(None, trusted)
    except ImportError as error:
        raise UsageError(str(error)) from error
    except (ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{trusted} cannot be used: {why}; name a JWKS file, as keys trust makes it") from error
