"""The tools of one namespace and the servers of each tool, according to the cards of the namespace."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection
from itertools import islice
from typing import Literal

from mqtt_agent.aio.arrivals import first_come
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.display.suggestions import counted
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.changes import ToolChange, ToolChanges
from mqtt_agent.wire import BOUND, ServerCard, ToolCard

__all__ = ["Catalog"]

logger: logging.Logger = logger_of(__name__)

_MAX_LISTINGS = 16
_MAX_NAMED = 16
"""How many servers that a tool's cards have named are remembered."""
_MOST_COMPARED = 20_000
"""How many servers of the tools of one card are compared, to find those of other names that offer the same tools."""
_MOST_PAIRS_TOLD = 1000
Share = Literal["all", "some", "none"]
"""How many of the servers of a tool speak sender-bound topics."""


class Catalog:
    """The latest card of each tool and each server. :class:`LiveCatalog` puts the cards in and takes them out.

    Args:
        proves: Whether the broker proves who has written a card: only a server itself writes its server card, and only
            the servers of a tool write the tool's card. Then what one card says is believed only if the other card
            says it too: a server can write any tool into its server card, and any server into the card of its tool.

    Attributes:
        on_server_gone: Functions to call when a server went offline, is on standby from now on, or came back without
            its session. The first argument is the server's last card. The second argument is a bool: whether the
            server's process may have ended and lost its calls.
        on_server_restarted: Functions to call when a new process has taken over the session of a server's old process,
            with the calls that the old process had not acknowledged. The argument is the last card of the old process.
    """

    def __init__(self, *, proves: bool = False) -> None:
        self._proves = proves
        self.on_server_gone: list[Callable[[ServerCard, bool], None]] = []
        self.on_server_restarted: list[Callable[[ServerCard], None]] = []
        self._tools: dict[str, ToolCard] = {}
        self._servers: dict[str, ServerCard] = {}
        self._serving: dict[str, set[str]] = {}
        """The online servers that offer each tool."""
        self._bound: dict[str, Share] = {}
        """For each tool that was asked for since its servers last changed, how many of them speak bound topics."""
        self._named: dict[str, dict[str, None]] = {}
        """The names of the servers that the cards of each tool have named, the latest last."""
        self._mentioned: dict[str, set[str]] = {}
        """The servers whose cards list each tool, also those that are offline."""
        self._awaited: dict[str, set[str]] = {}
        """For each tool, the online servers that claim its name or wait for it."""
        self._electing: dict[str, set[str]] = {}
        """For each server name, the online replicas that serve or are on standby in an election."""
        self._online: set[str] = set()
        """The tools that were online when the watchers were last told."""
        self._watchers: weakref.WeakSet[ToolChanges] = weakref.WeakSet()
        self._told: set[frozenset[str]] = set()
        """The pairs of server names whose common tools were told in the log."""
        self._listings: dict[tuple[str | None, bool], list[ToolCard]] = {}
        """Listings that were asked for since the last change."""
        self._unavailable: dict[str, ServerCard] = {}
        """The cards of the servers that do not serve what they have, although nobody has stopped them."""
        self._worked: dict[str, None] = {}
        """The servers that have been online, in the order in which they came."""
        self._missing: tuple[int, dict[str, ServerCard]] = (-1, {})
        """What :meth:`missing` has returned last, and after how many changes."""
        self._changes = 0
        """How often the cards have changed."""
        self._shown: dict[str, tuple[ToolCard, ToolCard]] = {}
        """For each tool, its card, and the copy of the card that callers got last."""

    def tools(self) -> list[ToolCard]:
        """All tool cards, sorted by name."""
        return [self._tools[name] for name in sorted(self._tools)]

    def tool(self, name: str) -> ToolCard | None:
        """The card of one tool."""
        return self._tools.get(name)

    def servers(self) -> list[ServerCard]:
        """All server cards, sorted by server id."""
        return [self._servers[server] for server in sorted(self._servers)]

    def server(self, server: str) -> ServerCard | None:
        """The card of one server."""
        return self._servers.get(server)

    def is_server_online(self, server: str) -> bool:
        """Whether a server is online. It may serve or be on standby."""
        card = self._servers.get(server)
        return card is not None and card.status == "online"

    def servers_of(self, tool: str) -> tuple[str, ...]:
        """The ids of the online servers that offer a tool."""
        return tuple(sorted(self._serving.get(tool, ())))

    def speaks_bound(self, tool: str) -> Share | None:
        """How many of the online servers of a tool speak sender-bound topics; None when no such server is known."""
        share = self._bound.get(tool)
        if share is None and tool in self._serving:
            told = [BOUND in (self._servers[server].features or ()) for server in self._serving[tool]]
            share = self._bound[tool] = "all" if all(told) else "some" if any(told) else "none"
        return share

    def may_answer(self, tool: str, server: str) -> bool:
        """Whether a replica may answer calls of a tool: a card of the tool has named its server.

        Only the servers of a tool may publish the card of the tool. While no card of the tool is known, every server
        may answer.
        """
        names = self._named.get(tool)
        if not names or server in names or server.partition(":")[0] in names:
            return True
        return any(server.startswith(f"{name}:") for name in names)

    def is_online(self, tool: str) -> bool:
        """Whether a tool can be called, because an online server card lists it.

        The status of the tool's own card decides when no server card, online or offline, lists the tool, and no
        replica is on standby for the tool.
        """
        card = self._tools.get(tool)
        if self._proves:
            return card is not None and card.server in self._names_of(tool)
        if tool in self._serving:
            return True
        if card is None or card.status != "online" or self._mentioned.get(tool):
            return False
        return not self.has_standby(tool)

    def has_standby(self, tool: str) -> bool:
        """Whether an online server is on standby for the tool, or begins to serve it.

        This is a replica of the tool's server, or another server that waits for the tool's name.
        """
        card = self._tools.get(tool)
        replicas = self._electing.get(card.server, ()) if card is not None else ()
        waiting = (*self._awaited.get(tool, ()), *replicas)
        return any(tool not in self._servers[server].tools for server in waiting)

    def as_it_is(self, card: ToolCard) -> ToolCard:
        """A copy of a tool card with the tool's present status, and with the other servers that offer the tool.

        Until one of these changes, it is the same copy.
        """
        status = "online" if self.is_online(card.tool) else "offline"
        # The card may still name a server that is gone. Then a single server has the tool for itself.
        several = len(self._serving.get(card.tool, ())) > 1
        names = self._names_of(card.tool) if several else ()
        others = sorted(set(names) - {card.server}) if len(names) > 1 else []
        shown = self._shown.get(card.tool)
        if shown is None or shown[0] is not card or shown[1].status != status or shown[1].also_offered_by != others:
            shown = (card, card.model_copy(update={"status": status}).with_others(others))
            self._shown[card.tool] = shown
        return shown[1]

    def _names_of(self, tool: str) -> set[str]:
        """The names of the online servers that offer a tool. Replicas share a name."""
        return {self._servers[server].shared_name for server in self._serving.get(tool, ())}

    async def listing(self, server: str | None, online_only: bool) -> list[ToolCard]:
        """Copies of the tool cards, sorted by name, each with the tool's present status.

        Until a card changes, the same list is returned again. A long list is made in steps, between which the event
        loop does other work.

        Args:
            server: Only the tools of this server: a server's name, which its replicas share, or the id of one replica.
            online_only: Only the tools that a server serves now.
        """
        listing = self._listings.get((server, online_only))
        if listing is None:
            listing, changes = list[ToolCard](), self._changes
            offered = None if server is None else self._offered_by(server)
            names = sorted(self._tools if offered is None else self._tools.keys() & offered)
            async for name in in_steps(names):
                card = self._tools.get(name)
                if card is not None and (not online_only or self.is_online(name)):
                    listing.append(self.as_it_is(card))
            if self._changes == changes:
                if len(self._listings) >= _MAX_LISTINGS:
                    self._listings.clear()
                self._listings[server, online_only] = listing
        return listing

    def missing(self) -> dict[str, ServerCard]:
        """The servers of which no replica serves what it has, although nobody has stopped them: cards by name.

        They come in the order of :meth:`by_age`.
        """
        if self._missing[0] != self._changes:
            missing = {card.shared_name: card for _, card in sorted(self._unavailable.items())}
            missing = {name: missing[name] for name in self.by_age(missing)}
            if missing:
                serving = (c for c in self._servers.values() if c.status == "online" and c.unavailable is None)
                for name in {card.shared_name for card in serving}:
                    missing.pop(name, None)
            self._missing = self._changes, missing
        return self._missing[1]

    def by_age(self, names: Collection[str]) -> list[str]:
        """The names of servers in another order: those that have been online come first, as they came.

        So somebody who writes many cards of servers that never were cannot hide a server that was lost.
        """
        if not names:
            return []
        return first_come(dict.fromkeys(self._servers[each].shared_name for each in self._worked), names)

    def missing_tools(self, server: str | None, online_only: bool) -> dict[str, ServerCard]:
        """The servers of these whose tools a listing lacks; see :meth:`listing`."""
        return {
            name: card
            for name, card in self.missing().items()
            if server in (None, name, card.server) and self._lacks_tools(card, online_only)
        }

    def _lacks_tools(self, card: ServerCard, online_only: bool) -> bool:
        if not card.tools:  # a lost server that has something else may have no tools
            return card.status == "online" or not card.capabilities
        return online_only and any(not self.is_online(tool) for tool in card.tools)

    def _forget_listings(self) -> None:
        self._changes += 1
        self._listings.clear()

    def _offered_by(self, server: str) -> set[str]:
        """The tools of a server, given by its name or by the id of one replica.

        Another server may have taken over a tool of a server that is offline. Then the tool belongs to the other.
        """
        cards = [card for card in self._servers.values() if server in (card.server, card.shared_name)]
        tools = {tool for card in cards if card.status == "online" for tool in card.tools}
        tools |= {tool for card in cards for tool in card.tools if tool not in self._serving}
        if self._proves:
            return tools
        return tools | {name for name, c in self._tools.items() if c.server == server and name not in self._serving}

    def watch(self) -> ToolChanges:
        """Iterate over the changes from now on, until the iterator is closed or no longer referenced."""
        watcher = ToolChanges()
        self._watchers.add(watcher)
        return watcher

    # Changing

    def put_tool(self, card: ToolCard) -> None:
        """Keep a tool's card, which replaces the tool's earlier card."""
        before = self._tools.get(card.tool)
        self._tools[card.tool] = card
        self._forget_listings()
        named = self._named.setdefault(card.tool, {})
        is_new = card.server not in named
        named.pop(card.server, None)
        named[card.server] = None
        if len(named) > _MAX_NAMED:
            del named[next(iter(named))]
        if self._proves and is_new:
            self._find_servers_of(card.tool)  # a server that lists the tool may be one of the tool's now
        changed = before is None or (bool(self._watchers) and _essence(before) != _essence(card))
        self._tell_watchers(card.tool, changed=changed)

    def remove_tool(self, name: str) -> None:
        """Forget a tool's card, which was removed from the broker."""
        self._forget_listings()
        self._shown.pop(name, None)
        if self._tools.pop(name, None) is not None:
            self._tell_watchers(name, changed=True)

    def put_server(self, card: ServerCard) -> bool:
        """Keep a server's card, which replaces the server's earlier card.

        Returns:
            Whether the card was kept. A late Last Will of an earlier connection is not kept.
        """
        before = self._servers.get(card.server)
        if before is not None and before.status == "online":
            if card.status != "online" and card.speaks_before(before):
                return False
            if card.status == "online" and card.session_present is False:
                if card.started != before.started:
                    self._tell_gone(before, True)
                elif card.epoch != before.epoch:
                    self._tell_gone(before, False)
            elif card.status == "online" and card.session_present and card.started != before.started:
                for listener in tuple(self.on_server_restarted):
                    listener(before)
            elif card.status == "online" and card.standby and not before.standby:
                self._tell_gone(before, False)
        self._replace_server(card.server, card)
        self._tell_shared_names(card)
        return True

    def remove_server(self, server: str) -> None:
        """Forget a server's card, which was removed from the broker."""
        self._replace_server(server, None)

    def clear(self) -> None:
        """Forget all cards, and end the iteration of all watchers."""
        for watcher in tuple(self._watchers):
            watcher.close()
        self._forget_listings()
        self._shown.clear()
        self._tools.clear()
        self._servers.clear()
        self._unavailable.clear()
        self._worked.clear()
        self._serving.clear()
        self._bound.clear()
        self._named.clear()
        self._mentioned.clear()
        self._awaited.clear()
        self._electing.clear()
        self._online.clear()

    def _replace_server(self, server: str, card: ServerCard | None) -> None:
        self._forget_listings()
        before = self._servers.pop(server, None)
        self._unavailable.pop(server, None)
        if card is not None:
            self._servers[server] = card
            if card.unavailable is not None:
                self._unavailable[server] = card
            elif card.status == "online":
                self._worked.setdefault(server)
        else:
            self._worked.pop(server, None)
        _move(self._awaited, server, _awaits(before), _awaits(card))
        _move(self._electing, server, _elects(before), _elects(card))
        offered_before = set(before.tools) if before is not None else set[str]()
        offered_now = set(card.tools) if card is not None else set[str]()
        _move(self._mentioned, server, offered_before, offered_now)
        serving = offered_now if card is not None and card.status == "online" else set[str]()
        if self._proves:
            serving = {tool for tool in serving if self._named.get(tool) and self.may_answer(tool, server)}
        for tool in offered_before | offered_now:
            self._bound.pop(tool, None)
            servers = self._serving.setdefault(tool, set())
            size = len(servers)
            (servers.add if tool in serving else servers.discard)(server)
            changed = len(servers) != size
            if not servers:
                del self._serving[tool]
            self._tell_watchers(tool, changed=changed)
        if before is not None and before.status == "online" and (card is None or card.status != "online"):
            self._tell_gone(before, True)

    def _find_servers_of(self, tool: str) -> None:
        """Note which servers serve a tool, after its card has named another server."""
        listing = (self._servers[each] for each in self._mentioned.get(tool, ()))
        serving = {each.server for each in listing if each.status == "online" and self.may_answer(tool, each.server)}
        self._bound.pop(tool, None)
        changed = serving != self._serving.pop(tool, set())
        if serving:
            self._serving[tool] = serving
        self._tell_watchers(tool, changed=changed)

    def _tell_shared_names(self, card: ServerCard) -> None:
        """Log a warning when a server offers tools that a server of another name offers too, once for each pair.

        Anybody may offer any tools, so neither the search nor the log grows with the number of servers and tools.
        """
        if card.status != "online" or len(self._told) >= _MOST_PAIRS_TOLD:
            return
        shared: dict[str, list[str]] = {}
        left = _MOST_COMPARED
        for tool in card.tools:
            servers = self._serving.get(tool, ())
            if len(servers) > 1 and left > 0:
                left -= len(servers)
                for other in {self._servers[each].shared_name for each in islice(servers, left + len(servers))}:
                    shared.setdefault(other, []).append(tool)
        shared.pop(card.shared_name, None)
        for other, tools in shared.items():
            pair = frozenset((card.shared_name, other))
            if pair not in self._told and len(self._told) < _MOST_PAIRS_TOLD:
                self._told.add(pair)
                first, second = sorted(pair)
                more = f" and {counted(len(tools) - 1, 'more tool')}" if len(tools) > 1 else ""
                logger.warning(
                    "servers %.80r and %.80r both offer tool %.80r%s, so a call may reach either of them: give one of"
                    " them a prefix, or stop it",
                    first,
                    second,
                    tools[0],
                    more,
                )

    def _tell_gone(self, card: ServerCard, with_its_calls: bool) -> None:
        for listener in tuple(self.on_server_gone):
            listener(card, with_its_calls)

    def _tell_watchers(self, tool: str, *, changed: bool) -> None:
        card = self._tools.get(tool)
        online = card is not None and self.is_online(tool)
        was_online = tool in self._online
        if online == was_online and not (changed and card is not None):
            return
        (self._online.add if online else self._online.discard)(tool)
        if not self._watchers:
            return
        kind: Literal["online", "offline", "changed"]
        kind = "changed" if online == was_online else "online" if online else "offline"
        change = ToolChange(kind, tool, card, self.servers_of(tool))
        size = self._size_of(tool)
        for watcher in tuple(self._watchers):
            watcher.put(change, size)

    def _size_of(self, tool: str) -> int:
        """About how many bytes of memory the card of a tool takes; 0 when this is not known."""
        return 0


def _essence(card: ToolCard) -> ToolCard:
    """A card without the parts that change at each publish."""
    return card.model_copy(update={"last_seen": "", "status": "online"})


def _awaits(card: ServerCard | None) -> set[str]:
    """The tools whose names an online server claims or waits for."""
    return set() if card is None or card.status != "online" else {*(card.refused or ()), *(card.claims or ())}


def _elects(card: ServerCard | None) -> set[str]:
    """The name of an online server that takes part in an election, in a set."""
    return set() if card is None or card.status != "online" or card.standby is None else {card.shared_name}


def _move(servers: dict[str, set[str]], server: str, before: set[str], now: set[str]) -> None:
    """Note that a server belongs to other keys than before."""
    for key in before - now:
        servers[key].discard(server)
        if not servers[key]:
            del servers[key]
    for key in now - before:
        servers.setdefault(key, set()).add(server)
