"""The tool server: starts, takes calls, publishes its cards, and stops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.default_executor import release_threads, reserve_threads
from mqtt_agent.aio.forks import in_child
from mqtt_agent.aio.lifecycle import Lifecycle, refuse_own_stop
from mqtt_agent.aio.waiting import within
from mqtt_agent.display.suggestions import counted
from mqtt_agent.endpoints.copies import CardAnswers
from mqtt_agent.endpoints.dialect import Dialect
from mqtt_agent.endpoints.running import Service
from mqtt_agent.endpoints.screen import screen_messages
from mqtt_agent.errors import ConnectionLost, ToolNameTaken, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.changing import Changes
from mqtt_agent.tools.serving.choice import ToolChoice
from mqtt_agent.tools.serving.conflicts import OnConflict, checked_on_conflict
from mqtt_agent.tools.serving.content_settings import ContentSettings
from mqtt_agent.tools.serving.contents import Contents
from mqtt_agent.tools.serving.election import Election
from mqtt_agent.tools.serving.executor import Executor
from mqtt_agent.tools.serving.intake import Intake
from mqtt_agent.tools.serving.names import ToolNames
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.replay import ReplayStore
from mqtt_agent.tools.serving.requests import Requests
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.tools.serving.sharing import Sharing
from mqtt_agent.transport import (
    TLS,
    Bound,
    BrokerSettings,
    Connection,
    Credentials,
    MessageAudit,
    MessageIdentity,
    Will,
)
from mqtt_agent.wire import DEFAULT_MAX_PAYLOAD, DEFAULT_NAMESPACE, ToolCard, validate_identifier
from mqtt_agent.wire.cards import OFFLINE_CARD_EXPIRY

__all__ = ["ToolServer"]

logger: logging.Logger = logger_of(__name__)

_BARRIER_WITHIN = 5.0
"""Seconds to wait until every message that the broker had queued has arrived."""
_OFFLINE_WITHIN = 10.0
"""Seconds to wait until the broker has confirmed the offline cards."""
_CONTENTS = ContentSettings()


class ToolServer(ToolChoice, Sharing, Service):
    """Offers Python functions as tools to every client of a broker.

    A server may run several times, in one process or on several machines: each of them is a replica of the server.
    The broker spreads the calls over all replicas. At a broker without shared subscriptions, one replica serves and
    the others are on standby: another replica takes over when the serving replica is lost.

    Example:
        >>> server = ToolServer("weather")  # doctest: +SKIP
        >>> @server.tool  # doctest: +SKIP
        ... async def forecast(city: str, days: int = 3) -> dict:
        ...     "Weather forecast for a city."
        >>> server.run()  # doctest: +SKIP

    Args:
        name: The server's name, the same for all its replicas.
        broker: A URL, or several for failover; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        prefix: The text before the names of all tools: ``prefix="gh."`` offers ``search`` as ``gh.search``. True means
            the server's name and ``_``. A tool name belongs to one server name in a namespace.
        on_conflict: What to do when a server of another name offers a tool of the same name: ``raise``
            :class:`ToolNameTaken`, or ``standby``: serve the other tools, and take over when the other server is gone.
            A server that loses a name while it runs is on standby in both cases.
        replica: The name of this replica. None makes a new name. With a name of your own, a restarted process takes
            over the session of the earlier process, and the calls that wait in the session.
        client_id: The MQTT client id, for a broker that binds client ids to logins. None means the server's id,
            ``name:replica``. Each process needs a client id of its own: with the id of another process, it takes that
            process's connection away.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.
        connection: A connection to share. None makes a connection that only this server uses.
        max_concurrency: How many handlers run at once. Further calls wait. A plain function whose call was canceled or
            has timed out counts until it returns.
        drain_timeout: Seconds that :meth:`stop` waits for running calls.
        will_delay: Seconds after which a server that was lost is shown as offline.
        session_expiry: Seconds that the broker keeps the session of a server that was lost, with the calls in it. None
            means as long as ``will_delay``. Use a longer time only for a server without replicas: some brokers continue
            to put a share of the calls into a session that no process uses.
        max_payload: The size of the largest call that the server reads, in bytes.
        replay_entries: How many responses are kept for repeated calls.
        replay_seconds: Seconds that each of these responses is kept.
        contents: How many large contents are kept for callers, how long, and where; see :meth:`ToolContext.share`.

    Attributes:
        name: The server's name, the same for all its replicas.
        namespace: The prefix of all topics, as it was given.
        replica: The name of this replica.
        server_id: The id of this replica: ``name:replica``.
        connection: The server's connection to the broker.

    Raises:
        InvalidIdentifier: ``name``, ``replica`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is not a broker URL, ``connection`` has a Last Will already or is started, a number is
            too small, ``on_conflict`` has another value, or ``contents`` has a directory without a ``replica``.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str | Sequence[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        prefix: bool | str = False,
        on_conflict: OnConflict = "raise",
        replica: str | None = None,
        client_id: str | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        audit: MessageAudit | None = None,
        connection: Connection | None = None,
        max_concurrency: int = 64,
        drain_timeout: float = 10.0,
        will_delay: int = 5,
        session_expiry: int | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        replay_entries: int = 10_000,
        replay_seconds: float = 600.0,
        contents: ContentSettings = _CONTENTS,
    ) -> None:
        _check(max_concurrency=(max_concurrency, 1), drain_timeout=(drain_timeout, 0), will_delay=(will_delay, 0))
        _check(session_expiry=(0 if session_expiry is None else session_expiry, 0), max_payload=(max_payload, 1))
        super().__init__(name, namespace, prefix)
        self._on_conflict: OnConflict = checked_on_conflict(on_conflict)
        self.replica: str = validate_identifier(replica or uuid.uuid4().hex[:8], "replica name")
        self.server_id: str = validate_identifier(f"{name}:{self.replica}", "server and replica name together")
        if client_id is not None and connection is not None:
            raise ValueError("client_id is for a connection of the server's own: give it to the Connection instead")
        self._own_connection, self._client_id = connection is None, client_id
        self._max_concurrency, self._drain_timeout = max_concurrency, drain_timeout
        self._replay = ReplayStore(replay_entries, replay_seconds)
        self._lifecycle = self._make_lifecycle()
        self._bound: Bound = bound
        self._content_settings = _checked_contents(contents, replica)
        settings = BrokerSettings(broker, namespace, credentials, tls, bound, identity, audit)
        self._use(
            Scope(
                name=self.name,
                replica=self.replica,
                server_id=self.server_id,
                generated=replica is None,
                namespace=namespace,
                topics=self._topics,
                connection=connection
                or settings.connection(
                    client_id or self.server_id,
                    will_delay=will_delay,
                    session_expiry=will_delay if session_expiry is None else session_expiry,
                ),
                agent=None,
                max_payload=max_payload,
                dialect=Dialect(bound, self.server_id),
            )
        )
        in_child(self._after_fork)

    def _use(self, scope: Scope) -> None:
        self._scope = scope
        self.connection: Connection = scope.connection
        screen_messages(self.connection, scope.topics)
        self._make_parts()
        if scope.agent is None:
            expiry = OFFLINE_CARD_EXPIRY if scope.generated else None
            topic = scope.topics.server_card(scope.server_id)
            self._will = Will(topic, lambda: self._presence.will(), expiry)
            scope.connection.claim_will(self._will)

    def _make_parts(self) -> None:
        """Make everything that belongs to one life of the server; see :mod:`mqtt_agent.aio.lifecycle`."""
        scope = self._scope = dataclasses.replace(self._scope, dialect=Dialect(self._bound, self.server_id))
        self._offered: dict[str, ToolCard] = {}
        """The cards of the tools whose calls this server takes. Only these cards are published."""
        self._withdrawing: set[str] = set()
        """Tools that are being removed, whose cards are still on the broker."""
        self._taking = False
        """Whether a tool that is added is offered at once. Otherwise the start offers the tool."""
        self._leased = False
        """Whether this server counts as a user of the connection."""
        self._executor: Executor | None = None
        self._tasks = BackgroundTasks(self._on_failure)
        self._changes = Changes(
            self.server_id, self._tasks, self._offer_late, self._remove, self._replace, self._is_missing
        )
        self._presence = Presence(scope, self._offered, self._cards)
        self._intake = Intake(scope, self._presence.show_to_strangers)
        self._contents = Contents(scope, self._content_settings)
        self._requests = Requests(scope, self._answerer, self._contents)
        self._presence.about = self._requests.about
        questions, asker_of = self._topics.all_client_queries, self._topics.client_of_query
        self._answers = CardAnswers(scope.connection, questions, asker_of, self._presence.copies)
        barrier = partial(self._intake.barrier, _BARRIER_WITHIN)
        self._names = ToolNames(
            scope, self._presence, self._intake.sees_all, self._on_conflict, self._take_over, self._give_up
        )
        self._election = Election(scope, self._presence, barrier, self._claim_when_elected)

    def _make_lifecycle(self) -> Lifecycle:
        return Lifecycle(lambda: f"tool server {self.server_id}")

    def _after_fork(self) -> None:
        if self.connection.inherited is not None:
            self._executor = None
            self._lifecycle = self._make_lifecycle()
        elif self._scope.generated:
            self.replica = uuid.uuid4().hex[:8]
            self.server_id = f"{self.name}:{self.replica}"
            if self._own_connection and not self._client_id:
                self.connection.rename(self.server_id)
            self.connection.release_will(self._will)
            self._use(dataclasses.replace(self._scope, replica=self.replica, server_id=self.server_id))

    def move_to(self, connection: Connection, agent: str, bound: Bound) -> None:
        """Serve over an agent's connection; see :meth:`Agent.serve_tools`.

        Args:
            connection: The agent's connection.
            agent: The agent's id.
            bound: Whether the agent speaks sender-bound topics.

        Raises:
            RuntimeError: The server has started already.
        """
        if self._lifecycle.user is not None:
            raise RuntimeError(f"server {self.server_id} has started already, over a connection of its own")
        self._own_connection = False
        self._bound = bound
        self._use(dataclasses.replace(self._scope, connection=connection, agent=agent))

    def __repr__(self) -> str:
        state = "started" if self._lifecycle.started else "stopped"
        return f"<ToolServer {self.server_id} at {self.connection.url}, {counted(len(self._cards), 'tool')}, {state}>"

    @property
    def active_calls(self) -> int:
        """How many calls run or wait for their turn at this replica."""
        return 0 if self._executor is None else self._executor.active

    # Start and stop

    async def start(self) -> None:
        """Connect, take calls, and publish the cards. A second call changes nothing.

        Raises:
            ToolNameTaken: A server of another name offers one of the tools, and ``on_conflict`` is ``raise``. Nothing
                was offered, and the connection is closed.
            TransportError: The broker does not answer, or refuses the connection; see :meth:`Connection.start`.
            RuntimeError: The server runs on another event loop.
        """
        self.connection.check_process()
        await self._lifecycle.start(self._begin, self._end)

    async def _begin(self) -> None:
        self._make_parts()
        reserve_threads(self, self._max_concurrency)
        self._executor = Executor(self._scope, self._max_concurrency, self._replay, self._contents)
        self.connection.on_reconnected.append(self._on_reconnected)
        await self._presence.follow()
        await self._intake.open(self._executor)
        await self._prepare(list(self._served))
        await self.connection.start()
        self._leased = True
        await self._answers.start()
        await self._contents.start()
        await self._requests.start()
        while missing := [name for name in self._served if not self._is_settled(name)]:  # more may be added meanwhile
            await self._prepare(missing)
            await self._find_names(missing)
        self._taking = True
        if self.connection.shared_subscriptions:
            await self._presence.announce()
        else:
            await self._election.start()
        self._names.watch()
        self._changes.begin()

    async def stop(self) -> None:
        """Take no new calls, wait for running calls, publish the offline cards, and disconnect.

        A second call changes nothing. When the asyncio task that waits here is canceled, the running calls are canceled
        and answered, and the stop ends before the cancellation is raised.

        Raises:
            RuntimeError: The server runs on another event loop, or one of its handlers awaits this.
        """
        if self._executor is not None:
            refuse_own_stop(self._executor.handlers, f"server {self.server_id}")
        await self._lifecycle.stop(self._end, self._hurry)

    async def _end(self) -> None:
        executor = self._executor
        assert executor is not None
        self._taking = False
        self._changes.end()
        try:
            await self._names.rest()
            await self._election.stop()
            announced, self._presence.announced = self._presence.announced, False
            self._tasks.cancel()
            await self._tasks.wait()  # a tool that was being offered
            for name in list(self._offered):  # after a reconnect, a tool may be given up meanwhile
                await self._intake.leave(name)
            began = asyncio.get_running_loop().time()
            if announced and self.connection.connected:
                # The broker may have given this replica further calls before it left the share groups.
                await self._intake.barrier(self._drain_timeout)
            await executor.drain(self._drain_timeout - (asyncio.get_running_loop().time() - began))
            if announced and self.connection.connected:
                await within(self._names.say_offline(), _OFFLINE_WITHIN)
                await asyncio.gather(*map(self._presence.remove_tool_card, self._withdrawing))
        except (TransportError, asyncio.TimeoutError) as error:
            logger.warning(
                "server %s could not publish its offline cards, so its cards may still say online: %s",
                self.server_id,
                str(error) or f"no confirmation within {_OFFLINE_WITHIN:g} s",
            )
        finally:
            await self._leave()

    async def _on_reconnected(self, session_present: bool) -> None:
        self._names.on_reconnected()
        if not self.connection.shared_subscriptions:
            self._election.wake()
            return
        with contextlib.suppress(ConnectionLost):  # the next reconnect does this again
            await self._names.reclaim()
            await self._intake.admit(self._offered)
            await self._presence.announce_again()

    async def _leave(self) -> None:
        self._intake.shut()
        if self._on_reconnected in self.connection.on_reconnected:
            self.connection.on_reconnected.remove(self._on_reconnected)
        release_threads(self)
        try:
            await self._answers.stop()
            await self._requests.stop()
            self._contents.close()
            if self._executor is not None:
                await self._executor.inputs.close()
            await self._intake.unsubscribe()
            await self._names.stop()
            await self._presence.unfollow()
        finally:
            self._executor = None
            if self._leased:
                self._leased = False
                await self.connection.stop(end_session=self._own_connection)

    @property
    def _label(self) -> str:
        return self.server_id

    def _what_it_serves(self) -> str:
        tools = ", ".join(self._offered) or "no tools yet"
        if self._presence.standby:
            tools = f"nothing now and is on standby for {self._election.serving}, which serves {tools}"
        return f"{self.server_id} serves {tools} at {self.connection.url}"

    def _hurry(self) -> None:
        if self._executor is not None:
            self._executor.hurry()

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        if isinstance(error, ToolNameTaken):
            return  # the log has a warning about it already
        logger.warning("server %s could not offer a tool that was added after its start: %s", self.server_id, error)


def _checked_contents(contents: ContentSettings, replica: str | None) -> ContentSettings:
    if contents.directory is not None and replica is None:
        raise ValueError("a directory for contents needs replica=: no other process would find them again")
    return contents


def _check(**settings: tuple[float, float]) -> None:
    """Check that each setting, given as value and minimum, is a number and not below its minimum."""
    for name, (value, least) in settings.items():
        if not isinstance(value, (int, float)) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name} must be a number, {least:g} or more, not {value!r}")
