"""Takes the calls, cancels and queries that arrive at a tool server. Peers may send anything, so all is checked."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pydantic_core
from pydantic import ValidationError

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.seen import Seen
from mqtt_agent.endpoints.dialect import BoundMarker
from mqtt_agent.endpoints.markers import Marker
from mqtt_agent.errors import ConnectionLost, TopicNotAuthorized, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.execution import ServedTool
from mqtt_agent.tools.serving.executor import Executor
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Call, CallFault, Cancel, Query, decode, encode, is_identifier, new_call_id
from mqtt_agent.wire.calls import MAX_QUERIED

__all__ = ["Intake"]

logger: logging.Logger = logger_of(__name__)

_QUERIES_REMEMBERED = 10_000
_SEEN_WITHIN = 5.0  # seconds
_FROM_SESSION_WITHIN = 5.0  # seconds


class Intake:
    """Subscribes for one tool server, and passes on the valid messages.

    Args:
        scope: What all parts of the server share.
        on_stranger: Called when somebody asks whether this server is there who proves nothing, where proof is needed.
    """

    def __init__(self, scope: Scope, on_stranger: Callable[[], None]) -> None:
        self._on_stranger = on_stranger
        self._connection = scope.connection
        self._topics = topics = scope.topics
        self._dialect = scope.dialect
        self._server_id = scope.server_id
        self._max_payload = scope.max_payload
        self._executor: Executor | None = None
        self._subscribed: list[tuple[str, Handler]] = []
        self._served: dict[str, ServedTool] = {}
        """The tools whose calls are taken. Calls for this replica alone arrive as queries."""
        self._of_tool: dict[str, list[tuple[str, Handler]]] = {}
        self._calls_of: dict[str, list[str]] = {}
        """The shared topic filters for the calls of each tool."""
        own = topics.bound.query(self._server_id, self._server_id)
        self._marker = BoundMarker(
            Marker(scope.connection, own, self._make_marker, topics.bound.query(self._server_id)),
            Marker(scope.connection, topics.server_query(self._server_id), self._make_marker),
            scope.dialect,
        )
        self._queries = Seen(_QUERIES_REMEMBERED)
        self._faults = FaultLog(logger)
        self._began = time.time()

    async def open(self, executor: Executor) -> None:
        """Take queries from now on, and pass all messages to ``executor``."""
        self._executor = executor
        if self._dialect.plain:
            await self._subscribe(self._topics.server_query(self._server_id), self._on_query)
        if self._dialect.bound:
            await self._subscribe(self._topics.bound.query(self._server_id), self._on_bound_query, bound=True)

    async def prepare(self, name: str, tool: ServedTool) -> None:
        """Get ready for the calls of a tool, and for the cancels of these calls. :meth:`admit` takes the calls."""
        if name in self._of_tool:
            return
        topics, bound_topics = self._topics, self._topics.bound
        plain: list[tuple[str, Handler]] = [
            (topics.tool_call_shared(name), partial(self._on_call, name)),
            (topics.tool_cancel(name), partial(self._on_cancel, name)),
        ]
        bound: list[tuple[str, Handler]] = [
            (bound_topics.calls_shared(name), partial(self._on_bound_call, name)),
            (bound_topics.cancel(name), partial(self._on_bound_cancel, name)),
        ]
        kinds = [*([(plain, False)] if self._dialect.plain else ()), *([(bound, True)] if self._dialect.bound else ())]
        self._of_tool[name] = [subscribed for both, _ in kinds for subscribed in both]
        self._calls_of[name] = [calls[0] for (calls, _), _ in kinds]
        self._served[name] = tool
        for (calls, cancels), is_bound in kinds:
            await self._subscribe(*calls, calls=True, bound=is_bound)
            await self._subscribe(*cancels, bound=is_bound)

    async def admit(self, names: Iterable[str], *, again: bool = False) -> None:
        """Take the calls of these tools from now on, until the broker loses the session.

        Args:
            names: The names of the tools.
            again: Whether to repeat the subscriptions of tools whose calls are taken already.
        """
        filters = [each for name in names for each in self._calls_of.get(name, ())]
        with contextlib.suppress(ConnectionLost):  # the tools are admitted again when the connection is back
            await self._connection.admit(filters, again=again)

    def replace(self, name: str, tool: ServedTool) -> None:
        """Give further calls of a tool to another handler."""
        if name in self._served:
            self._served[name] = tool

    async def drop(self, name: str) -> None:
        """Take no calls of a tool any more."""
        self._served.pop(name, None)
        self._calls_of.pop(name, None)
        for subscribed in self._of_tool.pop(name, ()):
            if subscribed in self._subscribed:  # otherwise the server stops, and unsubscribes from everything
                self._subscribed.remove(subscribed)
                await self._connection.unsubscribe(*subscribed)

    async def leave(self, name: str) -> None:
        """Leave the share groups of a tool's calls. Calls that the broker has sent or queued are still taken."""
        for calls in self._calls_of.get(name, ()):
            await self._connection.leave(calls)

    def shut(self) -> None:
        """Take no further messages. Calls that still arrive stay in the session, or go to another replica."""
        self._executor = None

    async def unsubscribe(self) -> None:
        """Unsubscribe from all topics."""
        while self._subscribed:
            await self._connection.unsubscribe(*self._subscribed.pop(0))
        self._of_tool.clear()
        self._calls_of.clear()
        self._served.clear()

    async def barrier(self, timeout: float) -> bool:
        """Wait until every message that the broker had queued for the server has arrived.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether they have arrived; False when the server cannot find out.

        Raises:
            TransportError: The connection ended, or the broker does not allow the server to publish a query.
        """
        came = await self._marker.round_trip(timeout)
        if not came:
            logger.debug("server %s cannot find out whether all queued messages have arrived", self._server_id)
        return came

    async def sees_all(self) -> bool:
        """Wait at most 5 s until every message that the broker had queued for the server has arrived.

        Returns:
            Whether they have arrived; False also when the broker does not allow the server to find out.

        Raises:
            ConnectionLost: The connection ended.
        """
        try:
            return await self.barrier(_SEEN_WITHIN)
        except TopicNotAuthorized as error:
            logger.info("server %s cannot tell when all cards have arrived: %s", self._server_id, error)
            return False

    def _make_marker(self) -> bytes:
        return encode(Query(query_id=new_call_id(), call_ids=[], client=self._server_id))

    async def _subscribe(
        self, topic_filter: str, handler: Handler, *, calls: bool = False, bound: bool = False
    ) -> None:
        self._subscribed.append((topic_filter, handler))
        owner = self._server_id if calls else None
        with contextlib.suppress(ConnectionLost):  # the subscription is made when the connection is back
            await self._connection.subscribe(
                topic_filter,
                handler,
                manual=calls,
                exclusive=owner,
                guarded=calls,
                on_refused=self._dialect.on_refused if bound else None,
            )

    # Messages that arrive. The last level of a sender-bound topic is the name of the sender.

    def _on_bound_call(self, name: str, message: InboundMessage) -> None:
        self._on_call(name, message, _sender_of(message))

    def _on_call(self, name: str, message: InboundMessage, sender: str | None = None) -> None:
        executor, tool = self._executor, self._served.get(name)
        if executor is None or tool is None:
            # The call is not acknowledged: it stays in the session, or goes to another replica.
            message.refuse("the server does not take calls of this tool now")
            return
        if message.retain:
            self._faults.refuse(message, "a retained call was ignored", "calls are never retained")
            message.acknowledge()
            return
        if sender is not None and not is_identifier(sender):
            self._faults.refuse(message, "a call from an impossible client name", repr(sender))
            message.acknowledge()
            return
        try:
            call = decode(Call, message.payload, self._max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable call", error)
            call_id, reply_to = _address(message, self._max_payload)
            fault = CallFault(type="invalid_arguments", message=str(error))
            if sender is not None:
                executor.answers.reject(call_id, executor.answers.topic_for(sender, bound=True), message, fault)
            else:
                self._reject(executor, message, call_id, reply_to, fault)
            return
        if sender is None and not is_identifier(call.client):
            self._faults.refuse(message, "a call from an impossible client name", repr(call.client))
            error = CallFault(type="invalid_arguments", message="the client name cannot be used in topics")
            self._reject(executor, message, call.call_id, message.response_topic or call.response_topic, error)
            return
        self._run(executor, tool, call, message, sender)

    def _run(
        self,
        executor: Executor,
        tool: ServedTool,
        call: Call,
        message: InboundMessage,
        sender: str | None,
        *,
        in_query: bool = False,
    ) -> None:
        """Run a call whose client name can be used in topics, unless the caller must not make this call."""
        proven = sender if sender is not None or not message.proves(call.client) else call.client
        reply_to = executor.answers.topic_for(sender or call.client, bound=sender is not None)
        error = self._why_not(tool, call, message, proven, bound=sender is not None)
        asked_for = message.response_topic or call.response_topic
        if error is None and sender is None and asked_for not in (None, reply_to):
            self._faults.refuse(message, "a call with a foreign Response Topic", repr(asked_for))
            error = CallFault(type="unauthorized", message=f"the Response Topic must be {reply_to}")
        if error is not None:
            executor.answers.reject(call.call_id, reply_to, message, error)
        else:
            executor.submit(tool, call, reply_to, message, bound=sender is not None, in_query=in_query)

    def _why_not(
        self, tool: ServedTool, call: Call, message: InboundMessage, sender: str | None, *, bound: bool
    ) -> CallFault | None:
        """Why the sender must not make a call. ``sender`` is None when neither topic nor signature names the sender."""
        if message.refusal is not None:
            return CallFault(type="unauthorized", code=message.refusal.code, message=message.refusal.reason)
        if message.must_be_proven and not tool.repeatable and self._may_have_run(call, message, bound):
            self._faults.refuse(message, "a call that may be the repeat of a forgotten call", repr(call.client))
            what = "the call was signed before this server started, or too long ago, so it may have run already"
            fault = CallFault(type="unavailable", code="SIGNED_TOO_EARLY", message=f"{what}: call again")
            fault.retryable = True
            return fault
        if sender is None:
            return None
        if call.client != sender:
            self._faults.refuse(message, "a call in the name of another client", repr(call.client))
            what = f"the call names client {call.client!r:.80}, but the topic says that {sender} sent it"
            return CallFault(type="unauthorized", code="WRONG_CLIENT", message=what)
        if tool.allowed_callers is not None and sender not in tool.allowed_callers:
            self._faults.refuse(message, "a call of a client that may not call the tool", repr(sender))
            what = f"{sender} is not one of the allowed callers of tool {tool.function.name}"
            return CallFault(type="unauthorized", code="NOT_ALLOWED", message=what)
        return None

    def _may_have_run(self, call: Call, message: InboundMessage, bound: bool) -> bool:
        """Whether a call may have run, although the server does not know the call.

        An earlier process may have run a call that was signed before this process began. Only a call from the session
        that the broker has kept for a named replica has not run, and such calls arrive soon after the start. This
        process may have forgotten a call that was signed longer ago than it keeps responses, or before a call that it
        had no room to keep, or whose end it does not keep, because the call was canceled.
        """
        executor, now, signed_at = self._executor, time.time(), message.proof.signed_at / 1000
        assert executor is not None
        from_session = self._connection.session_present and now < self._began + _FROM_SESSION_WITHIN
        forgotten = max(now - executor.remembers, executor.forgotten)
        if from_session or (signed_at >= self._began and signed_at > forgotten):
            return False
        return not executor.knows((call.client, call.call_id, bound))

    def _on_bound_cancel(self, tool: str, message: InboundMessage) -> None:
        self._on_cancel(tool, message, _sender_of(message))

    def _on_cancel(self, tool: str, message: InboundMessage, sender: str | None = None) -> None:
        try:
            cancel = decode(Cancel, message.payload, self._max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable cancel", error)
            return
        if sender not in (None, cancel.client):
            self._faults.refuse(message, "a cancel in the name of another client", repr(cancel.client))
        elif message.retain:
            message.refuse("cancels are never retained")
        elif self._executor is not None:
            found = self._executor.cancel(tool, (cancel.client, cancel.call_id, sender is not None), cancel.reason)
            if not found and sender is None and self._executor.knows((cancel.client, cancel.call_id, True)):
                message.refuse("the call came on a sender-bound topic, and so must its cancel")

    def _on_bound_query(self, message: InboundMessage) -> None:
        self._on_query(message, _sender_of(message))

    def _on_query(self, message: InboundMessage, sender: str | None = None) -> None:
        """Answer a query.

        Where proof is needed, a stranger gets no answer: it would choose its id and its receiver. But a server whose
        key is not trusted here must not take this server for gone, and take over its names. So this server shows its
        card again.
        """
        if message.refusal is None and self._marker.recognize(message):
            return
        try:
            query = decode(Query, message.payload, self._max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable query", error)
            return
        if self._executor is None or message.retain:
            return
        if message.refusal is not None:
            if query.call is None and not query.call_ids:
                self._on_stranger()
            return
        if not is_identifier(query.client):
            self._faults.refuse(message, "a query from an impossible client name", repr(query.client))
        elif sender not in (None, query.client):
            self._faults.refuse(message, "a query in the name of another client", repr(query.client))
        elif query.call is not None:
            self._on_own_call(self._executor, query, message, sender)
        else:
            self._answer(self._executor, query, message, bound=sender is not None)

    def _on_own_call(self, executor: Executor, query: Query, message: InboundMessage, sender: str | None) -> None:
        """Run a call for this replica alone. A caller sends it when the arguments did not fit at another replica."""
        try:
            call = Call.model_validate(query.call)
        except ValidationError as error:
            self._faults.refuse(message, "an unreadable call", error)
            return
        tool = self._served.get(query.tool or "")
        if call.client != query.client:
            self._faults.refuse(message, "a query with the call of another client", repr(call.client))
        elif tool is None:
            what = f"server {self._server_id} does not serve tool {query.tool!r:.80}"
            error = CallFault(type="unavailable", message=what, retryable=True, data={"maybe_executed": False})
            reply_to = executor.answers.topic_for(call.client, bound=sender is not None)
            executor.answers.reject(call.call_id, reply_to, message, error)
        else:
            self._run(executor, tool, call, message, sender, in_query=True)

    def _answer(self, executor: Executor, query: Query, message: InboundMessage, *, bound: bool) -> None:
        """Answer a query once. A repeat would make the server send many responses for one small message."""
        if not self._queries.add((query.client, query.query_id, bound)):
            message.refuse("the query was answered before")
            return
        call_ids = list(dict.fromkeys(query.call_ids))
        if len(call_ids) > MAX_QUERIED:
            self._faults.refuse(message, "a query for too many calls", f"{len(call_ids)} by {query.client}")
            return
        known = executor.known(query.client, call_ids, bound=bound)
        reply_to = executor.answers.topic_for(query.client, bound=bound)
        executor.answers.answer_query(query.query_id, reply_to, {"known": known})

    def _reject(
        self, executor: Executor, message: InboundMessage, call_id: str, reply_to: str | None, error: CallFault
    ) -> None:
        """Answer with an error if ``reply_to`` is a topic for responses, and acknowledge the message in any case."""
        if reply_to is None or self._topics.client_of_responses(reply_to) is None:
            message.acknowledge()
        else:
            executor.answers.reject(call_id, reply_to, message, error)


def _sender_of(message: InboundMessage) -> str:
    return message.topic.rpartition("/")[2]


def _address(message: InboundMessage, max_payload: int) -> tuple[str, str | None]:
    """The call id and the response topic of an unreadable call, from its payload and its MQTT properties."""
    envelope: Any = None
    if len(message.payload) <= max_payload:
        with contextlib.suppress(ValueError, RecursionError):
            envelope = pydantic_core.from_json(message.payload)
    fields: dict[str, Any] = envelope if isinstance(envelope, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    call_id, reply_to = fields.get("call_id"), message.response_topic or fields.get("response_topic")
    if not isinstance(call_id, str) or not call_id:
        call_id = (message.correlation_data or b"").decode(errors="replace")
    return call_id, reply_to if isinstance(reply_to, str) else None
