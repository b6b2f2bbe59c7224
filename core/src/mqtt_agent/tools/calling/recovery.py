"""Decides what to do with calls when a server, or the connection to the broker, is lost.

When a client does not know whether a server still has a call, the client asks every online server of the tool. Then
:func:`decide` chooses what to do with each call, and :class:`Recovery` carries out the decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.endpoints.retained import PATIENCE
from mqtt_agent.errors import ToolUnavailable
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.lost_servers import LostServers, takes
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.calling.pending import PendingCall
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.wire import ServerCard
from mqtt_agent.wire.cards import LISTED

__all__ = ["Decision", "Recovery", "Situation", "decide"]

logger: logging.Logger = logger_of(__name__)

_BROKER_STOPS_WITHIN = 2.0
"""Seconds before the client's reconnect. A server that went offline in this time is expected to come back."""
_LEAVES_WITHIN = 1.0
"""Seconds to wait until a lost server has left the share group of its tools."""
_AGE_IS_EXACT_TO = 3.0
"""Seconds by which the age of a retained card may be wrong: MQTT counts whole seconds."""
_RESTART_QUERIES = 3
"""How many times a new process is asked. It may be too busy to answer, because the broker gives it the old calls."""
_ASKED_AGAIN_AFTER = 2.0
"""Seconds until the servers are asked again for a call, when one of them has not answered in time."""


class Decision(Enum):
    """What to do with a call that may be lost."""

    KEEP = "keep waiting for the response"
    ASK_AGAIN = "ask the servers again: one that has not answered yet may have the call"
    SEND_AGAIN = "send the call again now"
    SEND_AGAIN_LATER = "send the call again when a lost server has had time to leave the tool's share group"
    FAIL_AS_LOST = "fail: the call may have run, and must not run twice"


@dataclass(frozen=True)
class Situation:
    """What the client knows of a call that may be lost, after it has asked the servers.

    Attributes:
        held: An online server has the call.
        tool_online: An online server offers the tool.
        repeatable: The call may run twice.
        server_ended: The process of a server that may have had the call has ended.
        unconfirmed: The connection was lost before the broker confirmed the call.
        all_answered: There are online servers of the tool, and each of them has answered.
        may_answer: The client can see all servers of the tool, and each of them answers queries, though perhaps later.
        group_left: Every lost server that may have had the call left the tool's share group before its card said
            offline. The servers of this package do this. A server of another implementation may stay in the group, and
            then the broker could still give the call to this server.
    """

    held: bool
    tool_online: bool
    repeatable: bool
    server_ended: bool
    unconfirmed: bool
    all_answered: bool
    may_answer: bool
    group_left: bool


def decide(call: Situation) -> Decision:
    """Choose what to do with a call that may be lost.

    A repeatable call is sent again. A call that must not run twice is sent again only when no server can have run it:
    all online servers say that they do not have the call, and no process that may have had the call has ended.
    """
    if call.held:
        return Decision.KEEP
    if not call.tool_online:
        return Decision.FAIL_AS_LOST
    if call.repeatable:
        return Decision.SEND_AGAIN if call.all_answered and call.group_left else Decision.SEND_AGAIN_LATER
    if call.server_ended:
        return Decision.FAIL_AS_LOST
    if call.unconfirmed and not call.all_answered:
        return Decision.ASK_AGAIN if call.may_answer else Decision.FAIL_AS_LOST
    # Without all answers, a server that did not answer may have the call.
    return Decision.SEND_AGAIN if call.all_answered else Decision.KEEP


class _Answers(NamedTuple):
    """What the servers of a tool have said.

    Attributes:
        servers: The servers that were asked.
        holders: For each call that a server has, the id of that server.
        all_answered: See :class:`Situation`.
        may_answer: See :class:`Situation`.
    """

    servers: list[str]
    holders: dict[str, str]
    all_answered: bool
    may_answer: bool


