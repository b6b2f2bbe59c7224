"""Which of the tools and peers of a namespace a toolkit takes, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from mqtt_agent import Agent, AgentCard, ToolCard, ToolClient
from mqtt_agent.adapting.naming import legal_name

__all__ = ["Found", "Selection", "describe_peer", "find_peers", "find_tools", "name_all"]


@dataclass
class Selection:
    """What is wanted.

    Attributes:
        tools: Names of tools, or patterns such as ``git_*``; None takes all.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of servers; None takes all.
        tags: Words of which a card's ``meta["tags"]`` must have one; None takes all.
        where: A function from the card to whether it is wanted.
    """

    tools: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    servers: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    where: Callable[[ToolCard], bool] | None = None

    def takes(self, card: ToolCard, offered_by_wanted: set[str] | None) -> bool:
        """Whether a tool is wanted, whatever its name may be."""
        if any(fnmatchcase(card.tool, pattern) for pattern in self.exclude):
            return False
        if offered_by_wanted is not None and card.tool not in offered_by_wanted:
            return False
        if self.tags is not None and not set(self.tags) & _tags_of(card):
            return False
        return self.where is None or bool(self.where(card))


@dataclass
class Found:
    """What there is.

    Attributes:
        tools: The cards of the tools to take.
        missing: What was asked for by name and nobody offers.
    """

    tools: list[ToolCard] = field(default_factory=list[ToolCard])
    missing: list[str] = field(default_factory=list[str])


async def find_tools(client: ToolClient, wanted: Selection) -> Found:
    """The tools that are online and wanted."""
    found = Found()
    cards = {card.tool: card for card in await client.list_tools()}
    offered: set[str] | None = None
    if wanted.servers is not None:
        offered = {card.tool for server in wanted.servers for card in await client.list_tools(server)}
    for name in list(cards) if wanted.tools is None else wanted.tools:
        if _is_pattern(name):
            matching = [card for tool, card in cards.items() if fnmatchcase(tool, name)]
        else:
            # Where a broker's rules forbid listing, a card can still be had by its name.
            card = cards.get(name) or await client.get_tool(name)
            matching = [card] if card is not None and card.status == "online" else []
        if not matching and wanted.tools is not None:
            found.missing.append(name)
        found.tools += [card for card in matching if wanted.takes(card, offered) and card not in found.tools]
    return found


async def find_peers(agent: Agent, wanted: Literal["all"] | Sequence[str]) -> tuple[list[AgentCard], list[str]]:
    """The peers that are online and wanted, and the names of those that are not there."""
    cards = {card.name: card for card in await agent.peers()}
    if wanted == "all":
        # Who only gives tasks, as toolkits and remote agents do, takes none.
        return [card for card in cards.values() if not (card.meta or {}).get("requester")], []
    return [cards[name] for name in wanted if name in cards], [name for name in wanted if name not in cards]


def name_all(found: Sequence[ToolCard], taken: set[str], *, prefix: bool) -> list[tuple[str, ToolCard]]:
    """Names that a model can tell apart: with the server's name in front where two servers use the same."""
    named: list[tuple[str, ToolCard]] = []
    owners: dict[str, str] = {}
    for card in found:
        name = legal_name(card.tool, set())
        foreign = owners.setdefault(name, card.server) != card.server
        wished = f"{card.server}_{card.tool}" if prefix or foreign else card.tool
        named.append((legal_name(wished, taken), card))
    return named


def describe_peer(card: AgentCard) -> str:
    """What a model is told of a peer."""
    lines = [card.description or f"The agent {card.name}."]
    if card.capabilities:
        lines.append(f"Capabilities: {', '.join(card.capabilities)}.")
    for skill in card.skills or ():
        words = ": ".join(each for each in (skill.name or skill.id, skill.description) if each)
        lines.append(f"- {words}")
    return "\n".join(lines)[:_MAX_DESCRIPTION]


_MAX_DESCRIPTION = 1024


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _tags_of(card: ToolCard) -> set[str]:
    tags: Any = (card.meta or {}).get("tags")
    return {tag for tag in tags if isinstance(tag, str)} if isinstance(tags, list) else set()
