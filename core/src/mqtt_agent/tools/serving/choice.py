"""The tools that a server offers at a moment, also when tools are added, removed or replaced while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mqtt_agent.aio.lifecycle import Lifecycle
from mqtt_agent.errors import ToolNameTaken
from mqtt_agent.tools.serving.changing import Changes
from mqtt_agent.tools.serving.intake import Intake
from mqtt_agent.tools.serving.names import ToolNames
from mqtt_agent.tools.serving.offering import Offered, ToolOffering
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.transport import Connection
from mqtt_agent.wire import ToolCard

__all__ = ["ToolChoice"]


class ToolChoice(ToolOffering):
    """The part of a tool server that offers the tools whose names the server has.

    Attributes:
        connection: The server's connection to the broker.
    """

    connection: Connection
    _lifecycle: Lifecycle
    _changes: Changes
    _intake: Intake
    _names: ToolNames
    _presence: Presence
    _offered: dict[str, ToolCard]
    _withdrawing: set[str]
    _taking: bool

    # The names of the tools

    def _is_settled(self, name: str) -> bool:
        return name in self._offered or name in self._names.refused

    def _is_missing(self, name: str) -> bool:
        """Whether the server has a tool, but has not found out yet whether it may offer the tool."""
        return name in self._served and not self._is_settled(name)

    async def _prepare(self, names: list[str]) -> None:
        """Follow the cards of tools, and get ready for their calls."""

        async def prepare(name: str) -> None:
            await self._names.follow(name)
            await self._intake.prepare(name, self._served[name])

        for error in await asyncio.gather(*map(prepare, names), return_exceptions=True):
            if error is not None:
                raise error

    async def _find_names(self, names: list[str]) -> None:
        """Find out which tools the server may offer, and take their calls.

        At a broker without shared subscriptions, the names are claimed by the replica that the election has chosen.
        """
        if self.connection.shared_subscriptions or (self._taking and self._presence.serving):
            await self._names.claim(names, starting=True)
            await self._offer(names)
        else:
            await self._names.check(names)
            self._offered.update({name: self._cards[name] for name in names if name not in self._names.refused})

    async def _offer(self, names: list[str]) -> None:
        """Take the calls of those tools whose names the server has. Take no calls of the other tools."""
        held = [name for name in names if name in self._names.held]
        await asyncio.gather(*(self._drop(name) for name in names if name not in self._names.held))
        await self._intake.admit(held)
        self._offered.update({name: self._cards[name] for name in held})

    async def _drop(self, name: str) -> None:
        self._offered.pop(name, None)
        await self._intake.drop(name)

    async def _claim_when_elected(self) -> None:
        """Claim the names of all tools, because this replica is about to serve."""
        await self._prepare(list(self._served))
        names = self._names.claimable
        await self._names.claim(names, starting=not self._lifecycle.started)
        await self._offer(names)

    async def _take_over(self, names: list[str]) -> None:
        """Offer tools whose names have become free."""
        await self._prepare(names)
        await self._offer(names)
        await self._presence.announce_tools(names)

    async def _give_up(self, names: list[str]) -> None:
        """Stop offering tools whose names another server has. Calls that have arrived are finished."""
        for name in names:
            self._offered.pop(name, None)
            await self._intake.leave(name)
        if self._presence.announced:
            await self._presence.announce_server()
        await self._intake.sees_all()  # calls that the broker had given to this server
        await asyncio.gather(*map(self._drop, names))
        if self.connection.sends_retained_once:  # there, an UNSUBSCRIBE leaves the share groups of all tools
            await self._intake.admit(self._offered, again=True)

    # Tools that are added, removed or replaced while the server runs

    def _on_added(self, name: str) -> Offered:
        return self._change_soon(self._changes.add, name)

    def _on_removed(self, name: str) -> Offered:
        if self._lifecycle.user is None:
            self._forget(name)
        return self._change_soon(self._changes.remove, name)

    def _on_replaced(self, name: str) -> Offered:
        return self._change_soon(self._changes.replace, name)

    def _change_soon(self, change: Callable[[str, Offered], None], name: str) -> Offered:
        offered = Offered()
        loop = self._lifecycle.user
        if loop is None:
            return offered.done()
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(change, name, offered)
            return offered
        return offered.done()

    async def _offer_late(self, names: list[str]) -> dict[str, ToolNameTaken]:
        """Offer tools that were added to the started server."""
        taken: dict[str, ToolNameTaken] = {}
        await self._prepare(names)
        try:
            while names:
                try:
                    await self._find_names(names)
                    break
                except ToolNameTaken as error:
                    taken[error.tool] = error
                    self._forget(error.tool)
                    await self._drop(error.tool)
                    await self._names.unfollow(error.tool)
                    names = [name for name in names if name != error.tool]
        finally:
            if self._presence.announced and (taken or not self._offered.keys() >= set(names)):
                await self._presence.announce_server()  # with the refused names, and without the claims
        await self._presence.announce_tools([name for name in names if name in self._offered])
        return taken

    async def _remove(self, names: list[str]) -> None:
        """Stop offering tools, finish the calls that have arrived, and remove the cards."""
        held = [name for name in names if name in self._names.held]
        self._withdrawing.update(held)
        for name in names:
            self._offered.pop(name, None)
            self._forget(name)
            self._presence.forget_digest(name)
        await self._give_up(names)
        shared = await self._names.unfollow_all(names)
        if self._presence.announced and self._presence.serving:
            await self._presence.withdraw(held, self._intake.sees_all, everyone=shared)
            self._withdrawing.difference_update(held)

    async def _replace(self, names: list[str]) -> None:
        """Publish the new cards of tools whose handlers were replaced."""
        for name in names:
            self._presence.forget_digest(name)
            self._intake.replace(name, self._served[name])
            if name in self._offered:
                self._offered[name] = self._cards[name]
        await self._presence.announce_tools([name for name in names if name in self._offered])
