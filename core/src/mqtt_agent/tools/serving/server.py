"""Serving tools."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, overload

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.endpoints.running import Service
from mqtt_agent.errors import TransportError
from mqtt_agent.tools.lists import ToolList
from mqtt_agent.tools.serving.election import Election
from mqtt_agent.tools.serving.execution import Executor, ServedTool
from mqtt_agent.tools.serving.function import ToolFunction
from mqtt_agent.tools.serving.intake import Intake
from mqtt_agent.tools.serving.presence import Presence
from mqtt_agent.tools.serving.replay import ReplayStore
from mqtt_agent.transport import TLS, BrokerSettings, Connection, Credentials
from mqtt_agent.version import __version__
from mqtt_agent.wire import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NAMESPACE,
    FEATURES,
    ToolAnnotations,
    ToolCard,
    Topics,
    VersionInfo,
    validate_identifier,
)

__all__ = ["ToolServer"]

logger: logging.Logger = logging.getLogger(__name__)

_ALL_COMES_WITHIN = 5.0  # seconds
_GOODBYE_WITHIN = 10.0

Handler = TypeVar("Handler", bound=Callable[..., Any])


class ToolServer(Service):
    """Offers Python functions as tools to every client of a broker.

    Start it twice, in one process or on two machines, and the broker spreads the calls over both. At a broker without
    shared subscriptions, one serves and the others stand by to take its place.

    Example:
        >>> server = ToolServer("weather")  # doctest: +SKIP
        >>> @server.tool  # doctest: +SKIP
        ... async def forecast(city: str, days: int = 3) -> dict:
        ...     "Weather forecast for a city."
        >>> server.run()  # doctest: +SKIP

    Args:
        name: The server's name, the same for all its replicas.
        broker: A URL; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        replica: Which replica this is. None takes a fresh name. With a name of your own, a restarted process takes up
            the session of the one before, with the calls that wait in it.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        connection: Use this connection instead of one of its own.
        max_concurrency: How many handlers run at once.
        drain_timeout: Seconds that :meth:`stop` waits for running calls.
        will_delay: Seconds after which a server that is gone without a word is shown offline.
        session_expiry: Seconds that the broker keeps the session of a server that is gone, with the calls in it; None
            for as long as ``will_delay``. Longer is good only for a server without replicas: some brokers go on giving
            a share of the calls to a session that nobody takes up.
        max_payload: Bytes of the largest call that is read.
        replay_entries: How many responses are kept for repeated calls.
        replay_seconds: How long each is kept.

    Raises:
        InvalidIdentifier: ``name``, ``replica`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL, ``connection`` has a will already or is started, or a number is too
            small.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        replica: str | None = None,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        connection: Connection | None = None,
        max_concurrency: int = 64,
        drain_timeout: float = 10.0,
        will_delay: int = 5,
        session_expiry: int | None = None,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        replay_entries: int = 10_000,
        replay_seconds: float = 600.0,
    ) -> None:
        _check(max_concurrency=(max_concurrency, 1), drain_timeout=(drain_timeout, 0), will_delay=(will_delay, 0))
        _check(session_expiry=(0 if session_expiry is None else session_expiry, 0), max_payload=(max_payload, 1))
        self.name: str = validate_identifier(name, "server name")
        self.namespace = namespace
        self.replica: str = validate_identifier(replica or uuid.uuid4().hex[:8], "replica name")
        self.server_id: str = validate_identifier(f"{name}:{self.replica}", "server and replica name together")
        self._topics = Topics(namespace)
        self.connection: Connection = connection or BrokerSettings(broker, namespace, credentials, tls).connection(
            self.server_id,
            will_delay=will_delay,
            session_expiry=will_delay if session_expiry is None else session_expiry,
        )
        self._own_connection = connection is None
        self._max_concurrency = max_concurrency
        self._drain_timeout = drain_timeout
        self._replay = ReplayStore(replay_entries, replay_seconds)
        self._cards: dict[str, ToolCard] = {}
        self._served: dict[str, ServedTool] = {}
        self._generated = replica is None
        self._max_payload = max_payload
        self._use(self.connection, None)
        self._executor: Executor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks = BackgroundTasks(self._on_failure)

    def _use(self, connection: Connection, agent: str | None) -> None:
        self.connection = connection
        self._intake = Intake(connection, self._topics, server=self.server_id, max_payload=self._max_payload)
        self._presence = Presence(
            connection,
            self._topics,
            self.namespace,
            server=self.server_id,
            name=self.name,
            replica=self.replica,
            generated=self._generated,
            cards=self._cards,
            agent=agent,
        )
        self._election = Election(
            connection,
            self._topics,
            self._presence,
            partial(self._intake.barrier, _ALL_COMES_WITHIN),
            server=self.server_id,
            name=self.name,
            max_payload=self._max_payload,
        )

    def move_to(self, connection: Connection, agent: str) -> None:
        """Serve over an agent's connection; see :meth:`Agent.serve_tools`.

        Raises:
            RuntimeError: The server has started already.
        """
        if self._executor is not None:
            raise RuntimeError(f"server {self.server_id} has started already, over a connection of its own")
        self._own_connection = False
        self._use(connection, agent)

    def __repr__(self) -> str:
        state = "started" if self._executor else "stopped"
        return f"<ToolServer {self.server_id} at {self.connection.url}, {len(self._cards)} tools, {state}>"

    @property
    def tools(self) -> list[ToolCard]:
        """The cards of the tools that it offers."""
        return ToolList(card.model_copy(deep=True) for card in self._cards.values())

    @property
    def active_calls(self) -> int:
        """How many calls run or wait here."""
        return 0 if self._executor is None else self._executor.active

    # Offering

    @overload
    def tool(self, handler: Handler, /) -> Handler: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Callable[[Handler], Handler]: ...

    def tool(self, handler: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Offer the decorated function; see :meth:`add_tool` for the options.

        The tool's name is the function's, its description the docstring, and its schema is made from the parameters
        and their annotations. Use ``Annotated[str, Field(description="...")]`` to describe a parameter. An ``async``
        handler must not block: a plain ``def`` runs in a thread, and may.
        """
        if isinstance(handler, str):
            raise TypeError(f"write @server.tool(name={handler!r}): the name is a keyword")

        def offer(function: Callable[..., Any]) -> Callable[..., Any]:
            chosen = options.pop("name", None) or getattr(function, "__name__", type(function).__name__)
            self.add_tool(chosen, function, **options)
            return function

        return offer if handler is None else offer(handler)

    def add_tool(
        self,
        name: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        input_schema: Mapping[str, Any] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        idempotent: bool | None = None,
        destructive: bool | None = None,
        open_world: bool | None = None,
        timeout: float | None = None,
        allowed_callers: Sequence[str] | None = None,
        version: str | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Offer a tool. On a started server it is announced at once.

        Args:
            name: Unique in the namespace.
            handler: ``async def``, or ``def`` which then runs in a thread. A parameter annotated with
                :class:`ToolContext` gets the call's context. What it returns must have a JSON form.
            description: For the person or the model that chooses a tool; the handler's docstring by default.
            input_schema: JSON Schema of the arguments; by default made from the handler's parameters. With a schema,
                the handler gets the arguments as keywords, or all as one dict when it has one parameter without a
                default (apart from the context) whose name is no property of the schema.
            output_schema: JSON Schema of the result.
            title: A name for people.
            read_only: It changes nothing; a lost call is sent again.
            idempotent: Running it twice is the same as once; a lost call is sent again.
            destructive: It may delete or overwrite.
            open_world: It reaches out to things beyond its server.
            timeout: Seconds after which a running handler is canceled; None for no limit.
            allowed_callers: A hint for people; the broker's access rules are what protects a tool.
            version: The version of the tool.
            meta: Anything else to tell on the card.

        Raises:
            InvalidIdentifier: The name cannot be used in topics.
            TypeError: The handler's parameters cannot be made into a schema.
            ValueError: The name is taken, or a schema is not valid.
        """
        validate_identifier(name, "tool name")
        if name in self._cards:
            raise ValueError(f"server {self.name!r} offers a tool {name!r} already")
        function = ToolFunction(name, handler, input_schema, output_schema)
        hints = ToolAnnotations(
            title=title,
            readOnlyHint=read_only,
            idempotentHint=idempotent,
            destructiveHint=destructive,
            openWorldHint=open_world,
        )
        self._cards[name] = ToolCard(
            tool=name,
            server=self.name,
            namespace=self.namespace,
            description=description if description is not None else inspect.getdoc(handler) or "",
            input_schema=function.input_schema,
            output_schema=function.output_schema,
            supports_streaming=function.wants_context,
            allowed_callers=list(allowed_callers) if allowed_callers is not None else None,
            version_info=VersionInfo(sdk=__version__, tool=version),
            title=title,
            annotations=hints if hints != ToolAnnotations() else None,
            features=list(FEATURES),
            meta=meta,
        )
        self._served[name] = ServedTool(function, timeout, partial(self._topics.tool_stream, name))
        if self._presence.announced and self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self._tasks.start(self._offer_late(name)))

    # Life

    async def start(self) -> None:
        """Connect, take calls, and show the cards; a second call changes nothing.

        Raises:
            TransportError: The broker is not there, or refuses; see :meth:`Connection.start`.
        """
        if self._executor is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._executor = Executor(self.connection, self.server_id, self._max_concurrency, self._replay)
        self.connection.on_reconnected.append(self._on_reconnected)
        try:
            await self._presence.follow()
            await self._intake.open(self._executor)
            await asyncio.gather(*(self._take_calls(name) for name in self._cards))
            await self.connection.start()
            if self.connection.shared_subscriptions:
                await self._presence.announce()
            else:
                await self._election.start()
        except BaseException:
            await asyncio.shield(self.stop())  # some cards may be out already
            raise

    async def stop(self) -> None:
        """Take no new calls, finish those that run, say offline, disconnect; a second call changes nothing."""
        executor = self._executor
        if executor is None:
            return
        await self._election.stop()
        announced, self._presence.announced = self._presence.announced, False
        try:
            for name in self._cards:
                await self._intake.leave(name)
            began = asyncio.get_running_loop().time()
            if announced and self.connection.connected:
                await self._intake.barrier(self._drain_timeout)  # the broker may have given us calls before we left
            await executor.drain(self._drain_timeout - (asyncio.get_running_loop().time() - began))
            if announced and self.connection.connected:
                await asyncio.wait_for(self._presence.say_offline(), _GOODBYE_WITHIN)
        except (TransportError, asyncio.TimeoutError) as error:
            logger.warning("%s could not say that it goes offline: %s", self.server_id, error)
        finally:
            await self._leave()

    async def _on_reconnected(self, session_present: bool) -> None:
        if self.connection.shared_subscriptions:
            await self._presence.announce_again(session_present)
        else:
            self._election.wake()

    async def _leave(self) -> None:
        self._executor = None
        self._intake.shut()
        if self._on_reconnected in self.connection.on_reconnected:
            self.connection.on_reconnected.remove(self._on_reconnected)
        await self._intake.unsubscribe()
        await self._presence.unfollow()
        self._tasks.cancel()
        await self.connection.stop(end_session=self._own_connection)

    @property
    def _label(self) -> str:
        return self.server_id

    def _what_it_serves(self) -> str:
        tools = ", ".join(self._cards) or "no tools yet"
        if self._presence.standby:
            tools = f"nothing now and stands by for {self._election.serving}, which serves {tools}"
        return f"{self.server_id} serves {tools} at {self.connection.url}"

    def _hurry(self) -> None:
        if self._executor is not None:
            self._executor.hurry()

    async def _offer_late(self, name: str) -> None:
        await self._take_calls(name)
        await self._presence.announce_tool(name)

    async def _take_calls(self, name: str) -> None:
        await self._intake.take_calls(name, self._served[name])
        await self._presence.follow_tool(name)

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.warning("%s could not offer a tool: %s", self.server_id, error)


def _check(**settings: tuple[float, float]) -> None:
    for name, (value, least) in settings.items():
        if not isinstance(value, (int, float)) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{name} must be a number, {least:g} or more, not {value!r}")
