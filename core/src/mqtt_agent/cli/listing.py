"""The verbs ``tools``, ``servers`` and ``agents``: what is in a namespace, who serves it, and since when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import typer

from mqtt_agent.cli.output import NOBODY_THERE, Output, first_line
from mqtt_agent.cli.people import looking_at_peers
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.schemas import arguments
from mqtt_agent.display.suggestions import hint_for
from mqtt_agent.endpoints.listing import NOT_ALL_CARDS
from mqtt_agent.wire import AgentCard, Message, ServerCard, ToolCard

__all__ = ["add_to"]

_All = Annotated[bool, typer.Option("--all", "-a", help="Also show what is offline.")]
C = TypeVar("C", bound=Message)


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
        online = await client.list_servers()
        if name is not None:
            card = await client.get_tool(name)
            if card is None:
                others = await client.list_tools()
                _tell_incomplete(session, others.incomplete)
                return _not_there(session, name, [each.tool for each in others], "tool")
            _show(session, card, lambda: _tell_tool(session.out, card, online))
            return 0
        found = await client.list_tools(server, online_only=not everything)
        _tell_incomplete(session, found.incomplete)
    replicas = Counter(tool for each in online for tool in each.tools)
    _list(
        session,
        found,
        ("tool", "server", "status", "replicas", "description"),
        lambda each: (each.tool, each.server, each.status, replicas[each.tool], first_line(each.description)),
        _nothing(session, "no tool is online", everything),
    )
    return 0


async def servers(session: Session, everything: _All = False) -> None:
    """List the tool servers, one line for each replica."""
    async with session.client() as client:
        found = await client.list_servers(online_only=not everything)
    _tell_incomplete(session, found.incomplete)
    _list(
        session,
        found,
        ("server", "status", "since", "agent", "tools"),
        lambda each: (
            each.server,
            "on standby" if each.standby and each.status == "online" else each.status,
            each.started or each.last_seen,
            each.agent or "",
            ", ".join(each.tools),
        ),
        _nothing(session, "no tool server is online", everything),
    )


async def agents(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="Show this agent's card.")] = None,
    everything: _All = False,
) -> int:
    """List the agents, or show one."""
    async with looking_at_peers(session) as (peers, whole):
        found = await peers.cards()
    _tell_incomplete(session, [] if whole else [NOT_ALL_CARDS])
    if name is not None:
        card = next((each for each in found if each.name == name), None)
        if card is None:
            return _not_there(session, name, [each.name for each in found], "agent")
        _show(session, card, lambda: _tell_agent(session.out, card))
        return 0
    _list(
        session,
        [each for each in found if everything or each.status == "online"],
        ("agent", "status", "since", "capabilities", "description"),
        lambda each: (
            each.name,
            f"{each.status}, pool" if each.pool else each.status,
            each.started or each.last_seen,
            ", ".join(each.capabilities),
            first_line(each.description),
        ),
        _nothing(session, "no agent is online", everything),
    )
    return 0


def _tell_incomplete(session: Session, incomplete: Sequence[str]) -> None:
    for each in incomplete:
        session.out.warn(f"the list is incomplete: {each}")


def _list(
    session: Session, cards: Sequence[C], columns: Sequence[str], row: Callable[[C], Sequence[object]], nothing: str
) -> None:
    """Print cards: a table for people, or one JSON value for each card."""
    if session.out.machine:
        for card in cards:
            _print(session, card)
    else:
        session.out.table(columns, [row(card) for card in cards], nothing)


def _print(session: Session, card: Message) -> None:
    session.out.json(card.model_dump(mode="json", exclude_none=True, by_alias=True))


def _show(session: Session, card: Message, tell: Callable[[], None]) -> None:
    """Print one card: in words for people, or as JSON."""
    if session.out.machine:
        _print(session, card)
    else:
        tell()


def _tell_tool(out: Output, card: ToolCard, online: Sequence[ServerCard]) -> None:
    _tell_head(out, f"{card.tool}  {card.status}, server {card.server}", card.description)
    words = {"read-only": card.read_only, "idempotent": card.idempotent, "streams": card.supports_streaming}
    serving = [each.server for each in online if card.tool in each.tools]
    facts = [word for word, holds in words.items() if holds]
    out.text("")
    out.line("; ".join([*facts, f"replicas: {', '.join(serving) or 'none'}"]))
    rows = [
        (name, kind, "required" if required else "", text)
        for name, kind, required, text in arguments(card.input_schema)
    ]
    out.text("")
    out.table(("argument", "type", "", "description"), rows, "the tool takes no arguments")


def _tell_agent(out: Output, card: AgentCard) -> None:
    _tell_head(out, f"{card.name}  {card.status}, since {card.started or card.last_seen}", card.description)
    if card.pool:
        out.text("a pool: any number of processes do its tasks")
    if card.capabilities:
        out.line(f"capabilities: {', '.join(card.capabilities)}")
    for skill in card.skills or ():
        out.line(f"skill {skill.id}: {skill.name or skill.description}")


def _tell_head(out: Output, head: str, description: str) -> None:
    out.line(head, "bold")
    if description:
        out.words(description)


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
