"""Sends a client's calls, and settles them without a response: by the timeout, a cancellation or a refusal.

:mod:`mqtt_agent.tools.calling.responses` takes the responses.
:mod:`mqtt_agent.tools.calling.recovery` decides what to do with a call when a server or the broker is lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial

import pydantic_core

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.deadlines import Deadlines
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.aio.steps import in_steps
from mqtt_agent.endpoints.retained import PATIENCE
from mqtt_agent.errors import (
    CallCanceled,
    CallTimeout,
    ConnectionLost,
    InvalidArguments,
    MQTTAgentError,
    PayloadTooLarge,
    QueueFull,
    ToolUnavailable,
    TopicNotAuthorized,
    TransportError,
)
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.pacing import PacedCalls
from mqtt_agent.tools.calling.pending import PendingCall
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.transport import (
    NO_MATCHING_SUBSCRIBERS,
    PublishProperties,
    check_reason_code,
    tell_when_denied,
)
from mqtt_agent.transport.packing import message_expiry
from mqtt_agent.wire import Call, Cancel, Query, ServerCard, encode, new_call_id, to_json

__all__ = ["OutgoingCalls"]

logger: logging.Logger = logger_of(__name__)

_REMEMBERED = 1000
_RESEND_AFTER = 0.1  # seconds
_FIRST_ASKED = 2
"""Looks at a call after which its servers are asked for it for the first time."""
_DROPPED_WITHIN = 2.0
"""Seconds after its deadline in which a server drops a call that has not begun. The expiry is in whole seconds."""


class OutgoingCalls:
    """The calls of one client that are under way.

    Args:
        scope: What all parts of the client share.
        catalog: The tools and the servers that serve them.
        queries: The client's queries. Their answers arrive on the same topic as the responses to calls.
        max_pending: How many calls may be under way at once.

    Attributes:
        resend_until: Loop time until which every call is sent again when the broker has no subscriber for the call.
            After a lost connection, servers need some time to subscribe again.
        look_after: Starts the timer that looks at the calls under way; see :class:`FollowUp`.
        looking: This timer, while calls are under way.
        follow: Subscribes to the stream of a call, on the kind of topics that the call goes to.
        paced: The tools whose calls the broker has lost, each with the queue of its calls.
        over: The latest calls that are over, and the server of each call that was sent once.
        on_expired: Called with a call whose servers may have dropped the call, because its first caller has a shorter
            timeout than a caller that has joined the call.
    """

    def __init__(self, scope: Scope, catalog: LiveCatalog, queries: Queries, max_pending: int) -> None:
        self.resend_until: float = -math.inf
        self.look_after: Callable[[], asyncio.TimerHandle] | None = None
        self.looking: asyncio.TimerHandle | None = None
        self.follow: Callable[[CallHandle], Awaitable[None]] | None = None
        self.paced: dict[str, PacedCalls] = {}
        self.on_expired: list[Callable[[PendingCall], None]] = []
        self.over: dict[str, str | None] = {}
        self._connection = scope.connection
        self._topics = scope.topics
        self._agent_id = scope.agent_id
        self._inbox = scope.inbox
        self._dialect = scope.dialect
        self._max_payload = scope.max_payload
        self._catalog = catalog
        self._queries = queries
        self._max_pending = max_pending
        self._closed = ""
        self._pending: dict[str, PendingCall] = {}
        self._tasks = BackgroundTasks()
        self._faults = FaultLog(logger)
        self._deadlines: Deadlines[CallHandle] = Deadlines(self._on_timeout)

    def join(self, tool: str, call: Call, timeout: float | None, deadline: float | None) -> CallHandle | None:
        """Make another handle on the call under way that has the same id.

        The handle shares the result and has a timeout of its own. A call with other arguments is refused.

        Args:
            tool: The tool's name.
            call: The call.
            timeout: See :meth:`open`.
            deadline: See :meth:`open`.

        Returns:
            The handle; None when no call with this id is under way.

        Raises:
            InvalidArguments: The id belongs to another call.
        """
        pending = self._pending.get(call.call_id)
        if pending is None or all(each.done for each in pending.handles):  # a call that is over leaves a moment later
            return None
        if not pending.is_same(tool, to_json(call.arguments)):
            first = pending.handle.tool
            what = f"the call id {call.call_id!r:.80} belongs to a call of tool {first!r} that is under way"
            other = "this is another tool" if tool != first else "the arguments differ"
            message = f"{tool}: {what}, and {other}: choose another call id, or pass none"
            raise InvalidArguments(message, tool=tool, call_id=call.call_id)
        handle = CallHandle(tool, call.call_id, self.cancel)
        handle.server, handle.attempt, handle.bound = pending.handle.server, pending.handle.attempt, pending.bound
        pending.handles.append(handle)
        if pending.deadline is not None and (deadline is None or deadline > pending.deadline):
            if pending.expiry is None:
                at = pending.deadline + _DROPPED_WITHIN
                pending.expiry = asyncio.get_running_loop().call_at(at, self._on_expired, pending)
            pending.deadline = deadline
        self._watch(pending, handle, timeout, deadline)
        return handle

    def under_way(self) -> list[PendingCall]:
        """All calls that are under way."""
        return list(self._pending.values())

    def open(
        self,
        tool: str,
        call: Call,
        timeout: float | None,
        deadline: float | None,
        repeatable: bool,
        resend_until: float,
    ) -> CallHandle:
        """Register a call, which :meth:`send` then sends.

        Args:
            tool: The tool's name.
            call: The call.
            timeout: The timeout that the caller has set, in seconds. A part of this time may have passed.
            deadline: Loop time at which the timeout is over. Then the call fails with :class:`CallTimeout`.
            repeatable: Whether the call may run twice.
            resend_until: Loop time until which the call is sent again when the broker has no subscriber for the call.

        Raises:
            QueueFull: Too many calls are under way.
            ConnectionLost: The client was stopped.
            ToolUnavailable: The client must use sender-bound topics, and no server of the tool speaks them.
            WireError: The arguments have no JSON form.
        """
        if self._closed:
            raise ConnectionLost(f"{tool}: the call was not sent: {self._closed}")
        if len(self._pending) >= self._max_pending:
            raise QueueFull(
                f"{self._max_pending} calls are under way already: wait for results first, or raise max_pending"
            )
        handle = CallHandle(tool, call.call_id, self.cancel)
        handle.bound = self._goes_bound(tool)
        pending = PendingCall(handle, encode(call, tool), deadline, repeatable, resend_until)
        self._pending[call.call_id] = pending
        self._watch(pending, handle, timeout, deadline)
        return handle

    def _watch(self, pending: PendingCall, handle: CallHandle, timeout: float | None, deadline: float | None) -> None:
        """Let a handle fail at its deadline. When no handle waits any more, the call is forgotten."""
        if deadline is not None and timeout is not None:
            self._deadlines.add(deadline, handle, timeout)
        handle.when_over(partial(self._leave, pending, handle, timeout is not None))

    def _on_expired(self, pending: PendingCall) -> None:
        pending.expiry = None
        if pending.confirmed is not None:  # a call that was not sent yet is sent with the later deadline
            for listener in self.on_expired:
                listener(pending)

    # Sending

    def _goes_bound(self, tool: str) -> bool:
        """Whether calls of a tool go to sender-bound topics now.

        Otherwise a server that does not speak them would get no share of the calls.
        """
        if not self._dialect.bound:
            return False
        share = self._catalog.speaks_bound(tool)
        if self._dialect.required and share == "none":
            what = "no server of the tool speaks sender-bound topics, and this client must use them (bound='require')"
            raise ToolUnavailable(f"{tool}: {what}: update the tool's server, or use bound='prefer'", tool=tool)
        return share == "all" or self._dialect.required

    def send(self, handle: CallHandle) -> None:
        """Send a call that was opened.

        Raises:
            TransportError, PayloadTooLarge, QueueFull: The call cannot be sent.
        """
        pending = self._pending.get(handle.call_id)
        if pending is None:  # the timeout ended while the client subscribed to the stream
            return
        if self.looking is None and self.look_after is not None:
            self.looking = self.look_after()
        if self.paced and handle.tool in self.paced:
            self.paced[handle.tool].add(pending)
        else:
            self._send(pending)

    def expect_any(self, pending: PendingCall) -> None:
        """Believe a response on every kind of topic that the client uses: an earlier process has sent the call."""
        pending.kinds |= {kind for kind, used in ((True, self._dialect.bound), (False, self._dialect.plain)) if used}

    def pending(self, call_id: str) -> PendingCall | None:
        """The record of a call that is under way; None when the call is over."""
        return self._pending.get(call_id)

    def stop_looking(self) -> None:
        """Stop the timer that looks at the calls under way."""
        if self.looking is not None:
            self.looking.cancel()
            self.looking = None
        self.look_after = None

    def send_for_others(self, handle: CallHandle) -> None:
        """Send a call whose first caller failed before it was sent, for the callers that have joined meanwhile."""
        pending = self._pending.get(handle.call_id)
        if pending is not None and pending.confirmed is None:
            self.send_again(pending)

    def send_again(self, pending: PendingCall) -> None:
        """Send a call another time. Only for a call that no server can have, or that may run twice."""
        pending.resend = None
        if pending.handle.done:
            return
        pending.begin_again()
        try:
            if pending.bound != self._goes_bound(pending.handle.tool):
                pending.go_over(not pending.bound)
                if pending.handle.streaming:
                    self._tasks.start(self._follow_and_send(pending))
                    return
            self._send(pending)
        except (TransportError, QueueFull, PayloadTooLarge, ToolUnavailable) as error:
            pending.fail(error)

    async def _follow_and_send(self, pending: PendingCall) -> None:
        """Send a call whose stream is on another topic than before."""
        try:
            if self.follow is not None:
                await asyncio.gather(*(self.follow(handle) for handle in pending.handles if handle.streaming))
            if not pending.handle.done:
                self._send(pending)
        except (TransportError, QueueFull, PayloadTooLarge) as error:
            pending.fail(error)

    def send_again_later(self, pending: PendingCall, delay: float) -> None:
        """Send a call another time after ``delay`` seconds; see :meth:`send_again`."""
        pending.resend = asyncio.get_running_loop().call_later(delay, self.send_again, pending)

    def _send(self, pending: PendingCall) -> None:
        handle = pending.handles[0]
        tool, bound = handle.tool, handle.bound
        topic = self._topics.bound.call(tool, self._agent_id) if bound else self._topics.tool_call(tool)
        self._publish(pending, topic, pending.payload, bound=bound)

    def _publish(self, pending: PendingCall, topic: str, payload: bytes, *, bound: bool) -> None:
        handle = pending.handles[0]
        pending.kinds.add(bound)
        pending.unconfirmed = False
        pending.looks, pending.ask_at = 0, _FIRST_ASKED
        pending.lost_servers.clear()
        expiry = None
        if pending.deadline is not None:
            expiry = message_expiry(pending.deadline - asyncio.get_running_loop().time())
        properties = PublishProperties(
            response_topic=self._inbox,
            correlation_data=handle.call_id.encode(),
            message_expiry=expiry,
            user_properties=pending.user_properties,
        )
        # When the connection is lost before the broker has confirmed the call, the connection sends only a repeatable
        # call again. For any other call, the servers are asked first whether they have the call.
        pending.confirmed = self._connection.publish_soon(
            topic,
            payload,
            properties=properties,
            repeatable=pending.repeatable,
            on_trouble=partial(self._on_trouble, pending, topic),
            readers=() if self._connection.identity is None else self._catalog.servers_of(handle.tool),
        )

    def _on_trouble(self, pending: PendingCall, topic: str, confirmed: asyncio.Future[int]) -> None:
        if confirmed is not pending.confirmed or pending.handle.done:
            return
        try:
            code = check_reason_code(confirmed.result(), topic)
        except ConnectionLost:
            pending.unconfirmed = True
            return
        except (TransportError, PayloadTooLarge) as error:
            if self._refuse_again(pending):
                return
            if isinstance(error, TopicNotAuthorized) and pending.bound and not self._dialect.required:
                self._dialect.give_up(error)
                self.send_again(pending)  # no server has got the call
            else:
                pending.fail(error)
            return
        if code == NO_MATCHING_SUBSCRIBERS and not self._refuse_again(pending):
            self._on_no_subscriber(pending)

    def _refuse_again(self, pending: PendingCall) -> bool:
        """Whether a call was for one replica alone. That replica cannot be reached, so the next one gets the call."""
        replica = pending.handle.server
        if not pending.refusals or replica is None:
            return False
        # Only the replica is left out: another replica with its schema may be there, as in a rolling deployment.
        pending.unreached.add(replica)
        self.try_another(pending)
        return True

    def _on_no_subscriber(self, pending: PendingCall, *, looked: bool = False) -> None:
        handle = pending.handle
        now = asyncio.get_running_loop().time()
        if not pending.resend_until and self._catalog.has_standby(handle.tool):
            pending.resend_until = now + PATIENCE
        if now < max(self.resend_until, pending.resend_until):
            # Neither a server nor the broker has the call, so it cannot run twice.
            self.send_again_later(pending, _RESEND_AFTER)
        elif not looked:
            self._tasks.start(self._look_for_standby(pending))
        else:
            what = f"{handle.tool}: no server is subscribed to the tool's calls; pass wait_online=True to wait"
            pending.fail(ToolUnavailable(what, tool=handle.tool, call_id=handle.call_id))

    async def _look_for_standby(self, pending: PendingCall) -> None:
        await self._catalog.complete(once=True)  # the card of a tool does not list the servers that wait for its name
        if not pending.handle.done:
            self._on_no_subscriber(pending, looked=True)

    # Settling

    def try_another(self, pending: PendingCall) -> None:
        """Send a call that does not fit one replica's schema to a replica with another schema, as during a deployment.

        The call has not run. Each schema is tried once. Then the refusal of the server that started last ends the call.
        """
        seen = {card.schemas for _, card in pending.refusals}
        for server in self._catalog.servers_of(pending.handle.tool):
            card = self._catalog.server(server)
            if card is None or server in pending.unreached:
                continue
            if self._takes_calls(card) and card.schemas not in seen:
                try:
                    self._send_to(pending, card)
                    return
                except MQTTAgentError as error:
                    logger.debug("call %s could not be sent to %s: %s", pending.handle.call_id, server, error)
        refusals, pending.refusals = pending.refusals, []
        pending.settle(max(refusals, key=lambda each: each[1].started or "")[0])

    def _takes_calls(self, card: ServerCard) -> bool:
        """Whether a replica takes a call for itself alone."""
        return "call" in (card.features or ()) and (self._dialect.plain or self._queries.speaks_bound(card))

    def _send_to(self, pending: PendingCall, card: ServerCard) -> None:
        """Send a call to one replica alone."""
        query = Query(
            query_id=new_call_id(),
            call_ids=[],
            client=self._agent_id,
            tool=pending.handle.tool,
            call=pydantic_core.from_json(pending.payload),
        )
        pending.moved_to(card.server)
        bound = self._queries.speaks_bound(card)
        self._publish(pending, self._queries.topic_for(card), encode(query), bound=bound)

    def _on_timeout(self, handle: CallHandle, timeout: float) -> None:
        what = f"{handle.tool}: no answer within {timeout:.3g} s; the call may still run"
        pending = self._pending.get(handle.call_id)
        if pending is not None and pending.unreadable is not None:
            what = f"{what}; a response arrived that cannot be read, perhaps of somebody else: {pending.unreadable}"
        handle.fail(CallTimeout(what, tool=handle.tool, call_id=handle.call_id))

    def cancel(self, handle: CallHandle, reason: str | None) -> None:
        """Cancel a call, also at its server if the server can cancel calls.

        A call that failed with :class:`CallTimeout` may still run, so the server is told to cancel such a call too. The
        server is not told while another caller waits for the same call.
        """
        if handle.done and not handle.timed_out:
            return
        pending = self._pending.get(handle.call_id)
        if pending is None or pending.handles == [handle]:
            self._cancel_at_server(handle, reason)
        message = f"{handle.tool}: canceled: {reason or 'the caller asked for it'}"
        handle.fail(CallCanceled(message, tool=handle.tool, call_id=handle.call_id))

    def _cancel_at_server(self, handle: CallHandle, reason: str | None) -> None:
        card = self._catalog.tool(handle.tool)
        if card is not None and "cancel" in (card.features or ()):
            cancel = Cancel(call_id=handle.call_id, client=self._agent_id, reason=reason)
            tool, bound = handle.tool, handle.bound
            topic = self._topics.bound.cancel(tool, self._agent_id) if bound else self._topics.tool_cancel(tool)
            try:
                tell_when_denied(self._connection.publish_soon(topic, encode(cancel)), topic, "its cancels of calls")
            except MQTTAgentError as error:
                logger.debug("the cancel of call %s could not be sent to its server: %s", handle.call_id, error)

    async def cancel_all(self, reason: str) -> None:
        """Cancel every call that is under way, and take no further calls."""
        self._closed = reason
        self._tasks.cancel()
        async for pending in in_steps(self.under_way()):
            for handle in tuple(pending.handles):
                self.cancel(handle, reason)
        self._deadlines.close()

    def on_failed(self, error: TransportError) -> None:
        """Fail every call: the connection is lost for good, or the broker refuses the login."""
        for pending in self.under_way():
            pending.fail(error)

    def _leave(self, pending: PendingCall, handle: CallHandle, timed: bool) -> None:
        """Note that a handle is over. When it is the last handle of its call, the call is forgotten."""
        if timed:
            self._deadlines.note_end()
        if len(pending.handles) > 1:
            pending.handles.remove(handle)
        else:
            self._forget(pending)

    def _forget(self, pending: PendingCall) -> None:
        handle = pending.handles[0]
        call_id = handle.call_id
        if pending.expiry is not None:
            pending.expiry.cancel()
        if pending.resend is not None:
            pending.resend.cancel()
        if pending.confirmed is not None:
            pending.confirmed.cancel()
        if self._pending.get(call_id) is pending:
            del self._pending[call_id]
            sent_once = handle.attempt == 1 and not (pending.sent_again or pending.unconfirmed)
            self.over[call_id] = handle.server if sent_once else None
            if len(self.over) > _REMEMBERED:
                del self.over[next(iter(self.over))]
