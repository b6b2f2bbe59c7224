"""The class ``Agent``: its arguments, its start and its stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal, TypeVar, overload

from mqtt_agent.agents.arguments import (
    check_client_id,
    check_limits,
    check_pool,
    checked_names,
    client_id_of,
    make_card,
    make_store,
)
from mqtt_agent.agents.dialect import AgentDialect
from mqtt_agent.agents.executing.background import background_of
from mqtt_agent.agents.executing.conversation import context_of
from mqtt_agent.agents.executing.early_cancels import EarlyCancels
from mqtt_agent.agents.executing.executor import TaskExecutor
from mqtt_agent.agents.executing.inbox import Inbox
from mqtt_agent.agents.executing.ledger import ReceivedTasks
from mqtt_agent.agents.executing.replies import Replies
from mqtt_agent.agents.executing.router import Router, TaskHandler
from mqtt_agent.agents.executing.shared import SharedWork
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.pool import PoolMember
from mqtt_agent.agents.pool_presence import PoolPresence
from mqtt_agent.agents.presence import AgentPresence
from mqtt_agent.agents.requesting.delegations import Delegations
from mqtt_agent.agents.requesting.requester import Requester
from mqtt_agent.agents.retention import Retention
from mqtt_agent.agents.scope import Scope
from mqtt_agent.agents.store import PostgresStore, TaskRecord, TaskStore
from mqtt_agent.agents.store.retrying import StoreRetry
from mqtt_agent.agents.subscriptions import Subscriptions
from mqtt_agent.agents.tools import AgentTools, ToolUser
from mqtt_agent.aio.default_executor import release_threads, reserve_threads
from mqtt_agent.aio.forks import in_child
from mqtt_agent.aio.lifecycle import Lifecycle, refuse_own_stop
from mqtt_agent.aio.waiting import within
from mqtt_agent.deprecation import renamed_arguments
from mqtt_agent.endpoints.copies import CardAnswers
from mqtt_agent.endpoints.running import Service
from mqtt_agent.endpoints.screen import screen_messages
from mqtt_agent.errors import AgentIdTaken, StoreError, TransportError
from mqtt_agent.logs import logger_of
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
from mqtt_agent.wire import (
    BOUND,
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NAMESPACE,
    AgentCard,
    AgentSkill,
    Topics,
    validate_identifier,
)

__all__ = ["Agent"]

logger: logging.Logger = logger_of(__name__)

_OFFLINE_WITHIN = 10.0
"""Seconds to wait until the broker has confirmed the offline status."""

Handler = TypeVar("Handler", bound=TaskHandler)


class Agent(Requester, ToolUser, Service):
    """Takes tasks from its peers, and gives tasks to them. No task is lost when a process dies.

    Example:
        >>> agent = Agent("researcher", capabilities=["research"])  # doctest: +SKIP
        >>> @agent.on_task  # doctest: +SKIP
        ... async def handle(task: TaskContext) -> str:
        ...     return f"notes on {task.prompt}"
        >>> agent.run()  # doctest: +SKIP

    Args:
        agent_id: The agent's id. Peers give tasks to this id. Only one process at a time may use an id, unless
            ``pool`` is true.
        broker: The broker's URL, or several for failover; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        description: What the agent does, for a person or a model that chooses an agent.
        capabilities: Short words by which peers find the agent.
        skills: What the agent can do, in A2A's form: :class:`AgentSkill`, or mappings with its fields.
        input_modes: The MIME types that the agent takes.
        output_modes: The MIME types that the agent gives.
        meta: Any other information for the card, as JSON.
        store: Where tasks are kept: a :class:`TaskStore`, the path of an SQLite file, or the URL of a PostgreSQL
            database (``postgresql://...``, see :class:`PostgresStore`). None means a file in the user's state
            directory; each agent id and namespace has its own file. The folder of a path must exist.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        client_id: The MQTT client id, for a broker that binds client ids to logins. None means the agent's id, in a
            namespace other than ``a2a/v1`` followed by ``@`` and the namespace. The id names the session at the broker,
            so give an agent the same id each time. In a pool, None means a new id in each process; a member whose login
            has a client id takes ``AGENT_ID:NAME``.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.
        connection: A connection that the agent uses instead of making one. The agent sets the connection's Last Will.
        max_concurrency: How many handlers run at once, 1 or more. Further tasks wait in the store. A plain function
            whose task was canceled or has expired counts until it returns.
        max_waiting_tasks: How many tasks may wait, 1 or more. Further tasks are rejected. A requester may add tasks as
            long as it has no more of them than there is room for, so that it leaves some room to others.
        max_attempts: How often the handler of a task may begin, 1 or more; None for no limit. The handler begins again
            after its process was killed or stopped. The task fails in place of one more attempt.
        drain_timeout: How many seconds :meth:`stop` waits for running handlers. Then :meth:`stop` cancels the handlers,
            and the agent's next start runs their tasks again.
        will_delay: How many seconds after a lost connection the broker publishes the agent's Last Will, which reports
            the agent offline.
        session_expiry: How many seconds the broker keeps messages for an agent that is not connected.
        max_payload: The size of the largest task or result that the agent reads, in bytes.
        retention: How many seconds finished tasks are kept. While a task is kept, a repeat of the task is not run.
        max_peers: The largest number of peers whose card and status are kept. Further peers are ignored.
        pool: Whether any number of processes, on any number of hosts, run as this agent. All of them have the same
            arguments, and ``store`` is the same PostgreSQL database. Each task is done by one of them, and by another
            one when a process dies; see ``docs/pools.md``. The limits count for each process.
        contexts: ``"ordered"`` lets the tasks of one context (``context_id``) run one after the other in the whole
            pool, in the order in which they were stored. Only for a pool.
        allowed_requesters: The ids of the agents that may give tasks. A task of anybody else is rejected. A requester
            on a plain topic chooses its own name, so only ``bound="require"`` and the broker's access rules make this
            list a protection. None means all agents.

    Attributes:
        agent_id: The agent's id.
        namespace: The prefix of all topics, as it was given to the constructor.
        connection: The agent's connection to the broker.
        store: The store that keeps the agent's tasks.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is not a broker URL, ``connection`` has a Last Will already or is started, a number is
            too small, both ``client_id`` and ``connection`` are given, or ``pool`` is true and ``store`` is not a
            PostgreSQL database.
    """

    @renamed_arguments(max_concurrent_tasks="max_concurrency")
    def __init__(
        self,
        agent_id: str,
        *,
        broker: str | Sequence[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        description: str = "",
        capabilities: Sequence[str] = (),
        skills: Sequence[AgentSkill | Mapping[str, Any]] = (),
        input_modes: Sequence[str] | None = None,
        output_modes: Sequence[str] | None = None,
        meta: dict[str, Any] | None = None,
        store: TaskStore | str | PathLike[str] | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        client_id: str | None = None,
        audit: MessageAudit | None = None,
        connection: Connection | None = None,
        max_concurrency: int = 8,
        max_waiting_tasks: int = 100_000,
        max_attempts: int | None = None,
        drain_timeout: float = 10.0,
        will_delay: int = 5,
        session_expiry: int = 24 * 3600,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        retention: float = 7 * 24 * 3600,
        max_peers: int = 10_000,
        allowed_requesters: Sequence[str] | None = None,
        pool: bool = False,
        contexts: Literal["free", "ordered"] = "free",
    ) -> None:
        check_limits(max_concurrency, max_waiting_tasks, max_attempts)
        self.agent_id: str = validate_identifier(agent_id, "agent id")
        self.namespace: str = namespace
        self._topics = topics = Topics(namespace)
        self._card = make_card(agent_id, namespace, description, capabilities, skills, input_modes, output_modes, meta)
        check_client_id(client_id, connection, f"{agent_id}:" if pool else "")
        self.connection: Connection = connection or BrokerSettings(
            broker, namespace, credentials, tls, bound, identity, audit
        ).connection(
            client_id or client_id_of(topics, agent_id),
            will_delay=will_delay,
            # The session of a dead member gets a share of the messages, and nobody reads them.
            session_expiry=min(session_expiry, will_delay) if pool else session_expiry,
        )
        screen_messages(self.connection, topics)
        self.store: TaskStore = make_store(store, topics, agent_id)
        retry, dialect = StoreRetry(agent_id), AgentDialect(bound, agent_id)
        self._scope = Scope(agent_id, topics, self.connection, self.store, max_payload, retry, bound, dialect=dialect)
        check_pool(pool, contexts, self.store, connection)
        self._is_pool, self._ordered, self._renames = pool, contexts == "ordered", client_id is None
        self._router, self._tools, self._allowed = Router(), AgentTools(self._scope), checked_names(allowed_requesters)
        self._limits, self._max_waiting_tasks = (max_concurrency, max_attempts), max_waiting_tasks
        self._max_peers, self._keep_for, self._drain_timeout = max_peers, retention, drain_timeout
        self._lifecycle = self._make_lifecycle()
        self._make_parts()
        self.connection.claim_will(Will(topics.agent_status(agent_id), lambda: self._presence.will()))
        in_child(self._after_fork)

    def _make_parts(self) -> None:
        """Make everything that belongs to one life of the agent; see :mod:`mqtt_agent.aio.lifecycle`."""
        self._retry = StoreRetry(self.agent_id)
        self._dialect = AgentDialect(self._scope.bound, self.agent_id)
        scope = dataclasses.replace(self._scope, retry=self._retry, dialect=self._dialect)
        self._pool = self._make_member()
        if self._pool is None:
            self._presence = AgentPresence(scope, self._card)
        else:
            scope = dataclasses.replace(scope, store=self._pool.store, pool=self._pool)
            self._presence = PoolPresence(scope, self._card, self._pool)
        questions, asker_of = self._topics.all_agent_queries, self._topics.agent_of_query
        self._answers = CardAnswers(scope.connection, questions, asker_of, self._presence.copies)
        self._dialect.on_given_up.append(self._presence.announce_soon)
        self._peers = Peers(scope, self._max_peers)
        self._dialect.says_bound = lambda peer: self._peers.says(peer, BOUND)
        self._delegations = Delegations(scope, self._peers)
        self._peers.on_back.append(self._delegations.on_peer_back)
        background = background_of(scope)
        self._replies = Replies(scope, background)
        self._executor = TaskExecutor(scope, self._router, self._replies, background, *self._limits)
        early = EarlyCancels(self._keep_for)
        self._received = ReceivedTasks(scope, self._executor, self._replies, self._max_waiting_tasks, early)
        self._inbox = Inbox(scope, self._received, self._replies, self._allowed, self._keep_for)
        self._subscriptions = Subscriptions(scope, self._inbox, self._delegations.results)
        if self._pool is not None:
            self._shared = SharedWork(self._pool, self._executor, self._received, self._replies)
        self._retention = Retention(scope, self._keep_for)
        self._hurried = asyncio.Event()
        self._opened = self._leased = False
        """Whether this agent counts as a user of the store, and as a user of the connection."""
        self._failure: TransportError | None = None
        self._failing: asyncio.Task[None] | None = None

    def _make_member(self) -> PoolMember | None:
        """This process as a member of its pool, with a new member id; None when the agent is no pool."""
        if not self._is_pool:
            return None
        assert isinstance(self.store, PostgresStore)
        member = PoolMember(
            self.store, self.connection, self._topics, self.agent_id, self._context_of if self._ordered else None
        )
        if self._renames and not self.connection.started:
            self.connection.rename(f"{self.agent_id}:{member.id}{client_id_of(self._topics, '')}")
        return member

    def _context_of(self, record: TaskRecord) -> str | None:
        return context_of(record, self._replies.is_bound(record.reply_to))

    def _make_lifecycle(self) -> Lifecycle:
        return Lifecycle(lambda: f"agent {self.agent_id}")

    def _after_fork(self) -> None:
        if self.connection.inherited is not None:
            self._delegations.leave_to_parent(self.connection.inherited)
            self._lifecycle = self._make_lifecycle()

    def __repr__(self) -> str:
        state = "started" if self._lifecycle.started else "stopped"
        return f"<Agent {self.agent_id} at {self.connection.url}, {state}>"

    @property
    def card(self) -> AgentCard:
        """A copy of the card that peers see."""
        return self._presence.shown_card().model_copy(deep=True)

    @property
    def running_tasks(self) -> int:
        """How many handlers are running, including handlers that wait for an answer."""
        return self._executor.running

    # Taking tasks

    @overload
    def on_task(self, handler: Handler, /) -> Handler: ...

    @overload
    def on_task(self, type: str | None = None, /) -> Callable[[Handler], Handler]: ...

    def on_task(self, handler: Any = None, /) -> Any:
        """Make the decorated function a task handler.

        ``@agent.on_task("research")`` makes the handler of tasks of type ``research``. ``@agent.on_task`` makes the
        handler of all tasks whose type has no handler of its own.

        The function is called with a :class:`TaskContext`, and returns the result: anything that has a JSON form. An
        exception fails the task. :class:`TaskRejected` rejects the task. :class:`TaskFailed` lets the handler choose
        the error's code. An ``async`` function runs on the event loop and must not block. A plain ``def`` function runs
        in a thread and may block. After a crash the function is called again: ``task.attempt`` is higher, and
        ``task.saved`` holds the latest checkpoint.

        Returns:
            The function itself.

        Raises:
            ValueError: These tasks have a handler already.
            TypeError: The function cannot be called with one argument.
        """
        if callable(handler):
            self._router.add(None, handler)
            return handler

        def register(function: Handler) -> Handler:
            self._router.add(handler, function)
            return function

        return register

    # Life

    async def start(self) -> None:
        """Open the store, connect, publish the card and the status, and continue the tasks of an earlier process.

        A second call changes nothing.

        Raises:
            StoreError: The store cannot be opened.
            AgentIdTaken: An agent with this id runs already, and only one of the two is a pool. When the broker's
                retained status says so, and no process answers for 10 s, the agent starts.
            TransportError: The broker cannot be reached, or refuses the connection; see :meth:`Connection.start`.
            RuntimeError: The agent runs on another event loop.
        """
        self.connection.check_process()
        await self._lifecycle.start(self._begin, partial(self._end, 0))

    async def _begin(self) -> None:
        self._make_parts()
        reserve_threads(self, self._limits[0])
        await self.store.open()
        self._opened = True
        if self._pool is not None:
            await self._pool.join()
        await self._connect()
        await self._presence.announce()
        await self._executor.begin()
        await self._delegations.start()
        self._tools.allow_use()
        self._retention.start()

    async def _connect(self) -> None:
        await self._presence.follow()
        if self._pool is None:
            await self._subscriptions.start()  # before the connection starts: the session may already hold messages
        self.connection.on_reconnected.append(self._on_reconnected)
        self.connection.on_failed.append(self._on_failed)
        self.connection.on_refused.append(self._delegations.on_refused)
        await self._tools.start()  # before the connection starts: the session may already hold calls for the servers
        await self.connection.start()
        self._leased = True
        await self._answers.start()
        await self._peers.start()
        if self._pool is not None:
            await self._peers.complete()
        await self._check_rival()
        if self._pool is not None:
            await self._pool.start()
            await self._subscriptions.start()

    async def _check_rival(self) -> None:
        """Raise an error when an agent with this id runs that cannot share the id."""
        rival = await self._presence.find_rival()
        if rival is None:
            return
        since = f"since {rival.started}" if rival.started else "already"
        if self._pool is None:
            what = f"a pool of processes runs as agent {self.agent_id!r} {since}"
            advice = "start this process with pool=True and the same database, stop the pool"
        else:
            what = f"a single process runs as agent {self.agent_id!r} {since}"
            advice = "stop this process, or start it with pool=True and the same database"
        raise AgentIdTaken(f"{what}: {advice}, or choose another agent id")

    async def stop(self) -> None:
        """Start no further task, wait for running handlers, publish the offline status, and disconnect.

        Tasks that arrive meanwhile are stored, and run after the next start. A second call changes nothing. When the
        asyncio task that waits here is canceled, the running handlers are canceled, and the stop ends before the
        cancellation is raised.

        Raises:
            RuntimeError: The agent runs on another event loop, or one of its handlers awaits this.
        """
        refuse_own_stop((run.work for run in self._executor.runs.values()), f"agent {self.agent_id}")
        await self._lifecycle.stop(partial(self._end, self._drain_timeout), self._hurry)

    async def _end(self, drain_timeout: float) -> None:
        self._presence.announced, announced = False, self._presence.announced
        self._retention.stop()
        self._retry.end()
        try:
            await self._subscriptions.leave_groups()
            await self._drain(drain_timeout)
            await self._tools.stop()
            await self._delegations.stop(self._failure)
            if announced and await self._leave_pool() and self.connection.connected:
                await within(self._presence.say_offline(), _OFFLINE_WITHIN)
        except (TransportError, StoreError, asyncio.TimeoutError) as error:
            reason = str(error) or f"no confirmation within {_OFFLINE_WITHIN:g} s"
            logger.warning("agent %s could not publish its offline status: %s", self.agent_id, reason)
        finally:
            await self._leave()

    async def _leave_pool(self) -> bool:
        """Leave the pool. Returns whether the agent is offline now, because no other member is left."""
        return self._pool is None or await self._pool.leave()

    async def _drain(self, timeout: float) -> None:
        draining = asyncio.ensure_future(self._executor.drain(timeout))
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await self._executor.abandon()
        hurried.cancel()
        await draining

    async def _leave(self) -> None:
        with contextlib.suppress(ValueError):
            self.connection.on_reconnected.remove(self._on_reconnected)
        with contextlib.suppress(ValueError):
            self.connection.on_failed.remove(self._on_failed)
        with contextlib.suppress(ValueError):
            self.connection.on_refused.remove(self._delegations.on_refused)
        release_threads(self)
        try:
            if self._failing is not None:
                await asyncio.wait([self._failing])
            await self._peers.stop()
            await self._answers.stop()
            await self._presence.unfollow()
            await self._finish_storing()  # before the disconnect, so that the messages are acknowledged
            await self._leave_pool()  # when the start has failed
        finally:
            if self._leased:
                self._leased = False
                await self.connection.stop(end_session=self._pool is not None or self._presence.rival is not None)
            if self._pool is not None:
                await self._pool.unsubscribe()
            # After the disconnect, this only removes the handlers. The broker keeps the subscriptions and the messages.
            await self._subscriptions.stop()
            await self._finish_storing()
            if self._opened:
                self._opened = False
                await self.store.close()

    async def _finish_storing(self) -> None:
        """Wait until the messages that have arrived are stored, or until storing them has failed."""
        await self._inbox.drain()
        await self._delegations.drain()

    def _hurry(self) -> None:
        self._hurried.set()

    @property
    def _label(self) -> str:
        return self.agent_id

    def _what_it_serves(self) -> str:
        return f"agent {self.agent_id} takes tasks at {self.connection.url}"

    async def _on_reconnected(self, session_present: bool) -> None:
        await self._presence.announce_again(session_present)
        self._peers.on_reconnected()
        self._delegations.on_reconnected()
        if not session_present:
            self._executor.send_unsettled()

    def _on_failed(self, error: TransportError) -> None:
        self._failure = error
        self._failing = asyncio.ensure_future(self._abandon(error))

    async def _abandon(self, error: TransportError) -> None:
        self._retry.end()
        await self._executor.abandon()
        await self._delegations.stop(error)
        await self._leave_pool()  # so that the other members take the tasks
