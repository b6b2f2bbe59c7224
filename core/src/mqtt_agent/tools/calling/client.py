"""The tool client: finds the tools that servers offer on a broker, and calls them."""

from __future__ import annotations

import dataclasses
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from typing_extensions import Never

from mqtt_agent.aio.contexts import NeedsAsyncWith
from mqtt_agent.aio.forks import in_child
from mqtt_agent.aio.lifecycle import Lifecycle
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.deprecation import renamed_arguments, warn_renamed
from mqtt_agent.display import end_quietly
from mqtt_agent.display.lacking import SERVER, sentences
from mqtt_agent.endpoints.dialect import Dialect
from mqtt_agent.endpoints.listing import LISTED_WITHIN, NOT_ALL_CARDS, all_arrived
from mqtt_agent.endpoints.screen import screen_messages
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.errors import ConnectionLost, MQTTAgentError
from mqtt_agent.tools.calling.answering import Answering, OnQuestion
from mqtt_agent.tools.calling.changes import ToolChange
from mqtt_agent.tools.calling.followup import FollowUp
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.listening import Listening
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.calling.partials import PartialResults
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.reading import Reading
from mqtt_agent.tools.calling.recovery import Recovery
from mqtt_agent.tools.calling.requests import Requests
from mqtt_agent.tools.calling.responses import Responses
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.calling.submitter import Submitter, unknown_keywords
from mqtt_agent.tools.lists import ServerList, ToolList
from mqtt_agent.transport import TLS, Bound, BrokerSettings, Connection, Credentials, MessageAudit, MessageIdentity
from mqtt_agent.wire import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NAMESPACE,
    StreamMessage,
    ToolCard,
    Topics,
    validate_identifier,
)

__all__ = ["ToolClient"]