class Recovery:
    """Finds the calls that may be lost, asks the servers for them, and carries out the decision for each call.

    Args:
        catalog: The tools and the servers that serve them.
        calls: The calls of the client.
        queries: Asks servers which calls they have.
    """

    def __init__(self, catalog: LiveCatalog, calls: OutgoingCalls, queries: Queries) -> None:
        self._catalog = catalog
        self._calls = calls
        self._queries = queries
        self._lost_servers = LostServers(catalog)
        self._one_at_a_time = asyncio.Lock()
        self._tasks = BackgroundTasks()
        self._asked_again: set[str] = set()
        """The ids of the calls for which the servers are asked again in a moment."""

    def stop(self) -> None:
        """Cancel the recoveries that run in the background."""
        self._tasks.cancel()
        self._asked_again.clear()

    # What is lost

    def on_server_gone(self, card: ServerCard, with_its_calls: bool) -> None:
        """A server went offline, is on standby from now on, or came back without its session.

        Args:
            card: The server's last card.
            with_its_calls: Whether the server's process may have ended and lost its calls.
        """
        self._lost_servers.note(card)
        affected = self._may_be_at(card)
        if with_its_calls:
            for pending in affected:
                pending.lost_servers[card.server] = card.started
        self._recover_soon(affected)

    def on_server_restarted(self, before: ServerCard) -> None:
        """A new process has taken the place of a server, with the calls that the old process had not acknowledged.

        Args:
            before: The last card of the old process.
        """
        affected = self._may_be_at(before)
        if affected:
            for pending in affected:
                pending.restarted.append(before.server)
            self._tasks.start(self._recover_from_restart(before, affected))

    def on_reconnected(self, session_present: bool) -> None:
        """The connection is back.

        Args:
            session_present: Whether the broker kept the session. Otherwise it may have dropped responses.
        """
        self._calls.resend_until = asyncio.get_running_loop().time() + PATIENCE
        self._recover_soon([p for p in self._calls.under_way() if p.unconfirmed or not session_present])

    def on_expired(self, pending: PendingCall) -> None:
        """The expiry of a call's message is over, and a caller that has joined the call waits longer.

        A server drops a call that has not begun at its expiry. Then the call is sent again. A server that has begun the
        call keeps it.
        """
        self._recover_soon([pending])

    def resume(self, handle: CallHandle) -> None:
        """Send a call that was opened and that an earlier process may have sent, unless a server has the call."""
        pending = self._calls.pending(handle.call_id)
        if pending is not None:
            self._calls.expect_any(pending)
            self._tasks.start(self._find_or_send(pending))

    def _may_be_at(self, card: ServerCard) -> list[PendingCall]:
        """The calls that a server may have."""
        tools = takes(card)
        return [
            pending
            for pending in self._calls.under_way()
            if pending.resend is None  # no server has a call that is about to be sent again
            # A server that is known to have a call keeps it, even when the server does not offer the tool any more.
            and (pending.handle.server == card.server if pending.handle.server else pending.handle.tool in tools)
        ]

    # Asking

    def _recover_soon(self, affected: list[PendingCall]) -> None:
        if affected:
            self._tasks.start(self._recover(affected))

    async def _recover_from_restart(self, before: ServerCard, affected: list[PendingCall]) -> None:
        """Ask the new process which calls it has. The other calls are lost with the old process."""
        holders: dict[str, str] = {}
        for _ in range(_RESTART_QUERIES):
            # The broker keeps the order. So the new process gets the old process's calls first, and then the query.
            call_ids = [pending.handle.call_id for pending in affected if not pending.handle.done]
            holders, answered = await self._queries.ask([before.server], call_ids)
            if answered:
                break
        for pending in affected:
            pending.restarted.remove(before.server)
            if not pending.handle.done and holders.get(pending.handle.call_id) == before.server:
                pending.count_attempt()
        lost = [p for p in affected if not p.handle.done and p.resend is None and p.handle.call_id not in holders]
        for pending in lost:
            pending.lost_servers[before.server] = before.started
        self._recover_soon(lost)

    async def _recover(self, affected: list[PendingCall]) -> None:
        # Recoveries run one after the other. So a recovery finds the calls that an earlier recovery has sent again.
        async with self._one_at_a_time:
            # Responses that were on their way must arrive first.
            await self._catalog.barrier()
            tools: dict[str, list[PendingCall]] = {}
            for pending in affected:
                if not pending.handle.done:
                    tools.setdefault(pending.handle.tool, []).append(pending)
            await asyncio.gather(*(self._recover_tool(tool, pending) for tool, pending in tools.items()))

    async def _find_or_send(self, pending: PendingCall) -> None:
        silent: set[str] = set()
        turn = 0
        while not await self._is_found_or_sent(pending, silent):
            turn += 1
            if turn & (turn - 1) == 0:  # the first turn, and then less and less often
                logger.warning(
                    "%s: call %s of an earlier process is not sent, because not each of the servers that may have it "
                    "answers (%s). The client asks them again every %.0f s, until they answer or go offline, or until "
                    "the timeout of the call is over",
                    pending.handle.tool,
                    pending.handle.call_id,
                    ", ".join(sorted(silent)),
                    _ASKED_AGAIN_AFTER,
                )
            await asyncio.sleep(_ASKED_AGAIN_AFTER)

    async def _is_found_or_sent(self, pending: PendingCall, silent: set[str]) -> bool:
        """Ask once for a call of an earlier process, and decide what to do with the call.

        Args:
            pending: The call.
            silent: The servers that were asked before, when one of them did not answer. They are added here.

        Returns:
            False when the servers are to be asked again: one that is online has not answered, and may have the call.
        """
        handle = pending.handle
        asked = await self._ask(handle.tool, [pending], self._queries.can_ask)
        servers, holders = set(asked.servers), asked.holders
        if pending.confirmed is None:  # this process has not sent the call, so the response was kept
            for each in tuple(pending.handles):
                each.end_if_done()
        async with self._one_at_a_time:  # a recovery that began meanwhile may send the call
            if handle.done or pending.confirmed is not None:
                return True
            sure = (asked.all_answered or not servers) and silent <= servers
            if handle.call_id in holders:
                pending.moved_to(holders[handle.call_id])
            elif pending.repeatable or sure:
                self._calls.send_again(pending)
            elif asked.may_answer and silent <= servers:
                silent.update(servers)
                return False
            else:
                what = f"{handle.tool}: a server does not say whether it has this call of an earlier process"
                pending.fail(ToolUnavailable(what, tool=handle.tool, call_id=handle.call_id, maybe_executed=True))
            return True

    async def _recover_tool(self, tool: str, affected: list[PendingCall]) -> None:
        answers = await self._ask(tool, affected)
        again: list[PendingCall] = []
        for pending in affected:
            open_still = not pending.handle.done and pending.resend is None
            if open_still and self._carry_out(pending, answers) is Decision.ASK_AGAIN:
                again.append(pending)
        again = [pending for pending in again if pending.handle.call_id not in self._asked_again]
        if again:  # each call at most once, however often the connection was lost meanwhile
            self._asked_again.update(pending.handle.call_id for pending in again)
            self._tasks.start(self._ask_again(again))

    async def _ask_again(self, calls: list[PendingCall]) -> None:
        await asyncio.sleep(_ASKED_AGAIN_AFTER)
        self._asked_again.difference_update(pending.handle.call_id for pending in calls)
        self._recover_soon([pending for pending in calls if pending.unconfirmed and not pending.handle.done])

    async def _servers_to_ask(self, tool: str) -> list[str]:
        """Wait until the servers of a tool are known again, and return the ids of those that may have its calls."""
        await self._catalog.all_settled(tool)
        # A broker that stops normally publishes the Last Wills of its clients. So a server that went offline shortly
        # before the connection came back is expected to come back too.
        since = self._calls.resend_until - PATIENCE - _BROKER_STOPS_WITHIN
        lost = self._lost_servers.since(since, tool)
        await self._catalog.back(lost, self._calls.resend_until)
        await self._catalog.taken_over(tool)
        # A replica that has gone on standby still finishes its calls.
        serving = self._catalog.servers_of(tool)
        return [*serving, *(s for s in lost if s not in serving and self._catalog.is_server_online(s))]

    async def _ask(
        self, tool: str, calls: list[PendingCall], asked: Callable[[str], bool] = lambda _: True
    ) -> _Answers:
        """Ask the servers of a tool which of these calls they have.

        Args:
            tool: The tool.
            calls: Calls of the tool.
            asked: Whether to ask a server, given its id.

        Returns:
            What the servers have said. When the client cannot see all servers, not all have answered for a call that
            must not run twice.
        """
        servers = [server for server in await self._servers_to_ask(tool) if asked(server)]
        known = {card.server for card in self._catalog.servers()}
        holders, all_answered = await self._queries.ask(servers, [pending.handle.call_id for pending in calls])
        seen_all = True
        delicate = [each for each in calls if not each.repeatable and each.handle.call_id not in holders]
        if delicate:
            found, seen_all = await self._find_others(tool, delicate, known)
            all_answered = all_answered and seen_all
            others = [server for server in found if asked(server) and server not in servers]
            if others:
                held, told = await self._queries.ask(others, [pending.handle.call_id for pending in delicate])
                servers, holders, all_answered = [*servers, *others], {**holders, **held}, all_answered and told
        may_answer = seen_all and bool(servers) and all(map(self._queries.can_ask, servers))
        return _Answers(servers, holders, all_answered, may_answer)

    async def _find_others(self, tool: str, calls: list[PendingCall], known: set[str]) -> tuple[list[str], bool]:
        """Find all online servers of a tool: also those that its card does not list, those that have come online while
        the others were asked, and those that claim the tool's name.

        A server of an earlier version is not listed. When such a server is gone, it may have run the calls.

        Args:
            tool: The tool.
            calls: Calls of the tool.
            known: The servers whose cards the client had before.

        Returns:
            The ids of the servers, and whether the broker lets the client see all servers.
        """
        seen_all = await self._catalog.complete(once=True)
        cards = [card for card in self._catalog.servers() if tool in takes(card)]
        for card in cards:
            if card.server not in known and card.status != "online":
                for pending in calls:
                    if self._may_have_had(card, pending):
                        pending.lost_servers.setdefault(card.server, card.started)
        return [card.server for card in cards if card.status == "online"], seen_all

    def _may_have_had(self, card: ServerCard, pending: PendingCall) -> bool:
        """Whether a server that is gone, and that the client did not follow, may have had a call.

        A server that lists itself was followed, unless it died too early. Then it has died since the call was made.
        """
        gone = self._catalog.offline_since(card.server)
        return LISTED not in (card.features or ()) or (gone is not None and gone > pending.began - _AGE_IS_EXACT_TO)

    # Calls without a response

    async def denied(self, tool: str, calls: list[PendingCall]) -> list[PendingCall]:
        """Ask for calls that have no response, although the broker has confirmed them.

        Args:
            tool: The tool.
            calls: Calls of the tool.

        Returns:
            The calls that no online server has. None of them, when a server has not answered.
        """
        async with self._one_at_a_time:
            if not calls or not await self._catalog.barrier():
                return []
            _, holders, all_answered, _ = await self._ask(tool, calls)
            for pending in calls:
                holder = holders.get(pending.handle.call_id)
                if holder is not None and not pending.handle.done and self._catalog.is_server_online(holder):
                    if self._server_ended(pending):
                        self._count(pending, holder)
                    self._keep(pending, holder)
            return [p for p in calls if p.handle.call_id not in holders] if all_answered else []

    def may_go_again(self, pending: PendingCall) -> bool:
        """Decide about a call that no online server has: it fails if it must not run twice and may be at a lost server.

        Returns:
            Whether the call is to be sent again. If its server is lost, this is a new attempt.
        """
        handle = pending.handle
        gone = self._lost_servers.still_gone(handle.tool)
        server_ended = self._server_ended(pending)
        if server_ended:
            self._count(pending, None)
        if pending.repeatable or not (gone or server_ended):
            return True
        self._fail_as_lost(pending, gone[0] if gone else None)
        return False

    def _fail_as_lost(self, pending: PendingCall, server: str | None) -> None:
        handle = pending.handle
        what = f"{handle.tool}: {server or 'its server'} went offline while it had the call; the call may have run"
        pending.fail(ToolUnavailable(what, tool=handle.tool, call_id=handle.call_id, maybe_executed=True))

    # Deciding

    def _carry_out(self, pending: PendingCall, answers: _Answers) -> Decision:
        """Decide what to do with a call, and do it, except for asking again.

        Args:
            pending: The call.
            answers: What the servers have said.
        """
        handle = pending.handle
        holder = answers.holders.get(handle.call_id)
        if holder is not None and not self._catalog.is_server_online(holder):
            return Decision.KEEP  # it was lost after its answer, and the recovery from that loss decides
        server_ended = self._server_ended(pending)
        if server_ended:
            self._count(pending, holder)
        decision = decide(
            Situation(
                held=holder is not None,
                tool_online=self._catalog.is_online(handle.tool),
                repeatable=pending.repeatable,
                server_ended=server_ended,
                unconfirmed=pending.unconfirmed,
                all_answered=answers.all_answered,
                may_answer=answers.may_answer,
                group_left=all(self._queries.can_ask(server) for server in pending.lost_servers),
            )
        )
        logger.debug("call %s of tool %s: %s", handle.call_id, handle.tool, decision.value)
        if decision is Decision.SEND_AGAIN:
            self._calls.send_again(pending)
        elif decision is Decision.SEND_AGAIN_LATER:
            self._calls.send_again_later(pending, _LEAVES_WITHIN)
        elif decision is Decision.FAIL_AS_LOST:
            self._fail_as_lost(pending, handle.server)
        elif holder is not None:
            self._keep(pending, holder)
        return decision

    def _count(self, pending: PendingCall, holder: str | None) -> None:
        """Count one more attempt at a call whose server has ended.

        If the call's server was not known, the holder may have had the call from the start: this is no new attempt.
        """
        if holder is None or pending.handle.server is not None:
            pending.count_attempt()

    def _keep(self, pending: PendingCall, holder: str) -> None:
        """Wait for the server that has a call."""
        pending.unconfirmed = False
        pending.lost_servers.clear()
        pending.moved_to(holder)

    def _server_ended(self, pending: PendingCall) -> bool:
        """Whether a server that may have had a call has ended, and did not only lose its connection for a while."""
        for server, started in pending.lost_servers.items():
            card = self._catalog.server(server)
            if card is None or card.status != "online" or not started or card.started != started:
                return True
        return False
