"""Publishes the cards of a server's tools again when somebody else has published other cards in the server's name."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.rivals import place_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import ServerCard, ToolCard

__all__ = ["Originals"]

logger: logging.Logger = logger_of(__name__)

_LOOK_AGAIN = 60.0
"""Seconds until a replica that has left a card to another replica looks whether the other replica is still there."""

_MOST_FORGED = 100
"""How many other cards of one tool are remembered for the audit until the tool's own card is published again."""


class Originals:
    """Compares the cards on the broker with the cards that one replica publishes.

    A model reads the description of a tool. So a forged card must not stay on the broker. But a replica with another
    version of the tool publishes another card, too. Of the replicas of a server, the one that started last decides:
    during a deployment, this is the new version.

    Args:
        scope: What all parts of the server share.
        presence: Publishes the server's cards.
        look: Returns the cards of the other servers that are online and matter.
        wake: Called when there is something for :meth:`restore` to do.
    """

    def __init__(
        self,
        scope: Scope,
        presence: Presence,
        look: Callable[[], Awaitable[list[ServerCard]]],
        wake: Callable[[], None],
    ) -> None:
        self._scope = scope
        self._presence = presence
        self._look = look
        self._wake = wake
        self._altered: dict[str, list[str]] = {}
        """The tools whose cards on the broker are others than ours, each with the fields that differ."""
        self._forged: dict[str, deque[InboundMessage]] = {}
        """For each of these tools, the messages with the other cards, for the audit."""
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._faults = FaultLog(logger)

    @property
    def pending(self) -> bool:
        """Whether there is something for :meth:`restore` to do."""
        return bool(self._altered)

    def stop(self) -> None:
        """Look at no card again."""
        self._altered.clear()
        self._forged.clear()
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def note(self, card: ToolCard, message: InboundMessage) -> None:
        """Compare a card that names this server with the replica's own card.

        Args:
            card: The card.
            message: The message with the card. It is refused when this replica, or another one, corrects the card.
        """
        later = self._later.pop(card.tool, None)
        if later is not None:
            later.cancel()
        fields = self._presence.differences(card)
        if fields:
            self._altered[card.tool] = fields
            self._forged.setdefault(card.tool, deque(maxlen=_MOST_FORGED)).append(message)
            self._wake()
        else:
            self._altered.pop(card.tool, None)
            self._refuse(card.tool, "another process has published the card of this server again")

    def _refuse(self, tool: str, why: str) -> None:
        for message in self._forged.pop(tool, ()):
            message.refuse(f"a tool card that this server did not write: {why}")

    async def restore(self) -> None:
        """Publish the cards again that somebody else has changed, unless a later replica decides about them.

        Raises:
            TransportError: The connection ended.
        """
        altered, self._altered = self._altered, {}
        own = self._presence.began, self._scope.server_id
        replicas = [card for card in await self._look() if card.shared_name == self._scope.name]
        for tool, fields in altered.items():
            # A replica that starts shows its claims before its tools.
            if any(tool in (*card.tools, *(card.claims or ())) and place_of(card) > own for card in replicas):
                timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN, self._look_again, tool, fields)
                self._later[tool] = timer
                self._forged.pop(tool, None)  # a new version of the tool
                continue
            what = f"{', '.join(fields)} changed; server {self._scope.server_id} publishes its own card again"
            self._faults.tell(self._scope.topics.tool_card(tool), "a tool card that this server did not write", what)
            self._refuse(tool, what)
            self._presence.correct_tool(tool)

    def _look_again(self, tool: str, fields: list[str]) -> None:
        self._later.pop(tool, None)
        self._altered[tool] = fields
        self._wake()
