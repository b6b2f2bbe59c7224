"""Decides which of a server's tools the server may offer: a tool name belongs to one server name.

All servers that offer a tool of one name would get its calls in turn, because the format has one call topic for each
tool name. So a server offers a tool only when its own name has the tool's name:

* The retained card of a tool is the *claim* on the tool's name. A server follows the cards of its tools. A card of
  another server holds while a server of that name is online that offers the tool, claims the tool, or is on standby in
  an election. Whether that is so, the server cards say.
* A server that finds a name free shows the name in ``claims`` of its server card, publishes the tool's card, and waits
  until all messages that the broker had queued have arrived. When no card of another name is among them, the server
  has the name, and only then subscribes to the calls. Of servers that claim a name at once, the one that started first
  gets it. The others give up their claims, and it claims again.
* A server without a tool's name shows the tool in ``refused`` of its server card. The server follows the cards of the
  servers that have the name, and claims the name when none of them is left.
* After a reconnect, a server claims its names again before it subscribes to the calls again.
* When two servers have one name nevertheless, for example after a broker has lost its retained messages, the server
  that started first keeps the name, and the other goes on standby.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.waiting import within
from mqtt_agent.endpoints.retained import PATIENCE
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.conflicts import OnConflict, SharedNames, listed, name_taken, tell_refused
from mqtt_agent.tools.serving.originals import Originals
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.rivals import Rivals, place_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import ServerCard, ToolCard, decode

__all__ = ["ToolNames"]

logger: logging.Logger = logger_of(__name__)

_ASK_AFTER = 10.0
"""Seconds after which a server on standby asks whether the servers that have the names are still there."""
_SETTLED_WITHIN = 10.0
"""Seconds to wait for a server that claims the same name at the same time, and that started later."""
_MAX_ROUNDS = 30
"""How many times a server claims names again that another server claims at the same time."""
_CONTESTED_AGAIN = 1.0
"""Seconds between two looks at names that two servers have, so that the servers do not flood the broker."""


@dataclass(eq=False)
class _Name:
    """What is known of one tool's name.

    Attributes:
        tool: The tool's name.
        handler: Takes the messages on the topic of the tool's card.
        card: The latest readable card on the topic; None when there is no card.
        foreign: How many cards of other server names have arrived.
        judged: The value of ``foreign`` when this server last found that no other server has the name.
        writers: The names of the other servers whose cards of the tool have arrived.
        epoch: The epoch of our connection in which ``card`` has arrived.
        unlisted: Whether a card has arrived of a server that its tool's list of replicas may leave out: a server of
            another name, or a server of this name that knows no such list.
    """

    tool: str
    handler: Handler
    card: ToolCard | None = None
    foreign: int = 0
    judged: int = 0
    writers: set[str] = field(default_factory=set[str])
    epoch: int = 0
    unlisted: bool = False


class ToolNames:
    """Claims the names of one server's tools, and gives up the names that another server has.

    Args:
        scope: What all parts of the server share.
        presence: Publishes the server's cards.
        barrier: Waits until every message that the broker had queued for this connection has arrived.
        on_conflict: What to do about a name that another server has.
        on_held: Awaited with the tools whose names the server got while it runs. It begins to take their calls.
        on_lost: Awaited with the tools whose names the server lost while it runs. It stops taking their calls.

    Attributes:
        held: The tools whose names the server has.
        refused: The tools whose names another server has, each with the name of that server.
    """

    def __init__(
        self,
        scope: Scope,
        presence: Presence,
        barrier: Callable[[], Awaitable[bool]],
        on_conflict: OnConflict,
        on_held: Callable[[list[str]], Awaitable[None]],
        on_lost: Callable[[list[str]], Awaitable[None]],
    ) -> None:
        self.held: set[str] = set()
        self.refused: dict[str, str] = {}
        self._scope = scope
        self._connection = scope.connection
        self._topics = scope.topics
        self._own = scope.name
        self._presence = presence
        self._barrier = barrier
        self._on_conflict = on_conflict
        self._on_held = on_held
        self._on_lost = on_lost
        self._names: dict[str, _Name] = {}
        self._contested: set[str] = set()
        self._told_pairs = SharedNames(self._own)
        self._not_before = 0.0
        """Loop time before which no name is taken over. After a reconnect, the other servers come back too."""
        self._rivals = Rivals(scope, barrier, self._names, self._wake)
        self._originals = Originals(scope, presence, self._rivals.look, self._wake)
        self._one_at_a_time = asyncio.Lock()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._resting = False
        self._faults = FaultLog(logger)

    # Following the cards

    async def follow(self, tool: str) -> None:
        """Follow the card of a tool, whose name the server is going to claim."""
        if tool not in self._names:
            name = self._names[tool] = _Name(tool, partial(self._on_card, tool))
            await self._connection.subscribe(self._topics.tool_card(tool), name.handler, qos=0, snapshot=True)

    async def unfollow(self, tool: str) -> None:
        """Forget a tool."""
        name = self._names.pop(tool, None)
        self.held.discard(tool)
        self.refused.pop(tool, None)
        if name is not None:
            await self._connection.unsubscribe(self._topics.tool_card(tool), name.handler)

    async def unfollow_all(self, tools: Iterable[str]) -> bool:
        """Forget several tools.

        Returns:
            Whether another server offers one of them too, although this server has the name.
        """
        tools = list(tools)
        shared = self._are_shared(tools)
        for tool in tools:
            await self.unfollow(tool)
        return shared

    async def say_offline(self) -> None:
        """Publish the cards of the server and of its tools with status offline; see :meth:`Presence.say_offline`."""
        await self._presence.say_offline(self._barrier, everyone=self._are_shared(self.held))

    def _are_shared(self, tools: Iterable[str]) -> bool:
        """Whether a server that the list of replicas may leave out has published a card of one of these tools."""
        return any(self._names[tool].unlisted for tool in tools if tool in self.held and tool in self._names)

    def watch(self) -> None:
        """Begin to take over names that become free, and to settle names that two servers have."""
        self._task = asyncio.create_task(self._watch(), name=f"mqtt-agent tool names {self._scope.server_id}")

    async def rest(self) -> None:
        """Claim nothing more. The cards are still followed."""
        self._resting = True
        self._originals.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def stop(self) -> None:
        """Unsubscribe, and forget everything."""
        await self.rest()
        await self._rivals.stop()
        for tool in list(self._names):
            await self.unfollow(tool)

    def _on_card(self, tool: str, message: InboundMessage) -> None:
        name = self._names.get(tool)
        if name is None:
            return
        card = self._read(message)
        if message.payload and (card is None or card.tool != tool):
            if card is not None:
                self._faults.refuse(message, "a card for another name than its topic's", card.tool)
            self._presence.correct_tool(tool)  # somebody has overwritten the card with something unreadable
            return
        name.card, name.epoch = card, self._connection.epoch
        name.unlisted |= card is not None and (card.server != self._own or card.replicas is None)
        if card is None or card.server == self._own:
            self._presence.note_replicas(tool, card)
        if card is not None and card.server != self._own:
            name.foreign += 1
            name.writers.add(card.server)
            if not message.retain:
                self._rivals.hear(card.server)
        if card is None or card.server == self._own:
            self._presence.note_tool_card(message)
            if card is None or card.status != "online":
                self._presence.correct_tool(tool, message)
            elif tool in self.held:
                self._originals.note(card, message)
        elif tool in self.held and self._presence.announced and self._presence.serving:
            self._contested.add(tool)
        if self._contested or tool in self.refused:
            self._wake()

    def _read(self, message: InboundMessage) -> ToolCard | None:
        try:
            return decode(ToolCard, message.payload) if message.payload else None
        except WireError as error:
            self._faults.refuse(message, "an unreadable card", error)
            return None

    def _wake(self) -> None:
        self._news.set()

    # Claiming

    async def check(self, tools: Iterable[str]) -> None:
        """Find out which names other servers have, without claiming any.

        Raises:
            ToolNameTaken: Another server has a name, and the server is to raise an error then.
            TransportError: The connection ended.
        """
        async with self._one_at_a_time:
            await self._barrier()
            taken = await self._taken(tools)
            if taken and self._on_conflict == "raise":
                raise name_taken(self._scope, taken)
            await self._refuse(taken)

    async def claim(self, tools: Iterable[str], *, starting: bool = False, shown: bool = True) -> None:
        """Claim the names of these tools. Then :attr:`held` and :attr:`refused` tell which of them the server has.

        Args:
            tools: The names of tools that the server follows.
            starting: Whether the server may raise an error about a name that another server has.
            shown: Whether to show the claim on the server card.

        Raises:
            ToolNameTaken: Another server has a name. The cards that this claim has published were removed.
            TransportError: The connection ended.
        """
        async with self._one_at_a_time:
            try:
                await self._barrier()
                tools = list(tools)
                if self._presence.lists_many(tools):
                    replicas = [card for card in await self._rivals.look() if card.shared_name == self._own]
                    self._presence.list_only({card.server for card in replicas})
                may_raise = starting and self._on_conflict == "raise"
                await self._claim(tools, may_raise=may_raise, shown=shown)
            finally:
                self._presence.claims = []

    async def _claim(self, wanted: list[str], *, may_raise: bool, shown: bool) -> None:
        claimed = list[str]()
        fresh = {tool for tool in wanted if not self._is_own(tool)}
        patient_until = asyncio.get_running_loop().time() + _SETTLED_WITHIN
        for _ in range(_MAX_ROUNDS):
            taken = await self._taken(wanted)
            if (
                taken
                and asyncio.get_running_loop().time() < patient_until
                and self._rivals.will_give_way(taken, self._place)
            ):
                await self._rivals.follow({card.server for cards in taken.values() for card in cards})
                await self._rivals.news(1.0)
                continue
            if taken and may_raise:
                await self._withdraw([tool for tool in claimed if tool in fresh])
                raise name_taken(self._scope, taken)
            await self._refuse(taken)
            free = [tool for tool in wanted if tool not in taken]
            claimed += free
            wanted = await self._publish(free, shown=shown)
            self._hold(tool for tool in free if tool not in wanted)
            if not wanted:
                return
        self._hold(wanted)  # somebody publishes cards all the time; the names are settled while the server runs

    async def _publish(self, tools: list[str], *, shown: bool) -> list[str]:
        """Publish claims, and return the tools that another server claims at the same time.

        Of two servers that claim at once, at least one sees the claim of the other: each server waits for the claims
        that the broker took before its own claim. Not every broker shows the claims to both in the same order.
        """
        if not tools:
            return []
        presence = self._presence
        if shown:
            presence.claims = [*tools, *(tool for tool in presence.claims if tool not in tools)]
            await presence.announce_server()
        told = await asyncio.gather(*map(self._publish_claim, tools), return_exceptions=True)
        for error in told:  # a card that is too large must not hide the other tools: the announcement raises it
            if error is not None and not isinstance(error, PayloadTooLarge):
                raise error
        await self._barrier()
        return [tool for tool in tools if self._names[tool].foreign != self._names[tool].judged]

    def _is_own(self, tool: str) -> bool:
        """Whether the latest card of a tool is of this server or of a replica."""
        card = self._names[tool].card
        return card is not None and card.server == self._own

    async def _publish_claim(self, tool: str) -> None:
        # A claim says offline, because callers must not send calls yet. A name that the server or another replica has
        # is online already.
        name = self._names[tool]
        card = name.card if self._is_own(tool) else None
        if card is not None and name.epoch == self._connection.epoch and self._presence.still_shown(card):
            return
        online = card is not None and card.status == "online"
        await self._presence.publish_tool_card(tool, "online" if online else "offline")

    def _hold(self, tools: Iterable[str]) -> None:
        for tool in tools:
            self.held.add(tool)
            self.refused.pop(tool, None)
        self._presence.refused = sorted(self.refused)

    async def _withdraw(self, claimed: list[str]) -> None:
        """Remove the cards that a claim has published, because the server raises an error."""
        if self._task is None:  # the server does not start
            await self._presence.remove_server_card()
        for tool in claimed:
            self.held.discard(tool)
            if self._is_own(tool):
                await self._presence.remove_tool_card(tool)

    # Who has a name

    async def _taken(self, tools: Iterable[str]) -> dict[str, list[ServerCard]]:
        """The tools whose names other servers have, each with the cards of these servers."""
        names = [self._names[tool] for tool in tools]
        all_seen = not self._connection.keeps_retained_apart  # otherwise, the card of a tool may be at another node
        suspects = {name.tool: name.foreign for name in names if name.foreign != name.judged or not all_seen}
        if not suspects:
            return {}
        await self._rivals.look()
        taken = self._rivals.owners(suspects)
        if taken:
            await self._rivals.find_absent({c.server: c for owners in taken.values() for c in owners}.values())
            taken = self._rivals.owners(suspects)
        for tool, foreign in suspects.items():
            if tool not in taken:  # a card that arrived since the look contests the claim that follows
                self._names[tool].judged = foreign
        return taken

    # Names that the server does not get

    @property
    def _place(self) -> tuple[str, str]:
        return self._presence.began, self._scope.server_id

    async def _refuse(self, taken: Mapping[str, list[ServerCard]]) -> None:
        """Note that other servers have names, tell it in the log, and follow these servers."""
        told: dict[str, list[str]] = {}
        for tool, owners in taken.items():
            owner = owners[0].shared_name
            if self.refused.get(tool) != owner:
                told.setdefault(owner, []).append(tool)
            self.refused[tool] = owner
            self.held.discard(tool)
        for owner, tools in told.items():
            tell_refused(self._own, owner, tools)
        self._presence.refused = sorted(self.refused)
        await self._follow_owners()

    async def _follow_owners(self) -> None:
        owners = self._rivals.owners(self.refused) if self.refused else {}
        await self._rivals.follow({card.server for cards in owners.values() for card in cards})

    # While the server runs

    def on_reconnected(self) -> None:
        """Take over no names for a while, because the servers that have them come back, too."""
        self._not_before = asyncio.get_running_loop().time() + PATIENCE

    @property
    def claimable(self) -> list[str]:
        """The tools whose names the server may claim now."""
        waits = asyncio.get_running_loop().time() < self._not_before
        return [tool for tool in self._names if not (waits and tool in self.refused)]

    async def reclaim(self) -> None:
        """Claim the names again after a reconnect. Names that another server has got meanwhile are given up.

        Raises:
            TransportError: The connection ended.
        """
        held = sorted(self.held)
        await self.claim(held, shown=False)  # the server card would list tools whose calls are not taken yet
        lost = [tool for tool in held if tool not in self.held]
        if lost:
            await self._on_lost(lost)

    async def _watch(self) -> None:
        while not self._resting:  # before Python 3.12, wait_for may swallow a cancellation
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._news.wait(), self._patience())
            if self._resting:
                return
            asked = not self._news.is_set()
            self._news.clear()
            if not self._connection.connected:
                await asyncio.sleep(_CONTESTED_AGAIN)
                continue
            try:
                if self._contested:
                    await self._settle()
                    await asyncio.sleep(_CONTESTED_AGAIN)
                if self._originals.pending:
                    async with self._one_at_a_time:
                        await self._originals.restore()
                    await asyncio.sleep(_CONTESTED_AGAIN)
                if self.refused:
                    await self._take_over(ask=asked)
            except MQTTAgentError as error:
                logger.info("server %s looks at its tool names again later: %s", self._scope.server_id, error)
                await asyncio.sleep(_CONTESTED_AGAIN)
                self._wake()
            except Exception:  # without this task, the server would neither give up a name nor take over a name
                logger.exception("server %s could not settle its tool names, and tries again", self._scope.server_id)
                await asyncio.sleep(_CONTESTED_AGAIN)
                self._wake()

    def _patience(self) -> float | None:
        if not self.refused:
            return None
        early = self._not_before - asyncio.get_running_loop().time()
        return early if early > 0 else _ASK_AFTER

    async def _settle(self) -> None:
        """Keep or give up names that this server has, and for which another server has published a card."""
        async with self._one_at_a_time:
            contested, self._contested = self._contested & self.held, set()
            cards = await self._rivals.look()
            own = self._rivals.earliest(self._place)
            others = [card for card in cards if card.shared_name != self._own and not contested.isdisjoint(card.tools)]
            await self._rivals.find_absent(card for card in others if place_of(card) < own)
            cards, own = self._rivals.cards(), self._rivals.earliest(self._place)
            lost: dict[str, list[ServerCard]] = {}
            for tool in sorted(contested):
                others = [card for card in cards if self._rivals.believes(card, tool)]
                others = [card for card in others if card.shared_name != self._own and tool in card.tools]
                others.sort(key=place_of)
                if others:
                    self._told_pairs.tell(tool, others[0])
                if others and place_of(others[0]) < own:
                    lost[tool] = others
                else:
                    await self._presence.publish_tool_card(tool, "online")
            await self._refuse(lost)
        if lost:
            await self._on_lost(list(lost))

    async def _take_over(self, *, ask: bool) -> None:
        """Claim the refused names that no other server has any more."""
        if not self._presence.serving or asyncio.get_running_loop().time() < self._not_before:
            return
        if ask:
            await self._rivals.find_absent(self._rivals.cards())
        still = self._rivals.owners(self.refused)
        free = [tool for tool in self.refused if tool not in still]
        if not free:
            return
        await self.claim(free)
        got = [tool for tool in free if tool in self.held]
        if got:
            logger.warning("server %s takes over %s", self._scope.server_id, listed(got))
            await self._on_held(got)
        else:
            await self._presence.announce_server()
        await self._follow_owners()
