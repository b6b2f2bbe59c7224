"""What the members of a pool publish about their agent: one card and one status for all of them."""

from __future__ import annotations

import asyncio
import logging
import random

from typing_extensions import override

from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.presence import AgentPresence
from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.waiting import within
from mqtt_agent.errors import StoreError, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import AgentCard, AgentStatus, Status, decode

__all__ = ["PoolPresence"]

logger: logging.Logger = logger_of(__name__)

_ANSWERED_WITHIN = 0.3
"""Seconds within which a member answers a status that says offline, or a probe. Each member takes a random time."""
_NEXT_EPOCH_WITHIN = 0.5
"""Seconds to wait for the database, before a member shows itself without it. Peers doubt a pool for two seconds."""


class PoolPresence(AgentPresence):
    """Publishes the card and the status of a pool.

    The Last Will of a member reports the pool offline. A live member answers with the status ``online`` and the next
    epoch, so that the peers send again what the dead member may have lost. It answers a probe in the same way. The Last
    Will names its member, which is suspected from then on: see :meth:`Lease.suspect`. Anybody may name any member, so a
    member that is named while it lives answers itself, and the others trust it again.

    Args:
        scope: The agent's shared values.
        card: The card to publish.
        pool: This process as a member of the pool.
    """

    def __init__(self, scope: Scope, card: AgentCard, pool: PoolMember) -> None:
        super().__init__(scope, card)
        self._pool = pool
        self._epoch = 0
        self._answering: asyncio.TimerHandle | None = None
        self._was_named = False  # whether a status calls this member dead, and the member has not answered yet

    @override
    async def unfollow(self) -> None:
        self._stop_answering()
        await super().unfollow()

    @override
    async def announce(self) -> None:
        try:
            self._epoch = await within(self._pool.store.next_epoch(), _NEXT_EPOCH_WITHIN)
        except (StoreError, asyncio.TimeoutError) as error:
            self._epoch += 1  # the peers must hear soon that this member is there
            logger.debug("agent %s counts its epoch on without its database: %s", self.card.name, error)
        await super().announce()

    @override
    def _status(self, status: Status) -> AgentStatus:
        # An offline status has no epoch: it is never older than the status of another member.
        epoch = self._epoch if status == "online" else None
        started = self._pool.store.pool.started
        return AgentStatus(
            name=self.card.name, status=status, started=started, epoch=epoch, pool=True, member=self._pool.id
        )

    @override
    def shown_card(self, status: Status = "online") -> AgentCard:
        pool = getattr(self._pool.store, "pool", None)  # None before this member has joined
        now = {"pool": True, "started": None if pool is None else pool.started}
        return super().shown_card(status).model_copy(update=now)

    @override
    def _on_own_status(self, message: InboundMessage) -> None:
        if not message.payload or self._corrections.is_own(message.payload):
            super()._on_own_status(message)
            return
        try:
            status = decode(AgentStatus, message.payload)
        except WireError:
            super()._on_own_status(message)
            return
        self._note_rival(status, message)
        if not self.announced:
            return
        self._refresher.note(message)
        if status.member == self._pool.id and status.status == "offline":
            self._was_named = True
        elif status.member and status.status == "offline":
            self._pool.suspect(status.member)
        elif status.member and status.pool:
            self._pool.trust(status.member)
        if status.probe or status.status == "offline":
            self._answer_soon()
        elif status.pool:
            self._epoch = max(self._epoch, status.epoch or 0)
            if not self._was_named:  # else the others wait for this member's own answer
                self._stop_answering()
        else:
            what = "a status of a process that is no member of the pool"
            self._faults.refuse(message, what, repr(status.started))
            self._corrections.soon()

    @override
    def _is_rival(self, status: AgentStatus) -> bool:
        return status.status == "online" and not status.pool

    @override
    def _on_own_card(self, message: InboundMessage) -> None:
        try:
            card = decode(AgentCard, message.payload) if message.payload else None
        except WireError:
            card = None
        if card is not None and card.pool and card.status == "online":  # of another member
            self._refresher.note(message)
            return
        super()._on_own_card(message)

    @override
    def _answer_soon(self) -> None:
        if self._answering is None:
            wait = random.uniform(0, _ANSWERED_WITHIN)
            self._answering = asyncio.get_running_loop().call_later(wait, self._answer)

    def _answer(self) -> None:
        self._answering, self._was_named = None, False
        self.announce_soon()

    def _stop_answering(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None
