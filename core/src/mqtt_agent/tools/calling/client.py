"""Calling tools."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.deprecation import renamed_arguments, warn_renamed
from mqtt_agent.endpoints.timeouts import CALL_TIMEOUT
from mqtt_agent.errors import CallCanceled, ConnectionLost, ToolUnavailable, WireError
from mqtt_agent.tools.calling.changes import ToolChange, ToolChanges
from mqtt_agent.tools.calling.directory import Directory
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.lists import ServerList, ToolList
from mqtt_agent.tools.tracing import traced_call
from mqtt_agent.transport import TLS, BrokerSettings, Connection, Credentials, InboundMessage
from mqtt_agent.wire import (
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_NAMESPACE,
    Call,
    ServerCard,
    StreamMessage,
    ToolCard,
    Topics,
    decode,
    is_identifier,
    new_call_id,
    to_json,
    validate_identifier,
)

__all__ = ["ToolClient"]

logger: logging.Logger = logging.getLogger(__name__)

_RESEND_AFTER = 0.1


class ToolClient:
    """Finds and calls the tools that servers offer on a broker.

    Example:
        >>> async with ToolClient("agent-a") as client:  # doctest: +SKIP
        ...     print(await client.call("forecast", {"city": "Oslo"}))

    Args:
        agent_id: The caller's name, which the tools are told; None makes a fresh one.
        broker: A URL; see :class:`~mqtt_agent.transport.Connection`.
        namespace: The prefix of all topics.
        credentials: A :class:`Password` or a :class:`Token`.
        tls: An ``ssl.SSLContext`` or a :class:`TLS`.
        connection: Use this connection instead of one of its own.
        session_expiry: Seconds that the broker keeps answers for a client whose network is away.
        max_pending: How many calls may be under way at once.
        max_payload: Bytes of the largest answer that is read.
        max_cards: How many tool and server cards are kept.

    Raises:
        InvalidIdentifier: ``agent_id`` or ``namespace`` cannot be used in topics.
        ValueError: ``broker`` is no broker URL.
    """

    @renamed_arguments(name="agent_id")
    def __init__(
        self,
        agent_id: str | None = None,
        *,
        broker: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | TLS | None = None,
        connection: Connection | None = None,
        session_expiry: int = 60,
        max_pending: int = 10_000,
        max_payload: int = 16 * DEFAULT_MAX_PAYLOAD,
        max_cards: int = 100_000,
    ) -> None:
        unique = uuid.uuid4().hex[:8]
        self.agent_id: str = validate_identifier(agent_id or f"client-{unique}", "agent id")
        self._topics = Topics(namespace)
        settings = BrokerSettings(broker, namespace, credentials, tls)
        self.connection: Connection = connection or settings.connection(
            f"{self.agent_id}~{unique}", session_expiry=session_expiry
        )
        self._own_connection = connection is None
        inbox = self._topics.client_responses(self.agent_id)
        self._directory = Directory(self.connection, self._topics, inbox, max_cards)
        self._calls = OutgoingCalls(
            self.connection, self._topics, self.agent_id, self._directory, max_pending, max_payload
        )
        self._directory.on_server_gone.append(self._calls.on_server_gone)
        self._directory.on_server_restarted.append(self._calls.on_server_restarted)
        self._max_payload = max_payload
        self._faults = FaultLog(logger)
        self.starts_on_use = False
        """Whether the first use starts it."""
        self._started = False
        self._starting = asyncio.Lock()

    @property
    def name(self) -> str:
        """The old name of ``agent_id``."""
        warn_renamed("ToolClient.name", "ToolClient.agent_id")
        return self.agent_id

    def __repr__(self) -> str:
        state = "started" if self._started else "stopped"
        return f"<ToolClient {self.agent_id} at {self.connection.url}, {state}>"

    # Life

    async def start(self) -> None:
        """Connect, and begin to follow the tool list; a second call changes nothing.

        Raises:
            TransportError: The broker is not there, or refuses; see :meth:`Connection.start`.
        """
        async with self._starting:
            if self._started:
                return
            await self.connection.subscribe(self._calls.inbox, self._calls.on_response)
            try:
                await self.connection.start()
            except BaseException:
                await self.connection.unsubscribe(self._calls.inbox, self._calls.on_response)
                raise
            self.connection.on_failed.append(self._calls.on_failed)
            self.connection.on_reconnected.append(self._on_reconnected)
            self._started = True
            try:
                await self._directory.start()
            except BaseException:
                await self._stop()
                raise

    async def stop(self) -> None:
        """Cancel the calls that are under way, and disconnect; a second call changes nothing."""
        async with self._starting:
            if self._started:
                await self._stop()

    async def _stop(self) -> None:
        self._started = False
        self._calls.cancel_all("the client was closed")
        if self.connection.connected:
            # Cancels go out before the goodbye: what is confirmed last was sent last.
            await self._directory.barrier()
        self.connection.on_failed.remove(self._calls.on_failed)
        self.connection.on_reconnected.remove(self._on_reconnected)
        await self._directory.stop()
        await self.connection.unsubscribe(self._calls.inbox, self._calls.on_response)
        await self.connection.stop(end_session=self._own_connection)

    async def __aenter__(self) -> ToolClient:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # Finding tools

    async def list_tools(self, server: str | None = None, online_only: bool = True) -> list[ToolCard]:
        """The tools of the namespace, by name. The list is kept up to date: asking again makes no round trip.

        Args:
            server: Only those that this server offers: the name that its replicas share, or the id of one replica.
            online_only: Leave out what nobody serves now.

        Returns:
            The cards, with the status that is true now. Until something changes, the same cards are given again: copy
            one before you change it.
        """
        await self._be_started()
        await self._directory.complete()
        return ToolList(self._directory.listing(server, online_only))

    async def list_servers(self, online_only: bool = True) -> list[ServerCard]:
        """The running tool servers, one card for each replica, by id."""
        await self._be_started()
        await self._directory.complete()
        servers = self._directory.servers()
        return ServerList(c.model_copy() for c in servers if c.status == "online" or not online_only)

    async def get_tool(self, tool: str, timeout: float = 2.0) -> ToolCard | None:
        """The card of one tool, looked up by its exact topic when the list does not have it.

        Args:
            tool: The tool's name.
            timeout: Seconds to wait for the card.

        Returns:
            The card, or None when there is no such tool.
        """
        await self._be_started()
        validate_identifier(tool, "tool name")
        card = self._directory.tool(tool) or await self._directory.look_up(tool, timeout)
        return None if card is None else self._directory.as_it_is(card)

    def watch_tools(self) -> AsyncIterator[ToolChange]:
        """Tell what changes from now on: a tool that comes online, goes offline, or gets another card or server.

        Example:
            >>> async for change in client.watch_tools():  # doctest: +SKIP
            ...     print(change.kind, change.tool, change.servers)
        """
        self._check_started()
        return self._directory.watch()

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
    ) -> Any:
        """Call a tool and wait for its result. Canceling the task that waits cancels the call at the server.

        Args:
            tool: The tool's name.
            arguments: What it takes.
            timeout: Seconds until :class:`CallTimeout`; None waits for ever. The call may still run then: submit it
                again with its ``call_id`` to attach to it.
            on_partial: Called, or awaited, with each thing that the tool streams before its result.
            wait_online: Wait for a server, within the timeout, when there is none.
            retry: Send the call again when the replica that had it is gone. None does so for tools that say that
                they are read-only or idempotent.
            call_id: An id of your own, to attach to a call made before.

        Returns:
            The result, any JSON value.

        Raises:
            CallError: The call ended without a result; see :meth:`CallHandle.result`.
            WireError: The arguments have no JSON form.
            TransportError: The broker refused the call, or is gone for good.
        """
        handle = await self._submit(tool, arguments, timeout, on_partial is not None, wait_online, retry, call_id)
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
    ) -> CallHandle:
        """Start a call and return at once with a handle on it. See :meth:`call` for the arguments.

        Raises:
            ToolUnavailable: Nobody serves the tool now.
            TransportError, WireError: See :meth:`call`.
        """
        return await self._submit(tool, arguments, timeout, None, wait_online, retry, call_id)

    @traced_call
    async def _submit(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None,
        timeout: float | None,
        stream: bool | None,
        wait_online: bool,
        retry: bool | None,
        call_id: str | None,
    ) -> CallHandle:
        await self._be_started()
        validate_identifier(tool, "tool name")
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        if not self._directory.is_online(tool):
            await self._find(tool, wait_online, deadline)
        elif not self._directory.is_settled(tool):
            await self._within(deadline, self._directory.settled(tool), tool)
        # Its server may have been seen before its card.
        card = self._directory.tool(tool) or await self._directory.look_up(tool, 2.0)
        call_id = call_id or new_call_id()
        known = self._calls.get(call_id)
        if known is not None:
            return known
        if stream is None:
            stream = card is not None and card.supports_streaming
        call = self._make_call(call_id, arguments, stream)
        if retry is None:
            retry = card is not None and (card.read_only or card.idempotent)
        patient = math.inf if wait_online else 0.0
        handle = self._calls.open(tool, call, timeout, deadline, retry, patient)
        try:
            if call.stream:
                await self._open_stream(handle)
            self._calls.send(handle)
        except BaseException as error:
            handle.fail(CallCanceled(f"{tool}: the call was not sent: {error}", tool=tool, call_id=call_id))
            raise
        return handle

    def _make_call(self, call_id: str, arguments: Mapping[str, Any] | None, stream: bool) -> Call:
        if arguments is not None and not isinstance(arguments, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WireError(f"arguments must be a mapping of names to values, not {type(arguments).__name__}")
        try:
            return Call(
                call_id=call_id,
                arguments=to_json(dict(arguments or {})),
                client=self.agent_id,
                response_topic=self._calls.inbox,
                stream=stream and is_identifier(call_id),
            )
        except ValidationError as error:
            raise WireError(f"the call cannot be made: {error.errors()[0]['msg']}") from error

    async def _find(self, tool: str, wait_online: bool, deadline: float | None) -> None:
        """Wait for the first look at the cards, then, if wanted, for a server; raise when there is none."""
        changes = self._directory.watch()
        try:
            seen_all = await self._directory.complete()
            await self._directory.taken_over(tool)
            if self._directory.is_online(tool):
                return
            card = await self._directory.look_up(tool, 2.0)
            if self._directory.is_online(tool) or (card is not None and not seen_all):
                return
            if not wait_online:
                why = "every server that offers it is offline" if card is not None else "there is no such tool"
                raise ToolUnavailable(f"{tool}: {why} in namespace {self._topics.namespace!r}", tool=tool)
            await self._within(deadline, self._wait_online(tool, changes), tool)
        finally:
            changes.close()

    async def _within(self, deadline: float | None, waiting: Awaitable[None], tool: str) -> None:
        remaining = None if deadline is None else deadline - asyncio.get_running_loop().time()
        try:
            await asyncio.wait_for(waiting, remaining)
        except asyncio.TimeoutError:
            raise ToolUnavailable(f"{tool}: no server came online in time", tool=tool) from None

    async def _wait_online(self, tool: str, changes: ToolChanges) -> None:
        if self._directory.is_online(tool):
            return
        async for _ in changes:
            if self._directory.is_online(tool):
                return

    async def _open_stream(self, handle: CallHandle) -> None:
        topic = self._topics.tool_stream(handle.tool, handle.call_id)

        def on_partial(message: InboundMessage) -> None:
            try:
                partial = decode(StreamMessage, message.payload, self._max_payload)
            except WireError as error:
                self._faults.tell(message.topic, "an unreadable partial", error)
                return
            if partial.call_id == handle.call_id:
                handle.take_partial(partial, message.qos)
            else:
                self._faults.tell(message.topic, "a partial of another call", repr(partial.call_id))

        handle.open_stream()
        handle.when_over(lambda: self._calls.spawn(self.connection.unsubscribe(topic, on_partial)))
        await self.connection.subscribe(topic, on_partial)

    async def _on_reconnected(self, session_present: bool) -> None:
        self._directory.on_reconnected(session_present)
        self._calls.on_reconnected(session_present)

    async def _be_started(self) -> None:
        if self.starts_on_use and not self._started:
            await self.start()
        self._check_started()

    def _check_started(self) -> None:
        if not self._started:
            raise ConnectionLost(f"{self!r} is not started: use 'async with', or await start()")
