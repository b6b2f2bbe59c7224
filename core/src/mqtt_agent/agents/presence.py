"""What an agent shows of itself: its card and its status."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import SessionTakenOver, WireError
from mqtt_agent.transport import Connection, InboundMessage, Will
from mqtt_agent.wire import AgentCard, AgentStatus, Status, Topics, decode, encode, utc_now

__all__ = ["AgentPresence"]

logger: logging.Logger = logging.getLogger(__name__)

_CORRECT_AFTER = 1.0


class AgentPresence:
    """Publishes the card and the status of one agent, and sees to it that they stay right.

    Args:
        connection: Its will becomes the offline status.
        topics: The namespace.
        card: What to show.
    """

    def __init__(self, connection: Connection, topics: Topics, card: AgentCard) -> None:
        self.announced: bool = False
        """Whether peers are told that the agent is online, or about to be."""
        self.card = card
        self._connection = connection
        self._topics = topics
        self._status_topic = topics.agent_status(card.name)
        self._card_topic = topics.agent_card(card.name)
        self._began = utc_now()
        self._correcting: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks(self._on_failure)
        self._faults = FaultLog(logger)
        connection.claim_will(Will(self._status_topic, lambda: encode(self._status("offline"))))

    async def follow(self) -> None:
        """Watch the own status; before the connection starts."""
        self._began = utc_now()
        await self._connection.subscribe(self._status_topic, self._on_own_status, snapshot=True)
        await self._connection.subscribe(self._card_topic, self._on_own_card)

    async def unfollow(self) -> None:
        """Watch nothing any more."""
        await self._connection.unsubscribe(self._status_topic, self._on_own_status)
        await self._connection.unsubscribe(self._card_topic, self._on_own_card)
        if self._correcting is not None:
            self._correcting.cancel()
            self._correcting = None
        self._tasks.cancel()

    async def announce(self) -> None:
        """Say online: first the card, then the status (spec)."""
        self.announced = True
        await self._publish_card("online")
        if self.announced:  # the agent may have begun to stop meanwhile
            await self._publish_status("online")

    async def announce_again(self, session_present: bool) -> None:
        """Say online after a reconnect, unless the agent is about to stop."""
        if self.announced and session_present and self._connection.may_be_taken_over:
            # rumqttd sends no retained message for a subscription that the session has: ask anew who was here last.
            await self._connection.unsubscribe(self._status_topic, self._on_own_status)
            await self._connection.subscribe(self._status_topic, self._on_own_status, snapshot=True)
        if self.announced:
            await self.announce()

    async def say_offline(self) -> None:
        """Say offline."""
        await self._publish_status("offline")
        await self._publish_card("offline")

    def _status(self, status: Status) -> AgentStatus:
        return AgentStatus(name=self.card.name, status=status, started=self._began, epoch=self._connection.epoch)

    async def _publish_card(self, status: Status) -> None:
        await self._connection.publish(self._card_topic, encode(self._shown_card(status)), retain=True)

    def _shown_card(self, status: Status) -> AgentCard:
        return self.card.model_copy(update={"status": status, "last_seen": utc_now(), "started": self._began})

    async def _publish_status(self, status: Status) -> None:
        await self._connection.publish(self._status_topic, encode(self._status(status)), retain=True)

    def _on_own_status(self, message: InboundMessage) -> None:
        if not self.announced:
            return
        try:
            said = decode(AgentStatus, message.payload) if message.payload else None
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable status", error)
            said = None
        if said is not None and said.status == "online" and said.started in (None, self._began):
            if (said.epoch or 0) > self._connection.epoch:  # would make peers take our will for an old one
                self._faults.tell(message.topic, "a status that this agent did not write", f"epoch {said.epoch}")
                self._correct_soon()
            return
        if said is not None and said.status == "online" and said.started and said.started > self._began:
            if self._connection.may_be_taken_over:
                what = f"another process runs as agent {self.card.name!r} since {said.started}"
                self._connection.give_up(SessionTakenOver(f"{what}: give each process an agent id of its own"))
                return
            self._faults.tell(message.topic, "a status that this agent did not write", f"started {said.started}")
        self._correct_soon()

    def _on_own_card(self, message: InboundMessage) -> None:
        if message.retain or not self.announced:  # a retained one is from before the start
            return
        try:
            shown = decode(AgentCard, message.payload) if message.payload else None
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable card", error)
            shown = None
        own = self._shown_card("online")
        if shown is None or encode(shown.model_copy(update={"last_seen": own.last_seen})) != encode(own):
            self._correct_soon()

    def _correct_soon(self) -> None:
        # Not at once: should it be another process that takes itself for this one, neither must flood the broker.
        if self._correcting is None:
            self._correcting = asyncio.get_running_loop().call_later(_CORRECT_AFTER, self._correct)

    def _correct(self) -> None:
        self._correcting = None
        if self.announced:
            self._tasks.start(self.announce())

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.warning("%s could not publish its status: %s", self.card.name, error)
