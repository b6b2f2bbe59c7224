"""The verbs ``tools``, ``servers`` and ``agents``: what is in a namespace, who serves it, and since when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated

import typer

from mqtt_agent.cli.output import NOBODY_THERE
from mqtt_agent.cli.people import looking_at_peers
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.schemas import arguments
from mqtt_agent.display.suggestions import hint_for
from mqtt_agent.wire import AgentCard, Message, ServerCard, ToolCard

__all__ = ["add_to"]

_All = Annotated[bool, typer.Option("--all", "-a", help="Also show what is offline.")]
_LONGEST = 80


def add_to(app: typer.Typer) -> None:
    """Add the verbs."""
    verb(app, "tools")(tools)
    verb(app, "servers")(servers)
    verb(app, "agents")(agents)


async def tools(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="Show this tool's description and arguments.")] = None,
    server: Annotated[str | None, typer.Option(help="Only the tools of this server or replica.")] = None,
    everything: _All = False,
) -> int:
    """List the tools, or show one."""
    async with session.client() as client:
        if name is not None:
            card = await client.get_tool(name)
            if card is None:
                return _not_there(session, name, [each.tool for each in await client.list_tools()], "tool")
            _show_tool(session, card, await client.list_servers())
            return 0
        found = await client.list_tools(server, online_only=not everything)
        replicas = _replicas(await client.list_servers())
    if session.out.machine:
        _print(session, found)
        return 0
    rows = [(each.tool, each.server, each.status, replicas[each.tool], _first_line(each.description)) for each in found]
    session.out.table(
        ("tool", "server", "status", "replicas", "description"),
        rows,
        _nothing(session, "no tool is online", everything),
    )
    return 0


async def servers(session: Session, everything: _All = False) -> int:
    """List the tool servers, one line for each replica."""
    async with session.client() as client:
        found = await client.list_servers(online_only=not everything)
    if session.out.machine:
        _print(session, found)
        return 0
    rows = [
        (
            each.server,
            "on standby" if each.standby and each.status == "online" else each.status,
            each.started or each.last_seen,
            each.agent or "",
            ", ".join(each.tools),
        )
        for each in found
    ]
    session.out.table(
        ("server", "status", "since", "agent", "tools"), rows, _nothing(session, "no tool server is online", everything)
    )
    return 0


async def agents(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="Show this agent's card.")] = None,
    everything: _All = False,
) -> int:
    """List the agents, or show one."""
    async with looking_at_peers(session) as peers:
        found = peers.cards()
    if name is not None:
        card = next((each for each in found if each.name == name), None)
        if card is None:
            return _not_there(session, name, [each.name for each in found], "agent")
        _show_agent(session, card)
        return 0
    wanted = [each for each in found if everything or each.status == "online"]
    if session.out.machine:
        _print(session, wanted)
        return 0
    rows = [
        (
            each.name,
            each.status,
            each.started or each.last_seen,
            ", ".join(each.capabilities),
            _first_line(each.description),
        )
        for each in wanted
    ]
    session.out.table(
        ("agent", "status", "since", "capabilities", "description"),
        rows,
        _nothing(session, "no agent is online", everything),
    )
    return 0


def _show_tool(session: Session, card: ToolCard, online: Sequence[ServerCard]) -> None:
    if session.out.machine:
        _print(session, [card])
        return
    out = session.out
    out.text(f"{card.tool}  {card.status}, server {card.server}", "bold")
    if card.description:
        out.text(card.description)
    words = {"read-only": card.read_only, "idempotent": card.idempotent, "streams": card.supports_streaming}
    serving = [each.server for each in online if card.tool in each.tools]
    facts = [word for word, holds in words.items() if holds]
    out.text("\n" + "; ".join([*facts, f"replicas: {', '.join(serving) or 'none'}"]))
    rows = [
        (name, kind, "required" if required else "", text)
        for name, kind, required, text in arguments(card.input_schema)
    ]
    out.text("")
    out.table(("argument", "type", "", "description"), rows, "the tool takes no arguments")


def _show_agent(session: Session, card: AgentCard) -> None:
    if session.out.machine:
        _print(session, [card])
        return
    out = session.out
    out.text(f"{card.name}  {card.status}, since {card.started or card.last_seen}", "bold")
    if card.description:
        out.text(card.description)
    if card.capabilities:
        out.text(f"capabilities: {', '.join(card.capabilities)}")
    for skill in card.skills or ():
        out.text(f"skill {skill.id}: {skill.name or skill.description}")


def _not_there(session: Session, name: str, known: Sequence[str], what: str) -> int:
    message = f"there is no {what} {name!r} in namespace {session.settings.place.namespace!r}"
    message += hint_for(name, list(known), what)
    if session.out.machine:
        session.out.json({"error": {"type": "NotFound", "message": message}})
    session.out.note(message, "red")
    return NOBODY_THERE


def _nothing(session: Session, what: str, everything: bool) -> str:
    where = f"in namespace {session.settings.place.namespace!r} at {session.settings.url}"
    return f"{what} {where}" + ("" if everything else "; --all also shows what is offline")


def _print(session: Session, cards: Sequence[Message]) -> None:
    for card in cards:
        session.out.json(card.model_dump(mode="json", exclude_none=True, by_alias=True))


def _replicas(online: Sequence[ServerCard]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for server in online:
        for tool in server.tools:
            counts[tool] += 1
    return counts


def _first_line(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return first if len(first) <= _LONGEST else first[: _LONGEST - 1] + "…"
