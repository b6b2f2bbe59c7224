"""Asks the servers for calls without a response, because a broker may confirm a message and lose it nevertheless."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.calling.pacing import PacedCalls
from mqtt_agent.tools.calling.pending import PendingCall
from mqtt_agent.tools.calling.recovery import Recovery

__all__ = ["FollowUp"]

logger: logging.Logger = logger_of(__name__)

_EVERY = 1.0
"""Seconds between two looks at the calls under way."""
_ASKED_EVERY = 32
"""The most looks between two queries for one call. Up to this number, the distance doubles."""
_AT_ONCE = 1000
"""How many calls are asked for at once: the number that one query holds."""
_SECOND_ASKED_AFTER = 0.2
"""Seconds until servers are asked once more for a call that must not run twice."""


class FollowUp:
    """Asks for calls that have no response after two seconds, and then less and less often.

    A call that every online server denies is sent again when it is repeatable, or when no server that is gone may have
    it. Otherwise, the call fails as lost. The calls under way are looked at together, so that a call costs nothing.

    Args:
        calls: The calls of the client.
        recovery: Knows which servers may have a call.
    """

    def __init__(self, calls: OutgoingCalls, recovery: Recovery) -> None:
        self._calls = calls
        self._recovery = recovery
        self._tasks = BackgroundTasks()
        self._asking: asyncio.Task[None] | None = None
        calls.look_after = self._look_later

    def stop(self) -> None:
        """Ask no more."""
        self._tasks.cancel()
        self._calls.stop_looking()

    def _look_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(_EVERY, self._look)

    def _look(self) -> None:
        under_way = self._calls.under_way()
        self._calls.looking = self._look_later() if under_way else None
        for pending in under_way:
            pending.looks += 1
        if self._asking is not None and not self._asking.done():
            return
        due = [each for each in under_way if each.looks >= each.ask_at and _is_sent(each)][:_AT_ONCE]
        if due:
            for pending in due:
                pending.ask_at = pending.looks + min(pending.looks, _ASKED_EVERY)
            self._asking = self._tasks.start(self._ask(due))

    async def _ask(self, due: list[PendingCall]) -> None:
        tools: dict[str, list[PendingCall]] = {}
        for pending in due:
            tools.setdefault(pending.handle.tool, []).append(pending)
        await asyncio.gather(*(self._ask_for(tool, calls) for tool, calls in tools.items()))
        if any(pending.handle.done for pending in due):
            # The servers send responses again that the broker has lost. Of many, it may lose some again.
            for pending in due:
                pending.ask_at = pending.looks + 1

    async def _ask_for(self, tool: str, calls: list[PendingCall]) -> None:
        lost = await self._find_lost(tool, calls)
        if not lost:
            return
        logger.info("the broker has lost %d calls of tool %s: they are sent again", len(lost), tool)
        paced = self._calls.paced.get(tool)
        if paced is None:
            paced = self._calls.paced[tool] = PacedCalls(self._calls.send_again, partial(self._find_lost, tool))
            running = self._tasks.start(paced.run())
            running.add_done_callback(lambda _: self._calls.paced.pop(tool, None))
        for pending in lost:
            paced.add(pending)

    async def _find_lost(self, tool: str, calls: list[PendingCall]) -> list[PendingCall]:
        """Ask for calls, and let those fail that a server which is gone may have run.

        Returns:
            The calls that are to be sent again.
        """
        lost = await self._recovery.denied(tool, [each for each in calls if _is_sent(each)])
        delicate = [each for each in lost if not each.repeatable]
        if delicate:  # a broker that does not keep the order may deliver the query before the call
            await asyncio.sleep(_SECOND_ASKED_AFTER)
            denied = await self._recovery.denied(tool, [each for each in delicate if _is_sent(each)])
            lost = [each for each in lost if each.repeatable or each in denied]
        return [each for each in lost if _is_sent(each) and self._recovery.may_go_again(each)]


def _is_sent(pending: PendingCall) -> bool:
    """Whether the broker has confirmed a call, and nothing else is about to happen to it."""
    confirmed = pending.confirmed
    if confirmed is None or not confirmed.done() or confirmed.cancelled() or confirmed.exception() is not None:
        return False
    return pending.resend is None and not pending.unconfirmed and not pending.handle.done
