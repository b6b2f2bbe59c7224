"""Finds the tools and peers that the user of a toolkit asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from mqtt_agent.adapting.calling import tool_client_of
from mqtt_agent.agents import Agent
from mqtt_agent.display.lacking import first_few
from mqtt_agent.display.suggestions import hint_for
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.logs import logger_of
from mqtt_agent.tools import ToolClient
from mqtt_agent.transport.url import BrokerURL
from mqtt_agent.wire import AgentCard, ToolCard

__all__ = [
    "EmptyHands",
    "Found",
    "OnUnavailable",
    "Peers",
    "Selection",
    "describe_peer",
    "find",
    "find_peers",
    "find_tools",
    "tell_missing",
]

logger: logging.Logger = logger_of(__name__)

OnUnavailable = Literal["skip", "raise"]
"""What a toolkit does about a wanted tool or peer that is offline: leave it out with a warning, or raise an error."""

Peers = Literal["all"] | Sequence[str]
"""Which peers are wanted: their agent ids, or ``all`` that are online."""

_MAX_DESCRIPTION = 1024
"""The longest description of a peer, in characters. Model providers refuse longer descriptions."""


@dataclass(frozen=True)
class Selection:
    """Which tools are wanted.

    Attributes:
        tools: Names of tools, or patterns such as ``git_*``; None takes all tools that are online.
        exclude: Names or patterns of tools that are not wanted.
        servers: Names or ids of servers whose tools are wanted; None takes the tools of all servers.
        tags: A tool is wanted when its card's ``meta["tags"]`` has one of these words; None takes all.
        where: A function that gets a card and returns whether the tool is wanted.

    Raises:
        ValueError: ``tools`` is a string, and not a list of strings.
    """

    tools: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    servers: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    where: Callable[[ToolCard], bool] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tools, str):
            raise ValueError(f"tools is a list of names: write [{self.tools!r}]")

    def takes(self, card: ToolCard, offered: set[str] | None) -> bool:
        """Whether a tool is wanted by ``exclude``, ``servers``, ``tags`` and ``where``. ``tools`` is not checked.

        Args:
            card: The tool's card.
            offered: The names of the tools that the wanted servers offer; None when every server is wanted.
        """
        if any(fnmatchcase(card.tool, pattern) for pattern in self.exclude):
            return False
        if offered is not None and card.tool not in offered:
            return False
        if self.tags is not None and not set(self.tags) & _tags_of(card):
            return False
        return self.where is None or bool(self.where(card))


@dataclass
class Found:
    """The result of a search for tools and peers.

    Attributes:
        tools: The cards of the wanted tools that are online, in the order in which they were asked for.
        missing: The names and patterns that were asked for and that no server offers.
        peers: The cards of the wanted peers that are online.
        missing_peers: The agent ids of the wanted peers that are not online.
        missing_servers: The names of the wanted servers that nobody has seen.
        hints: For a missing name, a text for the end of a message: it suggests the name that the user may have meant.
        asked: Whether anything was asked for at all.
        known: How many tools the broker knows, online and offline, whether they are wanted or not.
        online: How many of these tools are online.
        incomplete: What the lists of tools and peers lack, and why: one sentence for each reason.
    """

    tools: list[ToolCard] = field(default_factory=list[ToolCard])
    missing: list[str] = field(default_factory=list[str])
    peers: list[AgentCard] = field(default_factory=list[AgentCard])
    missing_peers: list[str] = field(default_factory=list[str])
    missing_servers: list[str] = field(default_factory=list[str])
    hints: dict[str, str] = field(default_factory=dict[str, str])
    asked: bool = True
    known: int = 0
    online: int = 0
    incomplete: list[str] = field(default_factory=list[str])


async def find(endpoint: Agent | ToolClient, wanted: Selection, peers: Peers | None = None) -> Found:
    """Find the wanted tools and peers that are online.

    Args:
        endpoint: Does the search: an agent, or a tool client if no peers are wanted.
        wanted: The tools.
        peers: The peers; None for no peers.

    Raises:
        TransportError: The broker is not reachable, or refuses the client.
    """
    found = await find_tools(tool_client_of(endpoint), wanted)
    if peers is not None and isinstance(endpoint, Agent):
        found.peers, found.missing_peers = await find_peers(endpoint, peers)
        found.asked = found.asked or bool(peers)
        everyone = await endpoint.peers(online_only=False)
        found.incomplete += [each for each in everyone.incomplete if each not in found.incomplete]
        names = [card.name for card in everyone]
        found.hints |= {peer: hint_for(peer, names, "agent") for peer in found.missing_peers if peer not in names}
    return found


async def find_tools(client: ToolClient, wanted: Selection) -> Found:
    """Find the wanted tools that are online.

    Raises:
        TransportError: The broker is not reachable, or refuses the client.
    """
    found = Found()
    listed = await client.list_tools(online_only=False)
    known = {card.tool: card for card in listed}
    lacking = listed if wanted.tools is not None else await client.list_tools()  # who names tools is told of these
    found.incomplete = list(lacking.incomplete)
    cards = {name: card for name, card in known.items() if card.status == "online"}
    found.asked = wanted.tools is None or bool(wanted.tools)
    found.known, found.online = len(known), len(cards)
    offered: set[str] | None = None
    if wanted.servers is not None:
        offered = {card.tool for server in wanted.servers for card in await client.list_tools(server)}
        seen = await client.list_servers(online_only=False)
        names = {name for card in seen for name in (card.shared_name, card.server)}
        found.missing_servers = [server for server in wanted.servers if server not in names]
        found.hints |= {server: hint_for(server, sorted(names), "server") for server in found.missing_servers}
    taken: set[str] = set()
    for name in list(cards) if wanted.tools is None else wanted.tools:
        if wanted.tools is not None and _is_pattern(name):
            matching = [card for tool, card in cards.items() if fnmatchcase(tool, name)]
        else:
            # Some brokers' access rules forbid listing. A card can still be fetched by its name.
            card = cards.get(name) or await client.get_tool(name)
            matching = [card] if card is not None and card.status == "online" else []
        if not matching and wanted.tools is not None:
            found.missing.append(name)
            found.hints[name] = "" if name in known else hint_for(name, known, "tool")
        for card in matching:
            if card.tool not in taken and wanted.takes(card, offered):
                taken.add(card.tool)
                found.tools.append(card)
    return found


async def find_peers(agent: Agent, wanted: Peers) -> tuple[list[AgentCard], list[str]]:
    """Find the wanted peers that are online.

    Args:
        agent: The agent whose peers are listed.
        wanted: Agent ids. Or ``all`` for every agent that takes tasks, without agents that only give tasks.

    Returns:
        The cards of the peers, and the names of the wanted peers that are not online.
    """
    cards = {card.name: card for card in await agent.peers()}
    if wanted == "all":
        return [card for card in cards.values() if not (card.meta or {}).get("requester")], []
    return [cards[name] for name in wanted if name in cards], [name for name in wanted if name not in cards]


def tell_missing(namespace: str, on_unavailable: OnUnavailable, found: Found) -> None:
    """Log a warning, or raise an error, about wanted tools, peers or servers that are missing.

    Tools whose calls may reach a server of another name are told in the log, too.

    Raises:
        ToolUnavailable: Something is missing and ``on_unavailable`` is ``raise``.
    """
    missing = [(name, "server offers this tool now") for name in found.missing]
    missing += [(name, "agent of this name is online now") for name in found.missing_peers]
    missing += [(name, "tool server of this name has been seen") for name in found.missing_servers]
    for card in found.tools:
        if card.also_offered_by:
            logger.warning(
                "%s: a call may reach server %s or server %s in namespace %r: give the tools of one of them a prefix",
                card.tool,
                card.server,
                ", ".join(card.also_offered_by),
                namespace,
            )
    for name, what in missing:
        message = f"{name}: no {what} in namespace {namespace!r}"
        hint = found.hints.get(name, "")
        if on_unavailable == "raise":
            raise ToolUnavailable(f"{message}{hint}", tool=name)
        logger.warning("%s; it is left out%s", message, hint)


class EmptyHands:
    """Logs a warning when a toolkit finds no tool and no peer, or when the list that it searches lacks some.

    A warning comes once, and not with each listing. When the toolkit finds something later, that is told once too.
    """

    def __init__(self) -> None:
        self._told = False
        self._lacking: list[str] = []

    def tell(self, found: Found, url: BrokerURL, namespace: str) -> None:
        """Look at the result of a search.

        Args:
            found: The result.
            url: The broker's URL. The user and the password are not logged.
            namespace: The prefix of all topics.
        """
        if found.incomplete != self._lacking and found.asked:
            self._lacking = found.incomplete
            for each in first_few(found.incomplete):
                logger.warning("the list of tools is incomplete in namespace %r at %s: %s", namespace, url, each)
        count = len(found.tools) + len(found.peers)
        if bool(count) != self._told or not found.asked:
            return
        self._told = not count
        if count:
            logger.warning("the agent has tools now: %d in namespace %r at %s", count, namespace, url)
            return
        why, advice = _why_nothing(found)
        logger.warning("the agent has no tools: %s in namespace %r at %s; %s", why, namespace, url, advice)


def _why_nothing(found: Found) -> tuple[str, str]:
    """Why a search found nothing, and what the user can do."""
    if found.online:
        return (
            f"none of the {found.online} online tools is wanted",
            "check the names and filters: tools, exclude, servers, tags and where",
        )
    listing = "ToolClient.list_tools(online_only=False) lists what the broker knows"
    if found.known:
        return f"none of the {found.known} known tools is online", f"start a tool server; {listing}"
    return "no tool is known", f"start a tool server, with the same broker and the same namespace; {listing}"


def describe_peer(card: AgentCard) -> str:
    """The description of a peer for a language model that chooses a tool."""
    lines = [card.description or f"The agent {card.name}."]
    if card.capabilities:
        lines.append(f"Capabilities: {', '.join(card.capabilities)}.")
    for skill in card.skills or ():
        words = ": ".join(each for each in (skill.name or skill.id, skill.description) if each)
        lines.append(f"- {words}")
    return "\n".join(lines)[:_MAX_DESCRIPTION]


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _tags_of(card: ToolCard) -> set[str]:
    tags = (card.meta or {}).get("tags")
    words = cast("list[Any]", tags) if isinstance(tags, list) else []
    return {tag for tag in words if isinstance(tag, str)}
