"""The verb ``watch``: the messages of a namespace, decoded, one line each."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, cast

import typer

from mqtt_agent.cli.output import Output
from mqtt_agent.cli.verbs import Session, verb, while_connected
from mqtt_agent.display.html import one_line
from mqtt_agent.display.suggestions import counted
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import Topics

__all__ = ["add_to"]

_LONGEST = 160
_BARE = ("of", "call_id", "task_id")
"""The values that are shown without the name of their field."""
_QUEUED = 10_000
_FAULT = "an error of its sender"


def add_to(app: typer.Typer) -> None:
    """Add the verb ``watch``."""
    verb(app, "watch")(watch)


async def watch(
    session: Session,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="WORD", help="Only lines with this word: a name, an id, a kind."),
    ] = None,
    payloads: Annotated[bool, typer.Option("--payloads", help="Also show arguments, results and texts.")] = False,
    retained: Annotated[bool, typer.Option("--retained", help="Also show the cards that are there already.")] = False,
) -> None:
    """Show the traffic of the namespace until Ctrl-C. The login must be allowed to subscribe to all of it."""
    topics = Topics(session.settings.place.namespace)
    arrived: asyncio.Queue[InboundMessage] = asyncio.Queue(_QUEUED)
    dropped = 0

    def on_message(message: InboundMessage) -> None:
        nonlocal dropped
        if (message.retain and not retained) or MARKER_PREFIX.encode() in message.payload[:200]:
            return  # an endpoint sends itself a marker to find the end of a list
        try:
            arrived.put_nowait(message)
        except asyncio.QueueFull:
            dropped += 1

    async def show() -> None:
        nonlocal dropped
        while True:
            line = described(topics, await arrived.get(), payloads)
            if dropped:
                session.out.note(f"not shown, because they came too fast: {counted(dropped, 'message')}", "red")
                dropped = 0
            if not only or any(word in " ".join(line.values()) for word in only):
                _tell(session.out, line)

    name = session.settings.name or "watch"
    connection = session.settings.place.connection(session.settings.client_id_of(name), session_expiry=0)
    await connection.start()
    try:
        await connection.subscribe(f"{topics.namespace}/#", on_message, qos=0, snapshot=retained)
        session.out.note(f"watching {topics.namespace}/# at {session.settings.url}; Ctrl-C ends", "dim")
        await while_connected(connection, show())
    finally:
        await connection.stop(end_session=True)


def _tell(out: Output, line: dict[str, str]) -> None:
    if out.machine:
        out.json(line)
        return
    words = [_word(line[key]) if key in _BARE else line[key] for key in line if key not in ("time", "kind", "topic")]
    out.line(f"{line['time'][11:]} {_word(line['kind']):<9} {' '.join(words)}", _style_of(line))


def _style_of(line: dict[str, str]) -> str:
    if "error" in line or _FAULT in line.get("about", ""):
        return "red"
    return {"status=offline": "red", "status=online": "green"}.get(line.get("status", ""), "")


def _word(value: str) -> str:
    """A value of a peer as one word: in quotation marks, if it could be taken for several words or another field."""
    text = one_line(value, _LONGEST)
    plain = text == value and text and not set(text) & set(' ="')
    return text if plain else json.dumps(text, ensure_ascii=False)


def described(topics: Topics, message: InboundMessage, payloads: bool) -> dict[str, str]:
    """One message in words.

    Args:
        topics: The topics of the namespace.
        message: The message.
        payloads: Whether arguments, results and texts are shown. They may hold secrets.

    Returns:
        The time, the kind of the message, its topic and what is known about it, each as text.
    """
    parts = message.topic[len(topics.namespace) + 1 :].split("/")
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S"), "kind": parts[-1], "topic": message.topic}
    if len(parts) >= 4 and parts[0] == "mcp":
        line["kind"] = parts[3]
        line["of"] = parts[2]
    elif len(parts) >= 3:
        line["kind"], line["of"] = parts[2], parts[1]
    if not message.payload:
        return {**line, "about": "removed"}
    try:
        data: Any = json.loads(message.payload)
    except (ValueError, RecursionError):
        return {**line, "about": f"{len(message.payload)} bytes that are no JSON: {_FAULT}"}
    if not isinstance(data, dict):
        return {**line, "about": f"no JSON object: {_FAULT}"}
    fields = cast("dict[str, Any]", data)
    for key in ("client", "from", "to", "server", "status", "state", "type", "action"):
        if isinstance(fields.get(key), str) and fields[key] != line.get("of"):
            line[key] = f"{key}={_word(fields[key])}"
    for key in ("call_id", "task_id"):
        if isinstance(fields.get(key), str):
            line[key] = one_line(fields[key], _LONGEST)
    if isinstance(fields.get("error"), dict):
        line["error"] = f"error={_word(str(fields['error'].get('type')))}"
    if payloads:
        line["payload"] = one_line(message.payload.decode(errors="replace"), _LONGEST)
    return line
