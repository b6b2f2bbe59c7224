"""An agent: it takes tasks from its peers and gives them tasks."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar, overload

from mqtt_agent.agents.executing.executor import TaskExecutor
from mqtt_agent.agents.executing.inbox import Inbox
from mqtt_agent.agents.executing.ledger import ReceivedTasks
from mqtt_agent.agents.executing.replies import Answers
from mqtt_agent.agents.executing.router import Router, TaskHandler
from mqtt_agent.agents.peers import Peers
from mqtt_agent.agents.presence import AgentPresence
from mqtt_agent.agents.requesting.delegations import Delegations
from mqtt_agent.agents.requesting.requester import Requester
from mqtt_agent.agents.store import SqliteStore, TaskStore, default_store_path
from mqtt_agent.deprecation import renamed_arguments
from mqtt_agent.endpoints.running import Service
from mqtt_agent.errors import StoreError, TransportError
from mqtt_agent.tools import ToolClient, ToolServer
from mqtt_agent.transport import TLS, BrokerSettings, Connection, Credentials
from mqtt_agent.version import __version__
from mqtt_agent.wire import (
    AGENT_FEATURES,
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NAMESPACE,
    AgentCard,
    AgentSkill,
    Topics,
    VersionInfo,
    validate_identifier,
)

__all__ = ["Agent"]

logger: logging.Logger = logging.getLogger(__name__)

_GOODBYE_WITHIN = 10.0
_SWEEP_EVERY = 3600.0

Handler = TypeVar("Handler", bound=TaskHandler)


class Agent(Requester, Service):
    """Takes tasks from its peers, gives them tasks, and loses none, whatever dies on the way.

    Example:
        >>> agent = Agent("researcher", capabilities=["research"])  # doctest: +SKIP
        >>> @agent.on_task  # doctest: +SKIP
        ... async def handle(task: TaskContext) -> str:
        ...     return f"notes on {task.prompt}"
        >>> agent.run()  # doctest: +SKIP

    Args:
        agent_id: Its name, and the name of its session at the broker: one process at a time.
        broker: A URL; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        description: For the person or the model that chooses an agent.
        capabilities: Short words to search for.
        skills: What it can do, in A2A's form: :class:`AgentSkill`, or mappings with its fields.
        input_modes: MIME types that it takes.
        output_modes: MIME types that it gives.
        meta: Anything else to tell on the card.
        store: Where its tasks are kept: the path of an SQLite file, or a :class:`TaskStore`. None takes a file in the
            user's state directory, one for each namespace and agent id.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        connection: Use this connection instead of one of its own.
        max_concurrency: How many handlers run at once; more tasks wait in the store.
        max_waiting_tasks: How many may wait; further ones are rejected.
        drain_timeout: Seconds that :meth:`stop` waits for running handlers; then they are run again at the next start.
        will_delay: Seconds after which an agent that is gone without a word is shown offline.
        session_expiry: Seconds that the broker keeps what comes for an agent that is gone.
        max_payload: Bytes of the largest task or result that is read.
        retention: Seconds that finished tasks are kept; as long, a repeat of a task is known.
        max_peers: How many cards and statuses of peers are kept.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, ``connection`` has a will already or is started, or a number is too
            small.
    """

    @renamed_arguments(max_concurrent_tasks="max_concurrency")
    def __init__(
        self,
        agent_id: str,
        *,
        broker: str | None = None,
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
        connection: Connection | None = None,
        max_concurrency: int = 8,
        max_waiting_tasks: int = 100_000,
        drain_timeout: float = 10.0,
        will_delay: int = 5,
        session_expiry: int = 24 * 3600,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        retention: float = 7 * 24 * 3600,
        max_peers: int = 10_000,
    ) -> None:
        self.agent_id: str = validate_identifier(agent_id, "agent id")
        if isinstance(capabilities, str):
            raise ValueError(f"capabilities is a list of words: write [{capabilities!r}]")
        if max_concurrency < 1 or max_waiting_tasks < 1:
            raise ValueError("max_concurrency and max_waiting_tasks must be 1 or more")
        self.namespace = namespace
        self._topics = Topics(namespace)
        owner = f"{self._topics.namespace}/{agent_id}"
        default = self._topics.namespace == DEFAULT_NAMESPACE
        self.connection: Connection = connection or BrokerSettings(broker, namespace, credentials, tls).connection(
            agent_id if default else f"{agent_id}@{self._topics.namespace.replace('/', '.')}",
            will_delay=will_delay,
            session_expiry=session_expiry,
        )
        if isinstance(store, TaskStore):
            self.store: TaskStore = store
        else:
            self.store = SqliteStore(default_store_path(self._topics.namespace, agent_id) if store is None else store)
        card = AgentCard(
            name=agent_id,
            namespace=namespace,
            description=description,
            capabilities=list(capabilities),
            version_info=VersionInfo(sdk=__version__),
            skills=[AgentSkill.model_validate(skill) for skill in skills] or None,
            input_modes=list(input_modes) if input_modes is not None else None,
            output_modes=list(output_modes) if output_modes is not None else None,
            features=list(AGENT_FEATURES),
            meta=meta,
        )
        self._router = Router()
        self._drain_timeout = drain_timeout
        self._retention = retention
        self._presence = AgentPresence(self.connection, self._topics, card)
        self._peers = Peers(self.connection, self._topics, agent_id, max_peers)
        self._answers = Answers(self.connection, self._topics, owner, agent_id, self.store)
        self._executor = TaskExecutor(
            self.connection,
            self._topics,
            owner,
            agent_id,
            self.store,
            self._router,
            self._answers,
            max_concurrency,
        )
        self._received = ReceivedTasks(
            self._topics, owner, agent_id, self.store, self._executor, self._answers, max_waiting_tasks
        )
        self._delegations = Delegations(
            self.connection, self._topics, owner, agent_id, self.store, self._peers.is_away, max_payload
        )
        self._inbox = Inbox(self._topics, agent_id, self._received, self._answers, max_payload)
        self._peers.on_back.append(self._delegations.on_peer_back)
        self._tool_client: ToolClient | None = None
        self._servers: list[ToolServer] = []
        self._started = False
        self._starting = asyncio.Lock()
        self._hurried = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._failing: asyncio.Task[None] | None = None
        self._failure: TransportError | None = None

    def __repr__(self) -> str:
        state = "started" if self._started else "stopped"
        return f"<Agent {self.agent_id} at {self.connection.url}, {state}>"

    @property
    def card(self) -> AgentCard:
        """The card that peers see."""
        return self._presence.card.model_copy(deep=True)

    @property
    def running_tasks(self) -> int:
        """How many handlers are at work."""
        return self._executor.running

    # Taking tasks

    @overload
    def on_task(self, handler: Handler, /) -> Handler: ...

    @overload
    def on_task(self, type: str | None = None, /) -> Callable[[Handler], Handler]: ...

    def on_task(self, handler: Any = None, /) -> Any:
        """Give tasks to the decorated function: all of them, or with ``@agent.on_task("research")`` those of a type.

        The handler gets a :class:`TaskContext`, and what it returns is the result: anything with a JSON form. An
        exception fails the task; :class:`TaskRejected` says that this agent does not take it, and
        :class:`TaskFailed` chooses a code. An ``async`` handler must not block: a plain ``def`` runs in a thread, and
        may. After a crash the handler is called again, with ``task.attempt`` one higher and what it saved.

        Raises:
            ValueError: There is a handler for these tasks already.
            TypeError: The function cannot be called with one task.
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
        """Open the store, connect, show card and status, and take up what was left; a second call changes nothing.

        Raises:
            StoreError: The store cannot be opened.
            TransportError: The broker is not there, or refuses; see :meth:`Connection.start`.
        """
        async with self._starting:
            if self._started:
                return
            await self.store.open()
            try:
                await self._connect()
                await self._presence.announce()
                await self._executor.begin()
                await self._delegations.start()
                self._started = True
            except BaseException:
                await self._stop(0)
                raise
            self._keeping = asyncio.create_task(self._sweep(), name="mqtt-agent sweep")

    def _subscriptions(self) -> list[tuple[str, Any, bool]]:
        topics, name = self._topics, self.agent_id
        return [
            (topics.inbox(name), self._inbox.on_task, True),
            (topics.overview_inbox(name), self._inbox.on_task, True),
            (self._delegations.results_topic, self._delegations.incoming.on_result, True),
            (topics.control(name), self._inbox.on_control, False),
        ]

    async def _connect(self) -> None:
        self._hurried.clear()
        self._failure = None
        await self._presence.follow()
        for topic, handler, manual in self._subscriptions():
            await self.connection.subscribe(topic, handler, manual=manual)
        self.connection.on_reconnected.append(self._on_reconnected)
        self.connection.on_failed.append(self._on_failed)
        for server in self._servers:  # before the connection starts: calls may wait in the session
            await server.start()
        await self.connection.start()
        await self._peers.start()

    async def stop(self) -> None:
        """Begin with no new task, wait for those that run, say offline, disconnect; a second call changes nothing.

        What comes meanwhile is stored, and done after the next start.
        """
        async with self._starting:
            if self._started:
                await self._stop(self._drain_timeout)

    async def _stop(self, drain_timeout: float) -> None:
        self._started = False
        self._presence.announced, announced = False, self._presence.announced
        if self._keeping is not None:
            self._keeping.cancel()
        try:
            draining = asyncio.ensure_future(self._executor.drain(drain_timeout))
            hurried = asyncio.ensure_future(self._hurried.wait())
            await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await self._executor.abandon()
            hurried.cancel()
            await draining
            if self._tool_client is not None:
                self._tool_client.starts_on_use = False
                await self._tool_client.stop()
            for server in self._servers:
                await server.stop()
            await self._delegations.stop(self._failure)
            if announced and self.connection.connected:
                await asyncio.wait_for(self._presence.say_offline(), _GOODBYE_WITHIN)
        except (TransportError, StoreError, asyncio.TimeoutError) as error:
            logger.warning("%s could not say that it goes offline: %s", self.agent_id, error)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        # The subscriptions stay with the broker, which keeps what comes until the next start.
        for listeners, listener in (
            (self.connection.on_reconnected, self._on_reconnected),
            (self.connection.on_failed, self._on_failed),
        ):
            if listener in listeners:
                listeners.remove(listener)  # pyright: ignore[reportArgumentType]
        await self._peers.stop()
        await self._presence.unfollow()
        await self._inbox.settle()
        await self.connection.stop()
        for topic, handler, _ in self._subscriptions():
            await self.connection.unsubscribe(topic, handler)
        await self.store.close()

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
        await self._delegations.on_reconnected()
        if not session_present:
            await self._answers.send_unsettled()

    def _on_failed(self, error: TransportError) -> None:
        self._failure = error
        self._failing = asyncio.ensure_future(self._abandon(error))

    async def _abandon(self, error: TransportError) -> None:
        await self._executor.abandon()
        await self._delegations.stop(error)

    async def _sweep(self) -> None:
        while True:
            try:
                while await self.store.sweep(time.time() - self._retention):
                    logger.debug("%s forgot tasks that ended long ago", self.agent_id)
            except StoreError as error:
                logger.warning("old tasks could not be removed: %s", error)
            await asyncio.sleep(_SWEEP_EVERY)

    # Tools

    @property
    def tool_client(self) -> ToolClient:
        """A client for tools, over this agent's connection and under its name.

        It starts at its first use while the agent runs, and stops with the agent.

        Example:
            >>> await agent.tool_client.call("forecast", {"city": "Oslo"})  # doctest: +SKIP
        """
        if self._tool_client is None:
            self._tool_client = ToolClient(self.agent_id, connection=self.connection, namespace=self.namespace)
        self._tool_client.starts_on_use = self._started
        return self._tool_client

    async def serve_tools(self, server: ToolServer) -> None:
        """Serve tools over this agent's connection, from now or from the agent's start, until it stops.

        The server's card names the agent: when the agent is gone, so are its tools. The broker keeps the session of an
        agent that is gone for long, and goes on giving it a share of the calls; so a server that has replicas elsewhere
        is better off with a connection of its own.

        Args:
            server: Not started; what it was told about broker and credentials does not count.

        Raises:
            ValueError: The server is for another namespace.
            RuntimeError: The server has started already.
            TransportError: See :meth:`ToolServer.start`.
        """
        self.add_server(server)
        if self._started:
            await server.start()

    def add_server(self, server: ToolServer) -> None:
        """The same for an agent that has not started yet, where nothing can be awaited."""
        if Topics(server.namespace).namespace != self._topics.namespace:
            raise ValueError(f"server {server.name!r} is for namespace {server.namespace!r}, not {self.namespace!r}")
        server.move_to(self.connection, self.agent_id)
        self._servers.append(server)
