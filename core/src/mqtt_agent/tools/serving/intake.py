"""What a tool server takes in: calls, cancels and queries, from peers who may send anything."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pydantic_core

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.echo import Echo
from mqtt_agent.errors import WireError
from mqtt_agent.tools.serving.execution import Executor, ServedTool
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.wire import Call, CallFault, Cancel, Query, Topics, decode, encode, is_identifier, new_call_id

__all__ = ["Intake"]

logger: logging.Logger = logging.getLogger(__name__)


class Intake:
    """Subscribes for one tool server, and gives what is in order to its executor.

    Args:
        connection: Where it comes from.
        topics: The namespace.
        server: The id of this replica.
        max_payload: Bytes of the largest message that is read.
    """

    def __init__(self, connection: Connection, topics: Topics, *, server: str, max_payload: int) -> None:
        self._connection = connection
        self._topics = topics
        self._server = server
        self._max_payload = max_payload
        self._executor: Executor | None = None
        self._subscribed: list[tuple[str, Callable[[InboundMessage], None]]] = []
        self._echo = Echo(connection, topics.server_query(server), self._query_to_itself)
        self._faults = FaultLog(logger)

    async def open(self, executor: Executor) -> None:
        """Take queries, and give everything to this executor."""
        self._executor = executor
        await self._subscribe(self._echo.topic, self._on_query)

    async def take_calls(self, name: str, tool: ServedTool) -> None:
        """Take the calls of a tool, and the cancels of those."""
        handler = partial(self._on_call, tool)
        await self._subscribe(self._topics.tool_call_shared(name), handler, calls=True)
        await self._subscribe(self._topics.tool_cancel(name), self._on_cancel)

    async def leave(self, name: str) -> None:
        """Ask the broker for no more calls of a tool; those that it has sent or queued are still taken."""
        await self._connection.leave(self._topics.tool_call_shared(name))

    def shut(self) -> None:
        """Take nothing more: what comes is left to the session, or to another replica."""
        self._executor = None

    async def unsubscribe(self) -> None:
        """Have nothing more sent."""
        while self._subscribed:
            await self._connection.unsubscribe(*self._subscribed.pop(0))

    async def barrier(self, timeout: float) -> bool:
        """Wait until everything has come that the broker had for us; False when that cannot be told.

        Raises:
            TransportError: The connection ended, or the broker does not let us send the query.
        """
        came = await self._echo.comes(timeout)
        if not came:
            logger.debug("%s cannot tell when all has come that the broker had for it", self._server)
        return came

    def _query_to_itself(self) -> bytes:
        return encode(Query(query_id=new_call_id(), call_ids=[], client=self._server))

    async def _subscribe(
        self, topic_filter: str, handler: Callable[[InboundMessage], None], *, calls: bool = False
    ) -> None:
        self._subscribed.append((topic_filter, handler))
        await self._connection.subscribe(topic_filter, handler, manual=calls, exclusive=self._server if calls else None)

    # What comes in

    def _on_call(self, tool: ServedTool, message: InboundMessage) -> None:
        executor = self._executor
        if executor is None:
            return  # unacknowledged: the session, or another replica, still has it
        if message.retain:
            self._faults.tell(message.topic, "a retained call was ignored", "calls are never retained")
            message.acknowledge()
            return
        try:
            call = decode(Call, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable call", error)
            call_id, reply_to = _address(message, self._max_payload)
            self._reject(executor, message, call_id, reply_to, CallFault(type="invalid_arguments", message=str(error)))
            return
        if not is_identifier(call.client):
            self._faults.tell(message.topic, "a call from an impossible client name", repr(call.client))
            error = CallFault(type="invalid_arguments", message="the client name cannot be used in topics")
            self._reject(executor, message, call.call_id, message.response_topic or call.response_topic, error)
            return
        reply_to = self._topics.client_responses(call.client)
        asked_for = message.response_topic or call.response_topic
        if asked_for is not None and asked_for != reply_to:
            self._faults.tell(message.topic, "a call with a foreign Response Topic", repr(asked_for))
            error = CallFault(type="unauthorized", message=f"the Response Topic must be {reply_to}")
            executor.reject(call.call_id, reply_to, message, error)
            return
        executor.submit(tool, call, reply_to, message)

    def _on_cancel(self, message: InboundMessage) -> None:
        try:
            cancel = decode(Cancel, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable cancel", error)
            return
        if self._executor is not None and not message.retain:
            self._executor.cancel((cancel.client, cancel.call_id))

    def _on_query(self, message: InboundMessage) -> None:
        if self._echo.heard(message):
            return
        try:
            query = decode(Query, message.payload, self._max_payload)
        except WireError as error:
            self._faults.tell(message.topic, "an unreadable query", error)
            return
        if self._executor is None or message.retain:
            return
        if not is_identifier(query.client):
            self._faults.tell(message.topic, "a query from an impossible client name", repr(query.client))
        else:
            reply_to = self._topics.client_responses(query.client)
            known = self._executor.known(query.client, query.call_ids, reply_to)
            self._executor.answer(query.query_id, reply_to, {"known": known})

    def _reject(
        self, executor: Executor, message: InboundMessage, call_id: str, reply_to: str | None, error: CallFault
    ) -> None:
        if reply_to is None or self._topics.client_of_responses(reply_to) is None:
            message.acknowledge()
        else:
            executor.reject(call_id, reply_to, message, error)


def _address(message: InboundMessage, max_payload: int) -> tuple[str, str | None]:
    """The call id, and where an answer goes, of something that is no call; from its properties, then its payload."""
    envelope: Any = None
    if len(message.payload) <= max_payload:
        with contextlib.suppress(ValueError, RecursionError):
            envelope = pydantic_core.from_json(message.payload)
    fields: dict[str, Any] = envelope if isinstance(envelope, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    call_id, reply_to = fields.get("call_id"), message.response_topic or fields.get("response_topic")
    if not isinstance(call_id, str) or not call_id:
        call_id = (message.correlation_data or b"").decode(errors="replace")
    return call_id, reply_to if isinstance(reply_to, str) else None
