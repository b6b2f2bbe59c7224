"""Takes the responses to a client's calls, and checks that each of them is by a server that may answer the call."""

from __future__ import annotations

import logging

from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.endpoints.markers import MARKER_PREFIX
from mqtt_agent.errors import WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.live_catalog import LiveCatalog
from mqtt_agent.tools.calling.outgoing import OutgoingCalls
from mqtt_agent.tools.calling.pending import PendingCall
from mqtt_agent.tools.calling.queries import Queries
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import CallFault, Response, decode
from mqtt_agent.wire.calls import DOES_NOT_FIT

__all__ = ["Responses"]

logger: logging.Logger = logger_of(__name__)


class Responses:
    """Takes the messages that arrive on a client's inboxes.

    Args:
        scope: What all parts of the client share.
        catalog: The tools and the servers that serve them.
        queries: The client's queries. Their answers arrive on the same topic as the responses to calls.
        calls: The calls that are under way.
    """

    def __init__(self, scope: Scope, catalog: LiveCatalog, queries: Queries, calls: OutgoingCalls) -> None:
        self._max_payload = scope.max_payload
        self._catalog = catalog
        self._queries = queries
        self._calls = calls
        self._faults = FaultLog(logger)

    def on_bound_response(self, message: InboundMessage) -> None:
        """Take a message that arrived on the client's sender-bound inbox; see :meth:`on_response`."""
        self.on_response(message, message.topic.rpartition("/")[2])

    def on_response(self, message: InboundMessage, sender: str | None = None) -> None:
        """Take a message that arrived on the client's inbox: the response to a call or to a query.

        Args:
            message: The message.
            sender: The server that the topic names as its writer; None for a plain topic.
        """
        try:
            response = decode(Response, message.payload, self._max_payload)
        except WireError as error:
            if not self._queries.take_chunk(message.payload, sender):
                self._on_unreadable(message, sender, error)
            return
        if sender is not None:
            if response.server not in (None, sender):
                self._faults.refuse(message, "a response in the name of another server", repr(response.server))
                return
            if response.server is None:
                response.server = sender
        pending = self._calls.pending(response.call_id)
        if pending is not None:
            if not self._may_answer(pending, sender, message, response.server):
                self._faults.refuse(message, "a response of a server that has not got the call", response.call_id)
                return
            if response.error is not None and response.error.code == DOES_NOT_FIT:
                refused_by = self._catalog.server(response.server or "")
                if refused_by is not None and not pending.handle.done:
                    pending.refusals.append((response, refused_by))
                    self._calls.try_another(pending)
                    return
            pending.settle(response)
        elif response.call_id in self._calls.over:
            message.refuse("the call is over, and has its response")
            self._check_second(message.topic, response, self._calls.over[response.call_id])
        elif not self._queries.settle(response, sender) and not response.call_id.startswith(MARKER_PREFIX):
            what = f"{response.call_id!r}; if another client of this name has made the call, give each its own name"
            self._faults.refuse(message, "a response to a call that nobody here waits for", what)

    def _may_answer(
        self, pending: PendingCall, sender: str | None, message: InboundMessage, server: str | None
    ) -> bool:
        """Whether a response may answer a call, as far as its topic and its signature tell."""
        if sender is None and message.must_be_proven:
            known = server is not None and self._catalog.may_answer(pending.handle.tool, server)
            return known and False in pending.kinds
        if sender is None:
            return False in pending.kinds
        return True in pending.kinds and self._catalog.may_answer(pending.handle.tool, sender)

    def _on_unreadable(self, message: InboundMessage, sender: str | None, error: WireError) -> None:
        """Take a response that cannot be read, whose Correlation Data may name a call.

        On a plain topic, anybody may have sent it. So the call goes on, and its timeout tells about the response.
        """
        self._faults.refuse(message, "an unreadable response", error)
        call_id = (message.correlation_data or b"").decode(errors="replace")
        pending = self._calls.pending(call_id)
        if pending is None or not self._may_answer(pending, sender, message, None):
            return
        if sender is None:
            pending.unreadable = error
            pending.ask_at = 0
            return
        fault = CallFault(
            type="tool_error", code="UNREADABLE_RESPONSE", message=f"the response cannot be read: {error}"
        )
        pending.settle(Response(call_id=call_id, status="error", error=fault, server=sender))

    def _check_second(self, topic: str, response: Response, server: str | None) -> None:
        """Drop a response to a call that is over. Tell when another server than the call's server has run the call."""
        if None in (server, response.server) or response.server == server:
            logger.debug("a response to call %s, which is over, was dropped", response.call_id)
        else:
            what = f"call {response.call_id:.40} was sent once, and ran at {server:.60} and at {response.server:.60}"
            advice = (
                "brokers with a bridge each run it: run all replicas of a server at one broker, see docs/brokers.md"
            )
            self._faults.tell(topic, "a second response to a call", f"{what}; {advice}")
