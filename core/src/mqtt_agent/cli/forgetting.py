"""The verb ``forget``: removes the cards of tools, servers and agents that are gone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from mqtt_agent.cli.output import ANSWER_WAS_ERROR
from mqtt_agent.cli.people import looking_at_peers, read_line
from mqtt_agent.cli.settings import UsageError
from mqtt_agent.cli.verbs import Session, verb
from mqtt_agent.display.suggestions import did_you_mean
from mqtt_agent.tools import ToolClient
from mqtt_agent.wire import Topics

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb ``forget``."""
    verb(app, "forget")(forget)


async def forget(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(help="Tools, servers or agents. Default: all that are offline.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also the NAMES that say online. Who is alive publishes its card again.")
    ] = False,
) -> int:
    """Remove the cards of tools, servers and agents that are offline and will not come back. It asks first."""
    topics = Topics(session.settings.place.namespace)
    async with session.client() as client:
        gone, known = await _look(session, client, topics, chosen=set(names or ()) if force else set())
        for name in names or ():
            if name not in gone:
                why = "is online" if name in known else f"is not known{did_you_mean(name, known)}"
                raise UsageError(
                    f"{name!r} {why}: only what is offline can be forgotten, or, with --force, what says online"
                )
        chosen = {name: gone[name] for name in (names or sorted(gone))}
        if not chosen:
            session.out.note("nothing is offline, so there is nothing to forget")
            return 0
        session.out.note("cards of: " + ", ".join(chosen))
        if not yes and not await _agreed(session):
            return ANSWER_WAS_ERROR
        for name, cards in chosen.items():
            for topic in cards:
                await client.connection.publish(topic, b"", retain=True)
            if session.out.machine:
                session.out.json({"forgotten": name})
    session.out.note(f"forgotten: {len(chosen)}")
    return 0


async def _agreed(session: Session) -> bool:
    session.out.ask("Remove these cards? [y/N] ")
    return (await read_line()).strip().lower() in ("y", "yes")


async def _look(
    session: Session, client: ToolClient, topics: Topics, chosen: Collection[str]
) -> tuple[dict[str, list[str]], set[str]]:
    """The topics of what is offline or chosen, by name, and all names."""
    gone: dict[str, list[str]] = {}
    known: set[str] = set()

    def found(name: str, status: str, *cards: str) -> None:
        known.add(name)
        if status == "offline" or name in chosen:
            gone.setdefault(name, []).extend(cards)

    for tool in await client.list_tools(online_only=False):
        found(tool.tool, tool.status, topics.tool_card(tool.tool))
    for server in await client.list_servers(online_only=False):
        found(server.server, server.status, topics.server_card(server.server))
    async with looking_at_peers(session) as (peers, _):
        for card in await peers.cards():
            found(card.name, card.status, topics.agent_card(card.name), topics.agent_status(card.name))
    return gone, known
