"""The calls of one client that are under way, and what becomes of them when a server or the broker goes away."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.retained import BARRIER, PATIENCE
from mqtt_agent.errors import (
    CallCanceled,
    CallTimeout,
    ConnectionLost,
    QueueFull,
    ToolUnavailable,
    TransportError,
    WireError,
)
from mqtt_agent.tools.calling.directory import Directory
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.pending import PendingCall
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.transport import (
    NO_MATCHING_SUBSCRIBERS,
    Connection,
    InboundMessage,
    PublishProperties,
    check_reason_code,
)
from mqtt_agent.wire import Call, CallFault, Cancel, Response, ServerCard, Topics, decode, encode

__all__ = ["OutgoingCalls"]

logger: logging.Logger = logging.getLogger(__name__)

_REMEMBERED = 1000
_RESEND_AFTER = 0.1
_BROKER_STOPS_WITHIN = 2.0
_LEAVES_WITHIN = 1.0
_RESTART_QUERIES = 3  # it may be busy with the calls that it is given again


class OutgoingCalls:
    """Sends calls and settles them.

    Args:
        connection: Where they go out and the answers come in.
        topics: The namespace.
        name: The caller's name.
        directory: Who serves what.
        max_pending: How many calls may be under way at once.
        max_payload: Bytes of the largest answer that is read.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        name: str,
        directory: Directory,
        max_pending: int,
        max_payload: int,
    ) -> None:
        self.inbox: str = topics.client_responses(name)
        self._connection = connection
        self._topics = topics
        self._name = name
        self._directory = directory
        self._max_pending = max_pending
        self._max_payload = max_payload
        self._pending: dict[str, PendingCall] = {}
        self._over: dict[str, None] = {}  # the ids of the latest calls that have ended
        self._queries = Queries(connection, topics, name, directory)
        self._patient_until = -math.inf
        self._gone: dict[str, tuple[float, set[str]]] = {}
        self._recovering = asyncio.Lock()
        self._tasks = BackgroundTasks()
        self._faults = FaultLog(logger)

    def get(self, call_id: str) -> CallHandle | None:
        """The handle of a call that is under way."""
        pending = self._pending.get(call_id)
        return None if pending is None else pending.handle

    def open(
        self,
        tool: str,
        call: Call,
        timeout: float | None,
        deadline: float | None,
        retry: bool,
        patient_until: float,
    ) -> CallHandle:
        """Take a call in; :meth:`send` sends it.

        Args:
            tool: The tool's name.
            call: The call.
            timeout: Seconds that its caller gave it, of which some may have passed.
            deadline: Loop time at which they are over, and it fails with :class:`CallTimeout`.
            retry: Whether it may run twice.
            patient_until: Loop time until which it is sent again when the broker says that nobody takes it.

        Raises:
            QueueFull: Too many calls are under way.
            WireError: The arguments have no JSON form.
        """
        if len(self._pending) >= self._max_pending:
            raise QueueFull(f"{self._max_pending} calls are under way already")
        handle = CallHandle(tool, call.call_id, self.cancel)
        pending = PendingCall(
            handle, self._topics.tool_call(tool), encode(call), timeout, deadline, retry, patient_until
        )
        self._pending[call.call_id] = pending
        handle.when_over(lambda: self._forget(pending))
        if deadline is not None:
            pending.timer = asyncio.get_running_loop().call_at(deadline, self._on_timeout, pending)
        return handle

    def send(self, handle: CallHandle) -> None:
        """Send a call that was opened.

        Raises:
            TransportError, PayloadTooLarge, QueueFull: It cannot be sent.
        """
        pending = self._pending.get(handle.call_id)
        if pending is not None:  # else its time ran out while its stream was opened
            self._send(pending)

    def cancel(self, handle: CallHandle, reason: str | None) -> None:
        """Stop a call, at its server too when that can."""
        if handle.done and not handle.timed_out:
            return
        self._cancel_at_server(handle, reason)
        message = f"{handle.tool}: canceled: {reason or 'its caller asked for it'}"
        handle.fail(CallCanceled(message, tool=handle.tool, call_id=handle.call_id))

    def _cancel_at_server(self, handle: CallHandle, reason: str | None) -> None:
        card = self._directory.tool(handle.tool)
        if card is not None and "cancel" in (card.features or ()):
            cancel = Cancel(call_id=handle.call_id, client=self._name, reason=reason)
            try:
                self._connection.publish_soon(self._topics.tool_cancel(handle.tool), encode(cancel))
            except (TransportError, QueueFull) as error:
                logger.debug("call %s is canceled here only: %s", handle.call_id, error)

    def cancel_all(self, reason: str) -> None:
        """Stop every call, and everything that is done for them."""
        self._tasks.cancel()
        for pending in list(self._pending.values()):
            self.cancel(pending.handle, reason)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Do something for a call in the background."""
        self._tasks.start(coroutine)

    # Sending

    def _send(self, pending: PendingCall) -> None:
        handle = pending.handle
        pending.unconfirmed = False
        pending.lost_to.clear()
        expiry = None
        if pending.deadline is not None:
            expiry = max(1, math.ceil(pending.deadline - asyncio.get_running_loop().time()))
        properties = PublishProperties(
            response_topic=self.inbox,
            correlation_data=handle.call_id.encode(),
            message_expiry=expiry,
            user_properties=pending.user_properties,
        )
        # A call that must not run twice is not simply sent again when the broker may have it: first all are asked.
        pending.confirmed = self._connection.publish_soon(
            pending.topic, pending.payload, properties=properties, repeatable=pending.retry
        )
        pending.confirmed.add_done_callback(lambda confirmed: self._on_confirmed(pending, confirmed))

    def _send_again(self, pending: PendingCall) -> None:
        pending.resend = None
        if pending.handle.done:
            return
        pending.handle.server = None
        try:
            self._send(pending)
        except (TransportError, QueueFull) as error:
            pending.handle.fail(error)

    def _on_confirmed(self, pending: PendingCall, confirmed: asyncio.Future[int]) -> None:
        if confirmed.cancelled() or confirmed is not pending.confirmed or pending.handle.done:
            return
        handle = pending.handle
        try:
            code = check_reason_code(confirmed.result(), pending.topic)
        except ConnectionLost:
            pending.unconfirmed = True
            return
        except TransportError as error:
            handle.fail(error)
            return
        if code == NO_MATCHING_SUBSCRIBERS:
            loop = asyncio.get_running_loop()
            if not pending.patient_until and self._directory.has_standby(handle.tool):
                pending.patient_until = loop.time() + PATIENCE
            if loop.time() < max(self._patient_until, pending.patient_until):
                # Nobody has it, so sending it again cannot run it twice.
                pending.resend = loop.call_later(_RESEND_AFTER, self._send_again, pending)
            else:
                what = f"{handle.tool}: nobody takes its calls"
                handle.fail(ToolUnavailable(what, tool=handle.tool, call_id=handle.call_id))

    # What comes in

    def on_response(self, message: InboundMessage) -> None:
        """Something came in on the inbox."""
        readable = True
        try:
            response = decode(Response, message.payload, self._max_payload)
        except WireError as error:
            readable = False
            self._faults.tell(message.topic, "an unreadable response", error)
            call_id = (message.correlation_data or b"").decode(errors="replace")
            fault = CallFault(type="tool_error", code="UNREADABLE_RESPONSE", message=f"its response: {error}")
            response = Response(call_id=call_id, status="error", error=fault)
        pending = self._pending.get(response.call_id)
        if pending is not None:
            pending.handle.settle(response)
        elif response.call_id in self._over:
            logger.debug("%s: late, or a repeat", response.call_id)
        elif not self._queries.settle(response) and readable and not response.call_id.startswith(BARRIER):
            self._faults.tell(message.topic, "a response to a call that nobody waits for", repr(response.call_id))

    def _on_timeout(self, pending: PendingCall) -> None:
        handle = pending.handle
        what = f"{handle.tool}: no answer within {pending.timeout:.3g} s; it may still run"
        handle.fail(CallTimeout(what, tool=handle.tool, call_id=handle.call_id))

    # Trouble

    def on_server_gone(self, card: ServerCard, with_its_calls: bool) -> None:
        """A server went offline, or came back without its session, and perhaps without the calls that it ran."""
        server, offered = card.server, set(card.tools)
        now = asyncio.get_running_loop().time()
        self._gone = {s: (when, tools) for s, (when, tools) in self._gone.items() if when > now - PATIENCE}
        self._gone[server] = now, offered
        affected = self._perhaps_at(card)
        for pending in affected if with_its_calls else ():
            pending.lost_to[server] = card.started
        self._recover_soon(affected)

    def on_server_restarted(self, before: ServerCard) -> None:
        """A new process has taken the place of a server, with those of its calls that it had not acknowledged."""
        affected = self._perhaps_at(before)
        if affected:
            self.spawn(self._recover_from_restart(before, affected))

    def on_reconnected(self, session_present: bool) -> None:
        """The connection is back; without the session, answers may have been lost."""
        self._patient_until = asyncio.get_running_loop().time() + PATIENCE
        self._recover_soon([p for p in self._pending.values() if p.unconfirmed or not session_present])

    def on_failed(self, error: TransportError) -> None:
        """The connection will not come back."""
        for pending in list(self._pending.values()):
            pending.handle.fail(error)

    def _perhaps_at(self, card: ServerCard) -> list[PendingCall]:
        """The calls that a server may have, for all we know; what is about to be sent again, nobody has."""
        offered = set(card.tools)

        def perhaps(handle: CallHandle) -> bool:
            # What it is known to have, it has also when it offers the tool no more.
            return handle.server == card.server if handle.server else handle.tool in offered

        return [p for p in self._pending.values() if p.resend is None and perhaps(p.handle)]

    async def _recover_from_restart(self, before: ServerCard, affected: list[PendingCall]) -> None:
        known: dict[str, str] = {}
        for _ in range(_RESTART_QUERIES):
            # The broker keeps the order: the new process gets the query behind the calls that it is given again.
            call_ids = [pending.handle.call_id for pending in affected if not pending.handle.done]
            known, answered = await self._queries.ask([before.server], call_ids)
            if answered:
                break
        for pending in affected:
            if known.get(pending.handle.call_id) == before.server:
                pending.handle.attempt += 1
        lost = [p for p in affected if not p.handle.done and p.resend is None and p.handle.call_id not in known]
        for pending in lost:
            pending.lost_to[before.server] = before.started
        self._recover_soon(lost)

    def _recover_soon(self, affected: list[PendingCall]) -> None:
        if affected:
            self.spawn(self._recover(affected))

    async def _recover(self, affected: list[PendingCall]) -> None:
        # One at a time: what one has sent again, the next one finds at its server.
        async with self._recovering:
            # The answers that were on their way have come when our own message comes back.
            await self._directory.barrier()
            tools: dict[str, list[PendingCall]] = {}
            for pending in affected:
                if not pending.handle.done:
                    tools.setdefault(pending.handle.tool, []).append(pending)
            await asyncio.gather(*(self._recover_tool(tool, pending) for tool, pending in tools.items()))

    async def _recover_tool(self, tool: str, affected: list[PendingCall]) -> None:
        await self._directory.all_settled(tool)
        # A broker that stops in order publishes wills on its way: those servers are on their way back, as we were.
        since = self._patient_until - PATIENCE - _BROKER_STOPS_WITHIN
        gone = [server for server, (when, tools) in self._gone.items() if when > since and tool in tools]
        await self._directory.back(gone, self._patient_until)
        await self._directory.taken_over(tool)
        # Who now stands by finishes the calls that it had.
        serving = self._directory.servers_of(tool)
        servers = [*serving, *(s for s in gone if s not in serving and self._directory.is_server_online(s))]
        known, certain = await self._queries.ask(servers, [pending.handle.call_id for pending in affected])
        for pending in affected:
            if pending.handle.done or pending.resend is not None:
                continue
            holder = known.get(pending.handle.call_id)
            # Who holds it may have had it all along, when we do not know who had it before.
            if self._is_lost(pending) and (holder is None or pending.handle.server is not None):
                pending.handle.attempt += 1
            if holder is not None:
                pending.unconfirmed = False
                pending.lost_to.clear()
                pending.handle.server = holder
            elif not self._directory.is_online(tool):
                self._fail_lost(pending)
            elif pending.retry and not (certain and self._leaves_first(pending)):
                # Others than ours may say offline before they leave the share group.
                pending.resend = asyncio.get_running_loop().call_later(_LEAVES_WITHIN, self._send_again, pending)
            elif pending.retry:
                self._send_again(pending)
            elif self._is_lost(pending) or (pending.unconfirmed and not certain):
                self._fail_lost(pending)
            elif certain:
                self._send_again(pending)

    def _leaves_first(self, pending: PendingCall) -> bool:
        """Whether all that may have had it leave the share group before they say offline, as ours do."""
        return all(self._queries.can_ask(server) for server in pending.lost_to)

    def _is_lost(self, pending: PendingCall) -> bool:
        """Whether a server that may have had it has ended; not if it was away and is the same process as before."""
        for server, started in pending.lost_to.items():
            card = self._directory.server(server)
            if card is None or card.status != "online" or not started or card.started != started:
                return True
        return False

    def _fail_lost(self, pending: PendingCall) -> None:
        handle = pending.handle
        what = f"{handle.tool}: {handle.server or 'its server'} went offline while it had the call"
        handle.fail(ToolUnavailable(what, tool=handle.tool, call_id=handle.call_id, maybe_executed=True))

    def _forget(self, pending: PendingCall) -> None:
        for timer in (pending.timer, pending.resend):
            if timer is not None:
                timer.cancel()
        if pending.confirmed is not None:
            pending.confirmed.cancel()
        if self._pending.get(pending.handle.call_id) is pending:
            del self._pending[pending.handle.call_id]
            self._over[pending.handle.call_id] = None
            if len(self._over) > _REMEMBERED:
                del self._over[next(iter(self._over))]
