"""What an agent publishes about itself: its card and its status, online or offline."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from mqtt_agent.agents.scope import Scope
from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.corrections import Corrections
from mqtt_agent.endpoints.namesakes import begins_here, taken_over
from mqtt_agent.endpoints.refresh import Refresher
from mqtt_agent.errors import WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import BOUND, AgentCard, AgentStatus, Status, decode, encode, utc_now

__all__ = ["AgentPresence"]

logger: logging.Logger = logger_of(__name__)

_ASKS = 5
"""How many times an agent asks, before its start, whether the process lives that the retained status speaks of."""
_ASK_EVERY = 2.0
"""Seconds between two such questions. A live process answers within about a second."""


class AgentPresence:
    """Publishes the card and the status of one agent, and corrects them when somebody else overwrites them.

    Args:
        scope: The agent's shared values.
        card: The card to publish.

    Attributes:
        announced: Whether the agent publishes that it is online. True from the first announcement to the agent's stop.
        rival: A status that was published before the first announcement, by an agent that runs already and cannot share
            the id with this agent; None when there is none.
        card: The card, without the present values of ``status``, ``last_seen``, ``started`` and the feature ``bound``.
    """

    def __init__(self, scope: Scope, card: AgentCard) -> None:
        self.announced: bool = False
        self.rival: AgentStatus | None = None
        self.card: AgentCard = card
        self._connection = scope.connection
        self._dialect = scope.dialect
        self._status_topic = scope.topics.agent_status(card.name)
        self._card_topic = scope.topics.agent_card(card.name)
        self._began = utc_now()
        self._corrections = Corrections(self.announce_soon)
        self._tasks = BackgroundTasks(self._on_failure)
        self._faults = FaultLog(logger)
        self._refresher = Refresher(self._refresh)
        self._answered = asyncio.Event()
        """Set when a live process says online as this agent, before this agent's first announcement."""

    async def follow(self) -> None:
        """Watch what is published as this agent's card and status. Call this before the connection starts."""
        self._began = utc_now()
        begins_here(self, self.card.name, self._began)
        self.rival = None
        self._answered.clear()
        await self._connection.subscribe(self._status_topic, self._on_own_status, snapshot=True)
        await self._connection.subscribe(self._card_topic, self._on_own_card)

    async def unfollow(self) -> None:
        """Stop watching."""
        await self._connection.unsubscribe(self._status_topic, self._on_own_status)
        await self._connection.unsubscribe(self._card_topic, self._on_own_card)
        self._corrections.stop()
        self._refresher.stop()
        self._tasks.cancel()

    async def find_rival(self) -> AgentStatus | None:
        """Find out whether the process lives that has published :attr:`rival`.

        A broker that was killed publishes no Last Wills, so the retained status may speak of a process that is gone.
        A live process answers a probe with its status, and a process of an older version corrects the probe.

        Returns:
            The status of the live process. None when there is none: then :attr:`rival` is None too.
        """
        asked = self.rival
        if asked is None:
            return None
        # To an older version, this is a status without ``pool`` that it did not write: also a pool corrects it.
        started, epoch = asked.started, asked.epoch
        probe = AgentStatus(name=self.card.name, status="online", started=started, epoch=epoch, probe=True)
        for _ in range(_ASKS):
            await self._connection.publish(self._status_topic, encode(probe))
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._answered.wait(), _ASK_EVERY)
                return self.rival
            if self.rival is None:  # an offline status has arrived, and no process has contradicted it
                return None
        logger.warning(
            "the broker keeps a status of agent %s that says online since %s, but no process answers: the agent starts "
            "and replaces this status",
            self.card.name,
            started or "an unknown time",
        )
        self.rival = None
        return None

    async def announce(self) -> None:
        """Publish the card, then the status ``online`` (spec: in this order)."""
        self.announced = True
        await self._publish_card("online")
        if self.announced:  # the agent may have begun to stop meanwhile
            await self._publish_status("online")

    async def announce_again(self, session_present: bool) -> None:
        """Publish card and status after a reconnect, unless the agent is about to stop.

        Args:
            session_present: Whether the broker has kept the session.
        """
        if self.announced and session_present and self._connection.may_be_taken_over:
            # rumqttd sends no retained message for a subscription that the session has already. A new subscription
            # makes rumqttd send the retained status, which shows whether another process uses this agent id.
            await self._connection.unsubscribe(self._status_topic, self._on_own_status)
            await self._connection.subscribe(self._status_topic, self._on_own_status, snapshot=True)
        if self.announced:
            await self.announce()

    async def say_offline(self) -> None:
        """Publish the status ``offline``, then the card."""
        await self._publish_status("offline")
        await self._publish_card("offline")

    def copies(self) -> list[tuple[str, bytes]]:
        """The topics and payloads of card and status, while they say online."""
        if not self.announced:
            return []
        return [
            (self._card_topic, encode(self.shown_card())),
            (self._status_topic, encode(self._status("online"))),
        ]

    def will(self) -> bytes:
        """The payload of the Last Will: the status ``offline``."""
        return encode(self._status("offline"))

    def _status(self, status: Status) -> AgentStatus:
        return AgentStatus(name=self.card.name, status=status, started=self._began, epoch=self._connection.epoch)

    def announce_soon(self) -> None:
        """Publish card and status again in the background, unless the agent is about to stop."""
        if self.announced:
            self._tasks.start(self.announce())

    def shown_card(self, status: Status = "online") -> AgentCard:
        """The card with its present values, as it is published."""
        features = sorted([*(self.card.features or ()), *([BOUND] if self._dialect.bound else ())])
        now = {"status": status, "last_seen": utc_now(), "started": self._began, "features": features}
        return self.card.model_copy(update=now)

    async def _publish_card(self, status: Status) -> None:
        payload = self._corrections.note(encode(self.shown_card(status)))
        await self._connection.publish(self._card_topic, payload, retain=True)

    async def _publish_status(self, status: Status) -> None:
        payload = self._corrections.note(encode(self._status(status)))
        await self._connection.publish(self._status_topic, payload, retain=True)

    def _on_own_status(self, message: InboundMessage) -> None:
        """Check a status on this agent's topic, which another process with the same agent id may have published."""
        if not self.announced:
            if message.payload:
                with contextlib.suppress(WireError):
                    self._note_rival(decode(AgentStatus, message.payload), message)
            return
        self._refresher.note(message)
        if self._corrections.is_own(message.payload):
            return
        try:
            status = decode(AgentStatus, message.payload) if message.payload else None
        except WireError as error:
            self._faults.refuse(message, "an unreadable status", error)
            self._corrections.soon()
            return
        if status is not None and status.probe:
            self._answer_soon()
            return
        started = None if status is None else status.started
        if status is None or started is None:
            self._faults.refuse(message, "a status that this agent did not write", message.payload[:100])
        elif status.status == "online" and started > self._began and self._connection.may_be_taken_over:
            name, advice = self.card.name, "give each process an agent id of its own"
            self._connection.give_up(taken_over(name, f"agent {name!r}", started, advice))
            return
        elif started > self._began or (started == self._began and status.status == "online"):
            detail = f"{status.status}, started {started}, epoch {status.epoch}"
            self._faults.refuse(message, "a status that this agent did not write", detail)
        # Else the status is this agent's Last Will, or the status of an earlier process.
        self._corrections.soon()

    def _note_rival(self, status: AgentStatus, message: InboundMessage) -> None:
        if self.announced or status.probe:
            return
        self.rival = status if self._is_rival(status) else None
        if status.status == "online" and not message.retain:
            self._answered.set()

    def _answer_soon(self) -> None:
        """Answer another process that asks whether this agent lives."""
        self._tasks.start(self._publish_status("online"))

    def _is_rival(self, status: AgentStatus) -> bool:
        """Whether an agent that has published this status cannot share the id with this agent."""
        return status.status == "online" and bool(status.pool)

    def _on_own_card(self, message: InboundMessage) -> None:
        if message.retain or not self.announced:  # a retained card is from before the start
            return
        self._refresher.note(message)
        if not self._corrections.is_own(message.payload):
            self._faults.refuse(message, "a card that this agent did not write", message.payload[:100])
            self._corrections.soon()

    def _refresh(self, topic: str) -> None:
        """Publish the card or the status again, because the broker is about to forget it."""
        if self.announced and topic == self._card_topic:
            self._tasks.start(self._publish_card("online"))
        elif self.announced:
            self._tasks.start(self._publish_status("online"))

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.warning("agent %s could not publish its card and status: %s", self.card.name, error)
