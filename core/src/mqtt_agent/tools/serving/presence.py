"""What a tool server shows of itself: its cards, online and offline."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import SessionTakenOver, WireError
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties, Will
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.version import __version__
from mqtt_agent.wire import ServerCard, Status, ToolCard, Topics, VersionInfo, decode, encode, utc_now

__all__ = ["Presence"]

logger: logging.Logger = logging.getLogger(__name__)

_CORRECT_AFTER = 1.0
SERVER_FEATURES = ("query",)
_OFFLINE_CARD_EXPIRY = 24 * 3600
"""Seconds that the card of a replica with a generated name stays after its end; its name never comes back."""


class Presence:
    """Publishes the cards of one tool server, and sees to it that they stay right.

    Args:
        connection: Its will becomes the offline card.
        topics: The namespace, for topics.
        namespace: The namespace as it was given, for the cards.
        server: The id of this replica.
        name: The name that all replicas share.
        replica: Which of them this is.
        generated: Whether the replica's name is a fresh one.
        cards: The tool cards; the server may add some later.
        agent: The agent whose connection it is: then the will is the agent's.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        namespace: str,
        *,
        server: str,
        name: str,
        replica: str,
        generated: bool,
        cards: dict[str, ToolCard],
        agent: str | None = None,
    ) -> None:
        self.announced: bool = False
        """Whether the cards say online, or are about to."""
        self.serving = True
        """Whether the tools are shown; otherwise another replica serves them."""
        self.standby: bool | None = None
        """Whether the server card says that this replica stands by; None without elections."""
        self.decided_in: int | None = None
        """The connection's epoch in which an election decided about these, if there are elections."""
        self._connection = connection
        self._topics = topics
        self._namespace = namespace
        self._server = server
        self._name = name
        self._replica = replica
        self._offline_expiry = _OFFLINE_CARD_EXPIRY if generated else None
        self._cards = cards
        self._topic = topics.server_card(server)
        self._began = self._since = utc_now()
        self._said: deque[bytes] = deque(maxlen=8)
        self._correcting: asyncio.TimerHandle | None = None
        self._tool_handlers: dict[str, Handler] = {}
        self._tasks = BackgroundTasks(self._on_failure)
        self._faults = FaultLog(logger)
        self._agent = agent
        if agent is None:
            connection.claim_will(Will(self._topic, lambda: encode(self._server_card("offline")), self._offline_expiry))

    @property
    def began(self) -> str:
        """When this process began to serve, or to wait in line."""
        return self._began

    @property
    def since(self) -> str:
        """When it took its place in the line of replicas."""
        return self._since

    def wait_behind(self) -> None:
        """Take the last place in the line of replicas."""
        self._since = utc_now()

    async def follow(self) -> None:
        """Watch the own server card; before the connection starts."""
        self._began = self._since = utc_now()
        await self._connection.subscribe(self._topic, self.on_own_server_card, snapshot=True)

    async def follow_no_more(self) -> None:
        """Somebody else tells :meth:`on_own_server_card` from now on."""
        await self._connection.unsubscribe(self._topic, self.on_own_server_card)

    async def follow_tool(self, name: str) -> None:
        """Watch the card of a tool, which other replicas may take offline."""
        handler = self._tool_handlers[name] = partial(self._on_own_tool_card, name)
        await self._connection.subscribe(self._topics.tool_card(name), handler)

    async def unfollow(self) -> None:
        """Watch nothing any more."""
        await self.follow_no_more()
        for name, handler in self._tool_handlers.items():
            await self._connection.unsubscribe(self._topics.tool_card(name), handler)
        self._tool_handlers.clear()
        if self._correcting is not None:
            self._correcting.cancel()
        self._tasks.cancel()

    async def announce(self) -> None:
        """Say online, with all cards."""
        self.announced = True
        # A tool can be called as soon as a server card lists it, so its own card comes first.
        if self.serving:
            await asyncio.gather(*(self._publish_tool_card(name, "online") for name in list(self._cards)))
        if self.announced:  # the server may have begun to stop meanwhile
            await self._publish_server_card("online")

    async def announce_again(self, session_present: bool) -> None:
        """Say online after a reconnect, unless the server is about to stop."""
        if self.announced:
            await self.announce()

    async def announce_server(self) -> None:
        """Say online, with the server card only."""
        self.announced = True
        await self._publish_server_card("online")

    async def announce_tool(self, name: str) -> None:
        """Show one more tool, if it serves."""
        if not self.serving:
            return
        await self._publish_tool_card(name, "online")
        await self._publish_server_card("online")

    async def say_offline(self) -> None:
        """Say offline; a tool's own card too, unless another server offers it."""
        others: set[str] = set()
        seen_own = asyncio.Event()

        def on_server_card(message: InboundMessage) -> None:
            card = self._read(message, ServerCard)
            if message.topic == self._topic:
                if not message.retain:
                    seen_own.set()
            elif card is not None and card.status == "online" and message.topic.endswith(f"/{card.server}/card"):
                others.update(card.tools)

        # Offline first, then look who else is there: of two replicas that stop at once, at least one sees nobody.
        await self._publish_server_card("offline")
        await self._connection.subscribe(self._topics.all_server_cards, on_server_card, qos=0, snapshot=True)
        try:
            # The broker sends the retained cards first; when our own comes live, the others have come.
            await self._publish_server_card("offline")
            await asyncio.wait_for(seen_own.wait(), 2)
        except asyncio.TimeoutError:
            logger.debug("%s does not see the server cards", self._server)
        for name in self._cards if self.serving else ():
            if name not in others:
                await self._publish_tool_card(name, "offline")
        await self._connection.unsubscribe(self._topics.all_server_cards, on_server_card)

    def _server_card(self, status: Status) -> ServerCard:
        return ServerCard(
            server=self._server,
            namespace=self._namespace,
            tools=list(self._cards) if self.serving else [],
            version_info=VersionInfo(sdk=__version__),
            status=status,
            name=self._name,
            replica=self._replica,
            agent=self._agent,
            started=self._began,
            since=None if self.standby is None else self._since,
            epoch=self._connection.epoch,
            # What was acknowledged on arrival is not in the session any more.
            session_present=self._connection.session_present and self._connection.shared_subscriptions,
            standby=self.standby,
            features=list(SERVER_FEATURES),
        )

    async def _publish_server_card(self, status: Status) -> None:
        payload = encode(self._server_card(status))
        if status == "online":
            self._said.append(payload)
        await self._connection.publish(
            self._topic,
            payload,
            retain=True,
            properties=PublishProperties(message_expiry=self._offline_expiry if status == "offline" else None),
        )

    async def _publish_tool_card(self, name: str, status: Status) -> None:
        card = self._cards[name].model_copy(update={"status": status, "last_seen": utc_now()})
        await self._connection.publish(self._topics.tool_card(name), encode(card), retain=True)

    # What others say about us

    def on_own_server_card(self, message: InboundMessage) -> None:
        """The server card came, from this process or another."""
        if not self.announced or self.decided_in not in (None, self._connection.epoch) or message.payload in self._said:
            return
        card = self._read(message, ServerCard)
        if card is None or card.status != "online":
            self._tasks.start(self._publish_server_card("online"))
        elif card.started and card.started > self._began and self._connection.may_be_taken_over:
            what = f"another process runs as {self._server!r} since {card.started}: give each replica its own name"
            self._connection.give_up(SessionTakenOver(what))
        else:
            self._faults.tell(self._topic, "a card that this server did not write", f"started {card.started}")
            self._correct_soon()

    def _correct_soon(self) -> None:
        # Not at once: should it be another process that takes itself for this one, neither must flood the broker.
        if self._correcting is None or self._correcting.when() < asyncio.get_running_loop().time():
            self._correcting = asyncio.get_running_loop().call_later(_CORRECT_AFTER, self._correct)

    def _correct(self) -> None:
        if self.announced:
            self._tasks.start(self._publish_server_card("online"))

    def _on_own_tool_card(self, name: str, message: InboundMessage) -> None:
        card = self._read(message, ToolCard)
        if self.announced and self.serving and (card is None or card.status != "online" or card.tool != name):
            self._tasks.start(self._publish_tool_card(name, "online"))

    def _read(self, message: InboundMessage, model: type[Any]) -> Any:
        if not message.payload:
            return None
        try:
            return decode(model, message.payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable card", error)
            return None

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.warning("%s could not publish a card: %s", self._server, error)
