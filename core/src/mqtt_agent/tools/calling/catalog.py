"""Which tools there are, and who serves them: what the cards of one namespace say together."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Literal

from mqtt_agent.tools.calling.changes import ToolChange, ToolChanges
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = ["Catalog"]

_MAX_LISTINGS = 16


class Catalog:
    """The latest card of each tool and each server; others put them in and take them out."""

    def __init__(self) -> None:
        self.on_server_gone: list[Callable[[ServerCard, bool], None]] = []
        """Called with the last card of a server that went offline, stands by now, or came back without its session; and
        with whether the calls that it ran are gone too."""
        self.on_server_restarted: list[Callable[[ServerCard], None]] = []
        """Called with the last card of a server whose place a new process has taken, with the session of the old one
        and so with the calls that were not acknowledged."""
        self._tools: dict[str, ToolCard] = {}
        self._servers: dict[str, ServerCard] = {}
        self._serving: dict[str, set[str]] = {}
        self._mentioned: dict[str, int] = {}
        self._online: set[str] = set()
        self._watchers: weakref.WeakSet[ToolChanges] = weakref.WeakSet()
        self._listings: dict[
            tuple[str | None, bool], list[ToolCard]
        ] = {}  # made when asked for, until something changes

    def tools(self) -> list[ToolCard]:
        """All tool cards, by name."""
        return [self._tools[name] for name in sorted(self._tools)]

    def tool(self, name: str) -> ToolCard | None:
        """The card of one tool."""
        return self._tools.get(name)

    def servers(self) -> list[ServerCard]:
        """All server cards, by id."""
        return [self._servers[server] for server in sorted(self._servers)]

    def server(self, server: str) -> ServerCard | None:
        """The card of one server."""
        return self._servers.get(server)

    def is_server_online(self, server: str) -> bool:
        """Whether a server is there, be it to serve or to stand by."""
        card = self._servers.get(server)
        return card is not None and card.status == "online"

    def servers_of(self, tool: str) -> tuple[str, ...]:
        """The ids of the online servers that offer a tool."""
        return tuple(sorted(self._serving.get(tool, ())))

    def is_online(self, tool: str) -> bool:
        """Whether a tool can be called: an online server card lists it.

        Where no server card mentions the tool at all, its own card's status counts.
        """
        if tool in self._serving:
            return True
        card = self._tools.get(tool)
        if card is None or card.status != "online" or self._mentioned.get(tool):
            return False
        return not self.has_standby(tool)

    def has_standby(self, tool: str) -> bool:
        """Whether a replica of a tool's server stands by to take its place, or is about to."""
        card = self._tools.get(tool)
        if card is None:
            return False
        replicas = [c for c in self._servers.values() if c.name == card.server and c.status == "online"]
        return any(c.standby is not None and tool not in c.tools for c in replicas)

    def as_it_is(self, card: ToolCard) -> ToolCard:
        """A copy of a card with the status that is true now."""
        return card.model_copy(update={"status": "online" if self.is_online(card.tool) else "offline"})

    def listing(self, server: str | None, online_only: bool) -> list[ToolCard]:
        """Copies of the tool cards, by name, each with the status that is true now.

        Until something changes, the same list is given again.

        Args:
            server: Only those that this server offers: the name that its replicas share, or the id of one replica.
            online_only: Leave out what nobody serves now.
        """
        listing = self._listings.get((server, online_only))
        if listing is None:
            if len(self._listings) >= _MAX_LISTINGS:
                self._listings.clear()
            offered = {t for c in self._servers.values() if server in (c.server, c.name) for t in c.tools}
            listing = self._listings[server, online_only] = [
                self.as_it_is(card)
                for card in self.tools()
                if (not online_only or self.is_online(card.tool))
                and (server is None or card.server == server or card.tool in offered)
            ]
        return listing

    def watch(self) -> ToolChanges:
        """Changes from now on, until the iterator is closed or dropped."""
        watcher = ToolChanges()
        self._watchers.add(watcher)
        return watcher

    # Changing

    def put_tool(self, card: ToolCard) -> None:
        """A tool has this card now."""
        before = self._tools.get(card.tool)
        self._tools[card.tool] = card
        self._listings.clear()
        changed = before is None or (bool(self._watchers) and _essence(before) != _essence(card))
        self._tell(card.tool, changed=changed)

    def remove_tool(self, name: str) -> None:
        """A tool has no card any more."""
        self._listings.clear()
        if self._tools.pop(name, None) is not None:
            self._tell(name, changed=True)

    def put_server(self, card: ServerCard) -> bool:
        """A server has this card now.

        Returns:
            Whether that is so: not if it is the late will of an earlier connection.
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
        return True

    def remove_server(self, server: str) -> None:
        """A server has no card any more."""
        self._replace_server(server, None)

    def clear(self) -> None:
        """Forget everything, and tell those who watch that there is no more."""
        for watcher in tuple(self._watchers):
            watcher.close()
        self._listings.clear()
        self._tools.clear()
        self._servers.clear()
        self._serving.clear()
        self._mentioned.clear()
        self._online.clear()

    def _replace_server(self, server: str, card: ServerCard | None) -> None:
        self._listings.clear()
        before = self._servers.pop(server, None)
        if card is not None:
            self._servers[server] = card
        offered_before = set(before.tools) if before is not None else set[str]()
        offered_now = set(card.tools) if card is not None else set[str]()
        for tool in offered_now - offered_before:
            self._mentioned[tool] = self._mentioned.get(tool, 0) + 1
        for tool in offered_before - offered_now:
            self._mentioned[tool] -= 1
            if not self._mentioned[tool]:
                del self._mentioned[tool]
        serving = offered_now if card is not None and card.status == "online" else set[str]()
        for tool in offered_before | offered_now:
            servers = self._serving.setdefault(tool, set())
            size = len(servers)
            (servers.add if tool in serving else servers.discard)(server)
            changed = len(servers) != size
            if not servers:
                del self._serving[tool]
            self._tell(tool, changed=changed)
        if before is not None and before.status == "online" and (card is None or card.status != "online"):
            self._tell_gone(before, True)

    def _tell_gone(self, card: ServerCard, with_its_calls: bool) -> None:
        for listener in tuple(self.on_server_gone):
            listener(card, with_its_calls)

    def _tell(self, tool: str, *, changed: bool) -> None:
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
        for watcher in tuple(self._watchers):
            watcher.put(change)


def _essence(card: ToolCard) -> ToolCard:
    return card.model_copy(update={"last_seen": "", "status": "online"})