class ToolClient(Reading, NeedsAsyncWith):
    """Finds and calls the tools that servers offer on a broker.

    Example:
        >>> async with ToolClient("agent-a") as client:  # doctest: +SKIP
        ...     print(await client.call("forecast", {"city": "Oslo"}))

    Args:
        agent_id: The caller's id. Tool servers and their handlers see this id. None makes a new id.
        broker: A URL, or several for failover; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        bound: Whether the endpoint speaks sender-bound topics: ``"prefer"``, ``"require"`` or ``"off"``; see
            :class:`BrokerSettings`.
        identity: Signs the endpoint's messages, and proves who has signed those of others; see
            :class:`mqtt_agent.identity.Identity`.
        audit: Keeps a line about each message that the endpoint sends and receives; see
            :class:`mqtt_agent.identity.Audit`.
        client_id: The MQTT client id, for a broker that binds client ids to logins. None makes a new id, which begins
            with ``agent_id``. Each process needs a client id of its own: with the id of another process, it takes that
            process's connection away.
        connection: A connection to share. None makes a connection that only this client uses.
        session_expiry: Seconds that the broker keeps responses for a client that lost its connection.
        max_pending: How many calls may be under way at once.
        max_payload: The size of the largest response that the client reads, in bytes.
        max_cards: How many tool cards and server cards the client keeps.

    Attributes:
        agent_id: The caller's id.
        connection: The client's connection to the broker.
        starts_on_use: Whether the first use of the client starts the client. If false, a use before :meth:`start`
            raises :class:`ConnectionLost`.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is not a broker URL.
    """

    @renamed_arguments(name="agent_id")
    def __init__(
        self,
        agent_id: str | None = None,
        *,
        broker: str | Sequence[str] | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        bound: Bound = "prefer",
        identity: MessageIdentity | None = None,
        audit: MessageAudit | None = None,
        client_id: str | None = None,
        connection: Connection | None = None,
        session_expiry: int = 60,
        max_pending: int = 10_000,
        max_payload: int = 16 * DEFAULT_MAX_PAYLOAD,
        max_cards: int = 100_000,
    ) -> None:
        self._named = agent_id is not None
        unique = uuid.uuid4().hex[:8]
        self.agent_id: str = validate_identifier(agent_id or f"client-{unique}", "agent id")
        topics = Topics(namespace)
        settings = BrokerSettings(broker, namespace, credentials, tls, bound, identity, audit)
        if client_id is not None and connection is not None:
            raise ValueError("client_id is for a connection of the client's own: give it to the Connection instead")
        self.connection: Connection = connection or settings.connection(
            client_id or f"{self.agent_id}~{unique}", session_expiry=session_expiry
        )
        screen_messages(self.connection, topics)
        self._client_id = client_id
        self._bound: Bound = bound
        self.starts_on_use: bool = False
        self._own_connection = connection is None
        self._scope = Scope(self.agent_id, topics, self.connection, max_payload, Dialect(bound, self.agent_id))
        self._max_cards = max_cards
        self._max_pending = max_pending
        self._lifecycle = self._make_lifecycle()
        self._make_parts()
        in_child(self._after_fork)

    def _make_lifecycle(self) -> Lifecycle:
        return Lifecycle(lambda: f"tool client {self.agent_id}")

    def _make_parts(self) -> None:
        """Make everything that belongs to one life of the client; see :mod:`mqtt_agent.aio.lifecycle`."""
        self._scope = dataclasses.replace(self._scope, dialect=Dialect(self._bound, self.agent_id))
        self._catalog = LiveCatalog(self._scope, self._max_cards)
        self._queries = queries = Queries(self._scope, self._catalog)
        self._calls = OutgoingCalls(self._scope, self._catalog, queries, self._max_pending)
        self._responses = Responses(self._scope, self._catalog, queries, self._calls)
        self._requests = Requests(self._catalog, queries)
        self._listening = Listening(self._scope, self._catalog, queries)
        self._catalog.on_server_gone.append(queries.on_server_gone)
        self._recovery = Recovery(self._catalog, self._calls, queries)
        self._follow_up = FollowUp(self._calls, self._recovery)
        self._catalog.on_server_gone.append(self._recovery.on_server_gone)
        self._catalog.on_server_restarted.append(self._recovery.on_server_restarted)
        self._calls.on_expired.append(self._recovery.on_expired)
        self._partials = PartialResults(self._scope, self._catalog)
        self._calls.follow = self._partials.follow
        self._answering = Answering(self._scope)
        self._submitter = Submitter(
            self._scope, self._catalog, self._calls, self._partials, self._answering, self._recovery.resume
        )
        self._leased = False
        """Whether this client counts as a user of the connection."""

    def _after_fork(self) -> None:
        if self.connection.inherited is not None:
            for call in self._calls.under_way():
                for handle in call.handles:
                    handle.leave_to_parent(self.connection.inherited)
            self._lifecycle = self._make_lifecycle()
        elif self._own_connection:
            unique = uuid.uuid4().hex[:8]
            if not self._named:
                self.agent_id = f"client-{unique}"
            if not self._client_id:
                self.connection.rename(f"{self.agent_id}~{unique}")
            self._scope = dataclasses.replace(self._scope, agent_id=self.agent_id)
            self._make_parts()

    @property
    def name(self) -> str:
        """The old name of ``agent_id``."""
        warn_renamed("ToolClient.name", "ToolClient.agent_id")
        return self.agent_id

    def __repr__(self) -> str:
        state = "started" if self._lifecycle.started else "stopped"
        return f"<ToolClient {self.agent_id} at {self.connection.url}, {state}>"

    # Start and stop

    async def start(self) -> None:
        """Connect. A second call changes nothing.

        Raises:
            TransportError: The broker does not answer, or refuses the connection; see :meth:`Connection.start`.
            RuntimeError: The client runs on another event loop.
        """
        self.connection.check_process()
        await self._lifecycle.start(self._begin, self._end)

    async def _begin(self) -> None:
        self._make_parts()
        self.connection.on_failed.append(self._calls.on_failed)
        self.connection.on_refused.append(self._calls.on_failed)
        self.connection.on_reconnected.append(self._on_reconnected)
        scope = self._scope
        if scope.dialect.plain:
            await self.connection.subscribe(scope.inbox, self._responses.on_response)
        if scope.dialect.bound:
            await self.connection.subscribe(
                scope.bound_inbox, self._responses.on_bound_response, on_refused=scope.dialect.on_refused
            )
        await self.connection.start()
        self._leased = True
        await self._catalog.start()

    async def stop(self) -> None:
        """Cancel the calls that are under way, and disconnect. A second call changes nothing.

        Raises:
            RuntimeError: The client runs on another event loop.
        """
        await self._lifecycle.stop(self._end)

    async def _end(self) -> None:
        self._recovery.stop()
        self._follow_up.stop()
        self._partials.stop()
        self._answering.stop()
        await self._calls.cancel_all("the client was stopped")
        self.connection.on_failed.remove(self._calls.on_failed)
        self.connection.on_refused.remove(self._calls.on_failed)
        self.connection.on_reconnected.remove(self._on_reconnected)
        try:
            await self._listening.stop()
            await self._catalog.stop()
            await self.connection.unsubscribe(self._scope.inbox, self._responses.on_response)
            await self.connection.unsubscribe(self._scope.bound_inbox, self._responses.on_bound_response)
        finally:
            if self._leased:
                self._leased = False
                await self.connection.stop(end_session=self._own_connection)

    async def __aenter__(self) -> ToolClient:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        end_quietly(error, MQTTAgentError)
        await self.stop()

    async def _on_reconnected(self, session_present: bool) -> None:
        self._catalog.on_reconnected(session_present)
        self._recovery.on_reconnected(session_present)

    async def _ensure_started(self) -> None:
        if self.starts_on_use and not self._lifecycle.started:
            await self.start()
        self._check_started()
        self._lifecycle.check_loop()

    def _check_started(self) -> None:
        if not self._lifecycle.started:
            self.connection.check_process()
            raise ConnectionLost(f"{self!r} is not started: use 'async with', or await start()")

    # Finding tools

    async def list_tools(
        self, server: str | None = None, online_only: bool = True, *, wait_lost: bool = False
    ) -> ToolList:
        """The tools of the namespace, sorted by name.

        The client keeps the list up to date, so a second listing makes no round trip to the broker.

        Args:
            server: Only the tools of this server: a server's name, which its replicas share, or the id of one replica.
            online_only: Only the tools that a server serves now.
            wait_lost: Whether to wait for a server that was lost, until 5 s after its loss: it may be back soon.

        Returns:
            The tools' cards, each with the tool's present status. Until a card changes, further listings return the
            same card objects. So copy a card before you change it. The list's ``incomplete`` says what the list lacks:
            the tools of servers that were lost, or the cards that the broker does not let this client see. Anybody who
            may write cards can say that a server was lost. So servers that this client has seen at work come first.

        Raises:
            ConnectionLost: The connection is away, and did not come back within 30 s.
        """
        incomplete, catalog = await self._all_cards(), self._catalog
        if wait_lost:
            await catalog.returned(lambda: catalog.missing_tools(server, online_only).values())
        missing = {name: each.unavailable or "" for name, each in catalog.missing_tools(server, online_only).items()}
        return ToolList(await catalog.listing(server, online_only), [*incomplete, *sentences(SERVER, missing)], missing)

    async def _all_cards(self, timeout: float | None = LISTED_WITHIN) -> list[str]:
        await self._ensure_started()
        return [] if await all_arrived(self._catalog.complete, self.connection, timeout) else [NOT_ALL_CARDS]

    async def list_servers(self, online_only: bool = True) -> ServerList:
        """The tool servers of the namespace, one card for each replica, sorted by server id.

        Args:
            online_only: Only the servers that are online now.

        Raises:
            ConnectionLost: See :meth:`list_tools`.
        """
        incomplete, missing = await self._all_cards(), dict[str, str]()
        if online_only:
            lost = {name: each for name, each in self._catalog.missing().items() if each.status != "online"}
            missing = {name: each.unavailable or "" for name, each in lost.items()}
        servers = in_steps(self._catalog.servers())
        shown = [c.model_copy() async for c in servers if c.status == "online" or not online_only]
        return ServerList(shown, [*incomplete, *sentences(SERVER, missing)], missing)

    async def get_tool(self, tool: str, timeout: float = 2.0) -> ToolCard | None:
        """The card of one tool. The client looks it up by its exact topic, and keeps it up to date.

        Args:
            tool: The tool's name.
            timeout: Seconds to wait for the card.

        Returns:
            The card, or None when there is no such tool.
        """
        await self._ensure_started()
        validate_identifier(tool, "tool name")
        card = await self._catalog.get(tool, timeout)
        return None if card is None else self._catalog.as_it_is(card)

    def watch_tools(self) -> AsyncIterator[ToolChange]:
        """Iterate over the changes from now on: a tool comes online, goes offline, or changes its card or its servers.

        Example:
            >>> async for change in client.watch_tools():  # doctest: +SKIP
            ...     print(change.kind, change.tool, change.servers)
        """
        self._check_started()
        return self._catalog.watch()

    # Calling

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = CALL_TIMEOUT,
        on_partial: Callable[[Any], Awaitable[None] | None] | None = None,
        wait_online: bool = False,
        retry: bool | None = None,
        call_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        on_log: Callable[[StreamMessage], None] | None = None,
        on_question: OnQuestion | None = None,
        **unknown: Never,
    ) -> Any:
        """Call a tool and wait for its result.

        When the asyncio task that waits here is canceled, the call is canceled at its server too.

        Args:
            tool: The tool's name.
            arguments: The tool's arguments.
            timeout: Seconds until the call fails with :class:`CallTimeout`; None means no limit. After a timeout, the
                call may still run: a new call with the same ``call_id`` attaches to the running call.
            on_partial: Called with each partial result that the tool streams. An ``async`` function is awaited.
            wait_online: Whether to wait for a server, within the timeout, when no server offers the tool.
            retry: Whether to send the call again when the replica that had the call is lost, so that the call may run
                twice. None means yes for tools that are read-only or idempotent.
            call_id: The call's id; None makes a new id. Give the id of an earlier call, with the same tool and
                arguments, to attach to that call. Each caller has its own timeout, and the call is canceled when the
                last caller is canceled.
            meta: Any other JSON data for the tool, which is no argument; the handler finds it in ``ToolContext.meta``.
            log_level: The least level of the log messages that ``on_log`` gets, such as ``debug`` or ``warning``. None
                means ``info``.
            on_log: Called with each log message of the tool, a :class:`mqtt_agent.wire.StreamMessage` with ``level``,
                ``logger`` and ``data``. Without it, the tool sends no log messages.
            on_question: Answers what the tool asks in the middle of the call. It gets a
                :class:`mqtt_agent.tools.CallQuestion`, with ``prompt`` and ``schema``, and returns the answer; None
                means that the person declines. An ``async`` function is awaited. When it raises, the tool is told
                that no choice was made. Without ``on_question``, a tool that asks gets an error.
            unknown: Any other keyword raises a TypeError. The arguments of the tool are the items of ``arguments``.

        Returns:
            The result, any JSON value.

        Raises:
            CallError: The call ended without a result; see :meth:`CallHandle.result`.
            InvalidArguments: The arguments do not fit, or ``call_id`` belongs to another call.
            InvalidIdentifier, ValueError: No packet can hold ``call_id``, or ``timeout`` is NaN.
            WireError: JSON cannot carry the arguments. The error names the place. Nothing was sent.
            TransportError: The broker refused the call, or the connection is lost for good.
            TypeError: An unknown keyword was given.
        """
        if unknown:
            raise unknown_keywords(self.call, tool, unknown)
        streams = on_partial is not None
        await self._ensure_started()
        handle = await self._submitter.submit(
            tool, arguments, timeout, streams, wait_online, retry, call_id, False, meta, log_level, on_log, on_question
        )
        try:
            if on_partial is not None:
                async for partial in handle.partials():
                    awaitable = on_partial(partial)
                    if awaitable is not None:
                        await awaitable
            return await handle.result()
        finally:
            if not handle.done:
                self._calls.cancel(handle, "the caller gave up")

    async def submit(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        wait_online: bool = False,
        retry: bool | None = None,
        call_id: str | None = None,
        resume: bool = False,
        meta: Mapping[str, Any] | None = None,
        log_level: str | None = None,
        on_log: Callable[[StreamMessage], None] | None = None,
        on_question: OnQuestion | None = None,
        **unknown: Never,
    ) -> CallHandle:
        """Start a call and return a handle on it, without waiting for the result. See :meth:`call` for the arguments.

        Args:
            tool: The tool's name.
            arguments: The tool's arguments.
            timeout: See :meth:`call`.
            wait_online: See :meth:`call`.
            retry: See :meth:`call`.
            call_id: See :meth:`call`.
            resume: Whether an earlier process with the same ``agent_id`` may have made this call. Then the servers of
                the tool are asked for the call before it is sent. A server that has the call, or still keeps its
                answer, does not run the call again.
            unknown: See :meth:`call`.

        Raises:
            ToolUnavailable: No server offers the tool now.
            TransportError, WireError: See :meth:`call`.
        """
        if unknown:
            raise unknown_keywords(self.submit, tool, unknown)
        await self._ensure_started()
        return await self._submitter.submit(
            tool, arguments, timeout, None, wait_online, retry, call_id, resume, meta, log_level, on_log, on_question
        )
