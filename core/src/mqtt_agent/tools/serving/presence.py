"""Publishes the cards of a tool server and its tools, online and offline, and corrects cards that others changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.late import LateMessages
from mqtt_agent.endpoints.namesakes import begins_here, taken_over
from mqtt_agent.endpoints.refresh import Refresher
from mqtt_agent.errors import PayloadTooLarge, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.transport.message import MAX_WILL
from mqtt_agent.version import __version__
from mqtt_agent.wire import BOUND, ServerCard, Status, ToolCard, VersionInfo, decode, encode, is_identifier, utc_now
from mqtt_agent.wire.cards import LISTED, MAX_LISTED, OFFLINE_CARD_EXPIRY
from mqtt_agent.wire.values import fingerprint

__all__ = ["Presence"]

logger: logging.Logger = logger_of(__name__)

SeesAll = Callable[[], Awaitable[bool]]
SERVER_FEATURES = ("query", "call", LISTED)
_LOST = "the server has lost its connection, or has died"
_CORRECT_AFTER = 1.0  # seconds
_LIST_AGAIN_WITHIN = 1.0
"""Seconds within which a replica publishes a tool card again that does not list the replica."""
_SHOWN_EVERY = 2.0
"""Seconds between two shows of the server card to strangers, who may ask often. A server waits 5 s for an answer."""
_MANY_LISTED = 16
"""How many replicas a tool card lists at least before a server looks which of them are gone."""


class Presence:
    """Publishes the cards of one tool server, and publishes them again when somebody else has changed them.

    Args:
        scope: What all parts of the server share.
        cards: The cards of the tools whose calls the server takes. The server changes this dict.
        all_cards: The cards of all tools that the server wants to offer.

    Attributes:
        announced: Whether the cards should say online: from the first announcement until the server begins to stop.
        serving: Whether the server card lists the tools. Otherwise another replica serves them.
        standby: Whether the server card says that this replica is on standby; None at a broker with shared
            subscriptions, where there are no elections.
        claims: The tools whose names the server claims now.
        refused: The tools whose names servers of other names have.
        about: What the server has besides tools, as fields of the server card.
        unavailable: Why the server does not serve now what it has; None when it does.
        decided_in: The connection's epoch in which an election decided on ``serving`` and ``standby``; None where
            there are no elections.
        late: Tells when a server card of an earlier connection may have reached the broker.
    """

    def __init__(self, scope: Scope, cards: dict[str, ToolCard], all_cards: dict[str, ToolCard]) -> None:
        self.announced: bool = False
        self.serving: bool = True
        self.standby: bool | None = None
        self.claims: list[str] = []
        self.refused: list[str] = []
        self.decided_in: int | None = None
        self.about: dict[str, Any] = {}
        self.unavailable: str | None = None
        self.late: LateMessages = LateMessages(scope.connection)
        self._scope = scope
        self._connection = scope.connection
        self._topics = scope.topics
        self._server_id = scope.server_id
        self._offline_expiry = OFFLINE_CARD_EXPIRY if scope.generated else None
        self._cards = cards
        self._all_cards = all_cards
        self._topic = scope.topics.server_card(scope.server_id)
        self._began = self._since = utc_now()
        self._said: deque[bytes] = deque(maxlen=8)
        """The latest server cards that this process has published, to recognize cards of other processes."""
        self._correcting: asyncio.TimerHandle | None = None
        self._corrected_at = -_CORRECT_AFTER
        """Loop time of the latest correction of the server card."""
        self._shown: dict[str, int] = {}
        """The epoch of our connection in which each tool's card was last published with status online."""
        self._said_offline: dict[str, bytes] = {}
        """The latest card of each tool that this process has published with status offline."""
        self._digests: dict[str, str] = {}
        self._stands_in: int | None = None
        """The epoch of our connection in which this server's card has arrived with status online."""
        self._listed: dict[str, list[str]] = {}
        """The replicas that the latest card of each tool on the broker lists."""
        self._listing_again: dict[str, asyncio.TimerHandle] = {}
        self._tasks = BackgroundTasks(self._on_failure)
        self._shown_at = -_SHOWN_EVERY
        """Loop time of the latest show of the server card to strangers."""
        self._faults = FaultLog(logger)
        self._refresher = Refresher(self._refresh)

    @property
    def began(self) -> str:
        """When this process began to serve, or to be on standby; ISO 8601 UTC."""
        return self._began

    @property
    def since(self) -> str:
        """When this replica took its place in the line of replicas that may serve; ISO 8601 UTC."""
        return self._since

    def wait_behind(self) -> None:
        """Take the last place in the line of replicas that may serve."""
        self._since = utc_now()

    async def follow(self) -> None:
        """Follow the server's own card. Call this before the connection starts."""
        self._began = self._since = utc_now()
        begins_here(self, self._server_id, self._began)
        await self._connection.subscribe(self._topic, self.on_own_server_card, snapshot=True)

    async def unfollow_server(self) -> None:
        """Stop following the server's own card. An election passes the card to :meth:`on_own_server_card`."""
        await self._connection.unsubscribe(self._topic, self.on_own_server_card)

    async def unfollow(self) -> None:
        """Stop following the server's own card."""
        await self.unfollow_server()
        if self._correcting is not None:
            self._correcting.cancel()
        for timer in self._listing_again.values():
            timer.cancel()
        self._refresher.stop()
        self._tasks.cancel()

    async def announce(self) -> None:
        """Publish all cards with status online."""
        self.announced = True
        # A tool can be called as soon as a server card lists it. So the tool's own card is published first.
        published: list[BaseException | None] = []
        if self.serving:
            epoch = self._connection.epoch
            unseen = [name for name in self._cards if self._shown.get(name) != epoch]  # the others were just claimed
            cards = (self.publish_tool_card(name, "online") for name in unseen)
            published = await asyncio.gather(*cards, return_exceptions=True)
        if self.announced:  # the server may have begun to stop meanwhile
            await self._publish_server_card("online")
        for error in published:  # only now: one card that the broker does not take must not hide the other tools
            if error is not None:
                raise error

    async def announce_again(self) -> None:
        """Publish all cards again after a reconnect, unless the server is about to stop."""
        if self.announced:
            await self.announce()

    async def announce_server(self) -> None:
        """Publish the server card with status online, without the tool cards."""
        self.announced = True
        await self._publish_server_card("online")

    async def announce_tools(self, names: list[str]) -> None:
        """Publish the cards of tools that are offered from now on, if this replica serves and is announced."""
        if not (names and self.serving and self.announced):
            return
        await asyncio.gather(*(self.publish_tool_card(name, "online") for name in names))
        if self.announced:  # the server may have begun to stop meanwhile
            await self._publish_server_card("online")

    async def remove_server_card(self) -> None:
        """Remove the server card from the broker, because the server does not start."""
        if self.announced:
            self.announced = False
            await self._connection.publish(self._topic, b"", retain=True)

    async def remove_tool_card(self, name: str) -> None:
        """Remove the card of a tool from the broker."""
        await self._connection.publish(self._topics.tool_card(name), b"", retain=True)

    def forget_digest(self, name: str) -> None:
        """Forget the digest of a tool's schema, because the tool has another card or is removed."""
        self._digests.pop(name, None)

    async def withdraw(self, names: Sequence[str], sees_all: SeesAll, *, everyone: bool) -> None:
        """Remove the cards of tools that this server does not offer any more, unless another server offers them.

        Args:
            names: The names of the tools.
            sees_all: Waits until every message that the broker had queued for this connection has arrived.
            everyone: Whether servers may offer the tools that the tools' cards do not list.
        """
        others = await self._offered_by_others(names, sees_all, lambda _: True, everyone=everyone)
        await asyncio.gather(*(self.remove_tool_card(name) for name in names if name not in others))

    async def say_offline(self, sees_all: SeesAll, *, everyone: bool) -> None:
        """Publish the server card with status offline. A tool that no other server offers gets status offline, too.

        So does a tool that only replicas with other schemas offer. They see it, and publish their own card of the tool.

        Args:
            sees_all: See :meth:`withdraw`.
            everyone: See :meth:`withdraw`.
        """
        # Say offline before looking for other servers. Then, of two replicas that stop at the same time, at least one
        # does not see the other, and sets the tools offline.
        await self._publish_server_card("offline")
        names, schemas = list(self._cards) if self.serving else [], self._schemas()

        def keeps_online(card: ServerCard) -> bool:
            return card.schemas in (None, schemas) or card.shared_name != self._scope.name

        others = await self._offered_by_others(names, sees_all, keeps_online, everyone=everyone)
        for name in names:
            if name not in others:
                with contextlib.suppress(PayloadTooLarge):  # this card was never published
                    await self.publish_tool_card(name, "offline")

    async def _offered_by_others(
        self, names: Sequence[str], sees_all: SeesAll, counts: Callable[[ServerCard], bool], *, everyone: bool
    ) -> set[str]:
        """The tools that other servers offer, among them those of these tools.

        The cards of the tools list the replicas of this server. So the server reads the cards of all servers only when
        ``everyone`` is true, or when a list is full: otherwise each stop of one of ``n`` servers would cost ``n``
        messages. A replica that is missing in the list publishes the card of its tool again.
        """
        others: set[str] = set()

        def on_server_card(message: InboundMessage) -> None:
            card = self._read(message, ServerCard)
            if card is None or card.server == self._server_id or message.topic != self._topics.server_card(card.server):
                return
            if card.status == "online" and counts(card):
                others.update(card.tools)

        listed = {each for name in names for each in self._listed.get(name, ())} - {self._server_id}
        if everyone or any(len(self._listed.get(name, ())) >= MAX_LISTED for name in names):
            topics = [self._topics.all_server_cards]
        else:
            topics = [self._topics.server_card(each) for each in sorted(listed)]
        if not topics:
            return others
        connection = self._connection
        await asyncio.gather(*(connection.subscribe(each, on_server_card, qos=0, snapshot=True) for each in topics))
        try:
            await sees_all()
        finally:
            await asyncio.gather(*(connection.unsubscribe(each, on_server_card) for each in topics))
        return others

    def _server_card(self, status: Status) -> ServerCard:
        return ServerCard(
            server=self._server_id,
            namespace=self._scope.namespace,
            tools=list(self._cards) if self.serving else [],
            version_info=VersionInfo(sdk=__version__),
            status=status,
            name=self._scope.name,
            replica=self._scope.replica,
            agent=self._scope.agent,
            started=self._began,
            since=None if self.standby is None else self._since,
            epoch=self._connection.epoch,
            # Without shared subscriptions, calls are acknowledged on arrival. So the session holds no running call.
            session_present=self._connection.session_present and self._connection.shared_subscriptions,
            standby=self.standby,
            claims=self.claims or None,
            refused=self.refused or None,
            schemas=self._schemas() if self.serving and self._cards else None,
            features=[*SERVER_FEATURES, BOUND] if self._scope.dialect.bound else list(SERVER_FEATURES),
            unavailable=self.unavailable if status == "online" else None,
            **(self.about if status == "online" else {}),
        )

    def _schemas(self) -> str:
        for name in self._cards:
            if name not in self._digests:
                self._digests[name] = fingerprint(self._cards[name].input_schema).hex()
        return fingerprint([[name, self._digests[name]] for name in sorted(self._cards)]).hex()[:16]

    def will(self) -> bytes:
        """The payload of the Last Will: the server card with status offline."""
        # The connection asks for the Last Will when it opens, before the server has claimed its tools.
        tools = [name for name in self._all_cards if name not in self.refused] if self.serving else []
        # Not the instructions: a Last Will may have only 65,535 bytes.
        lost = {"tools": tools, "unavailable": _LOST, "capabilities": self.about.get("capabilities")}
        card = self._server_card("offline").model_copy(update=lost)
        payload = encode(card)
        # Readers know the tools from the last online card, so a Last Will with too many tools for MQTT leaves them out.
        if len(payload) > MAX_WILL:
            payload = encode(card.model_copy(update={"tools": [], "refused": None}))
        if len(payload) > MAX_WILL:
            payload = encode(card.model_copy(update={"tools": [], "refused": None, "capabilities": None}))
        return payload

    async def _publish_server_card(self, status: Status) -> None:
        if status == "online" and self._undecided:
            return  # the election publishes the card
        payload = encode(self._server_card(status))
        if status == "online":
            self._said.append(payload)
        properties = PublishProperties(message_expiry=self._offline_expiry if status == "offline" else None)
        with self.late.watched():
            await self._connection.publish(self._topic, payload, retain=True, properties=properties)

    @property
    def _undecided(self) -> bool:
        """Whether an election has not decided yet what the server card says over this connection."""
        connection = self._connection
        return not connection.shared_subscriptions and self.decided_in not in (None, connection.epoch)

    async def publish_tool_card(self, name: str, status: Status) -> None:
        """Publish the card of a tool."""
        payload = encode(self._tool_card(name, status))
        self._shown.pop(name, None)
        if status == "offline":
            self._said_offline[name] = payload
        await self._connection.publish(self._topics.tool_card(name), payload, retain=True)
        if status == "online":
            self._shown[name] = self._connection.epoch

    def _tool_card(self, name: str, status: Status) -> ToolCard:
        listed = self._listed.get(name, [])
        replicas = listed if self._server_id in listed else [*listed, self._server_id][-MAX_LISTED:]
        return self._all_cards[name].model_copy(update={"status": status, "last_seen": utc_now(), "replicas": replicas})

    def still_shown(self, card: ToolCard) -> bool:
        """Whether the broker has kept this server online across a reconnect, and with it the card of one of its tools.

        Then the tool's card need not be published again.

        Args:
            card: The latest card of the tool, which has arrived since the reconnect.
        """
        connection = self._connection
        if not connection.session_present or connection.keeps_retained_apart or self._stands_in != connection.epoch:
            return False
        if card.status != "online" or not self._offers(card.tool) or self.differences(card):
            return False
        if not self._is_listed(card.replicas or []):
            return False
        self._shown[card.tool] = connection.epoch
        return True

    # The list of the replicas, which each tool card has

    def note_replicas(self, name: str, card: ToolCard | None) -> None:
        """Take the list of replicas of a tool's latest card. Publish the card again if this replica is missing.

        Of replicas that start at the same time, each knows only the cards that arrived before its own. So each of them
        waits for a random time before it publishes the card again.

        Args:
            name: The tool's name.
            card: The latest card of this server or of a replica; None when the broker has none.
        """
        listed = [each for each in (card.replicas if card is not None else None) or () if self._is_replica(each)]
        self._listed[name] = listed = listed[-MAX_LISTED:]
        if card is None or self._is_listed(listed) or not self._offers(name) or name in self._listing_again:
            return
        if self.differences(card):  # of replicas with different cards, the latest one decides
            return
        after = random.uniform(0.0, _LIST_AGAIN_WITHIN)
        self._listing_again[name] = asyncio.get_running_loop().call_later(after, self._list_again, name)

    def _list_again(self, name: str) -> None:
        del self._listing_again[name]
        if not self._is_listed(self._listed.get(name, [])):
            self.correct_tool(name)

    def _is_listed(self, listed: list[str]) -> bool:
        return self._server_id in listed or len(listed) >= MAX_LISTED  # callers follow all servers then

    def _is_replica(self, server: str) -> bool:
        return server.startswith(f"{self._scope.name}:") and is_identifier(server)

    def lists_many(self, names: Iterable[str]) -> bool:
        """Whether the card of a tool lists so many replicas that some of them are probably gone."""
        return any(len(self._listed.get(name, ())) >= _MANY_LISTED for name in names)

    def list_only(self, replicas: Container[str]) -> None:
        """From now on, list only these replicas, because the others are gone."""
        self._listed = {name: [each for each in listed if each in replicas] for name, listed in self._listed.items()}

    # When others ask for the cards

    def show_again(self) -> None:
        """Publish the server card again, because another replica may not have got it."""
        if self.announced:
            self._tasks.start(self._publish_server_card("online"))

    def show_to_strangers(self) -> None:
        """Publish the server card again, at most once in a while, for servers that ask whether this one is there."""
        now = asyncio.get_running_loop().time()
        if now >= self._shown_at + _SHOWN_EVERY:
            self._shown_at = now
            self.show_again()

    def copies(self) -> list[tuple[str, bytes]]:
        """The topics and payloads of this server's cards, which a question is answered with."""
        if not self.announced or self._undecided:
            return []
        shown: dict[str, Status] = dict.fromkeys(self.claims, "offline")  # a claim says offline on the broker too
        shown.update((name, "online") for name in (self._cards if self.serving else ()))
        tools = [
            (self._topics.tool_card(name), encode(self._tool_card(name, status)))
            for name, status in shown.items()
            if name in self._all_cards
        ]
        return [*tools, (self._topic, encode(self._server_card("online")))]

    # When others change the cards

    def on_own_server_card(self, message: InboundMessage) -> None:
        """Check the server's own card, which this process or somebody else has published, and correct it."""
        if self.announced:
            self._refresher.note(message)
        own = message.payload in self._said
        self._stands_in = self._connection.epoch if own else None
        if not self.announced or self._undecided or own:
            return
        card = self._read(message, ServerCard)
        if card is None or card.status != "online":
            # A card with our `started` is a late Last Will of this process. An unreadable card was told above.
            if not message.payload or (card is not None and card.started != self._began):
                self._faults.refuse(message, "a card that this server did not write", "removed, or offline")
            self._correct()  # without a wait: until then, callers do not find the server
        elif card.started and card.started > self._began and self._connection.may_be_taken_over:
            name, advice = self._server_id, "give each replica its own name"
            self._connection.give_up(taken_over(name, repr(name), card.started, advice))
        else:
            self._faults.refuse(message, "a card that this server did not write", f"started {card.started}")
            self._correct_soon()

    def _correct_soon(self) -> None:
        """Publish the server card again: at once, but two processes with the same id must not flood the broker."""
        loop = asyncio.get_running_loop()
        if self._correcting is None or self._correcting.when() < loop.time():
            at = max(loop.time(), self._corrected_at + _CORRECT_AFTER)
            self._correcting = loop.call_at(at, self._correct)

    def _correct(self) -> None:
        self._corrected_at = asyncio.get_running_loop().time()
        if self.announced:
            self._tasks.start(self._publish_server_card("online"))

    def correct_tool(self, name: str, message: InboundMessage | None = None) -> None:
        """Publish the card of a tool again, if this server offers the tool.

        Args:
            name: The tool's name.
            message: The message that has removed the card, or changed it, for the audit.
        """
        if self._offers(name):
            self._tasks.start(self.publish_tool_card(name, "online"))
            if message is not None and message.payload != self._said_offline.get(name):
                message.refuse("the server offers this tool, and publishes its own card again")

    def _offers(self, name: str) -> bool:
        return self.announced and self.serving and name in self._cards

    def differences(self, card: ToolCard) -> list[str]:
        """The fields in which a card differs from the card that this server publishes; empty if it publishes none."""
        own = self._cards.get(card.tool)
        if own is None or not (self.announced and self.serving):
            return []
        fields = [name for name in ToolCard.model_fields if name not in ("status", "last_seen", "replicas")]
        return [name for name in fields if getattr(card, name) != getattr(own, name)]

    def note_tool_card(self, message: InboundMessage) -> None:
        """Note when the broker will forget the card of a tool that this server offers, to publish it again in time."""
        if self.announced and self.serving:
            self._refresher.note(message)

    def _refresh(self, topic: str) -> None:
        """Publish a card again, because the broker is about to forget it."""
        if self.announced and topic == self._topic:
            self._tasks.start(self._publish_server_card("online"))
        elif self.announced and self.serving:
            for name in [name for name in self._cards if self._topics.tool_card(name) == topic]:
                self._tasks.start(self.publish_tool_card(name, "online"))

    def _read(self, message: InboundMessage, model: type[Any]) -> Any:
        if not message.payload:
            return None
        try:
            return decode(model, message.payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable card", error)
            return None

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.warning("server %s could not publish a card: %s", self._server_id, error)
