"""Receives the partial results of calls, with one subscription for each call that streams."""

from __future__ import annotations

import logging

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.catalog import Catalog
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.wire import StreamMessage, decode
from mqtt_agent.wire.messages import footprint

__all__ = ["PartialResults"]

logger: logging.Logger = logger_of(__name__)


class PartialResults:
    """Receives the partial results that tools stream before their results.

    Args:
        scope: What all parts of the client share.
        catalog: Says which servers may answer the calls of a tool.
    """

    def __init__(self, scope: Scope, catalog: Catalog) -> None:
        self._scope = scope
        self._catalog = catalog
        self._unsubscribing = BackgroundTasks()
        self._faults = FaultLog(logger)

    async def follow(self, handle: CallHandle) -> None:
        """Subscribe to the stream of a call, until the call is over.

        The stream is on a sender-bound topic when the call is.

        Args:
            handle: The call. Its partial results are given to this handle.

        Raises:
            TransportError: The broker refuses the subscription, or the connection was lost.
        """
        topics, bound = self._scope.topics, handle.bound
        if bound:
            topic = topics.bound.stream(self._scope.agent_id, handle.call_id)
        else:
            topic = topics.tool_stream(handle.tool, handle.call_id)

        def on_message(message: InboundMessage) -> None:
            self._take(handle, message, message.topic.split("/")[-2] if bound else None)

        def unsubscribe() -> None:
            self._unsubscribing.start(self._scope.connection.unsubscribe(topic, on_message))

        handle.open_stream()  # again, when the call is sent on another kind of topics
        handle.when_over(unsubscribe)
        await self._scope.connection.subscribe(topic, on_message)

    def stop(self) -> None:
        """Cancel the background work that unsubscribes from streams."""
        self._unsubscribing.cancel()

    def _take(self, handle: CallHandle, message: InboundMessage, sender: str | None) -> None:
        """Take a stream message.

        Args:
            handle: The call that the topic is for.
            message: The message.
            sender: The server that the topic names as its writer; None for a plain topic.
        """
        try:
            partial = decode(StreamMessage, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable partial", error)
            return
        if partial.call_id != handle.call_id:
            self._faults.refuse(message, "a partial of another call", repr(partial.call_id))
        elif self._may_send(handle.tool, sender, partial.server, message):
            partial.server = sender or partial.server
            handle.take_partial(partial, message.qos, footprint(message.payload))
        else:
            self._faults.refuse(message, "a partial of a server that does not run the call", repr(partial.server))

    def _may_send(self, tool: str, sender: str | None, server: str | None, message: InboundMessage) -> bool:
        if sender is not None:
            return server in (None, sender) and self._catalog.may_answer(tool, sender)
        # On a plain topic only a signature proves something: that the named server has written the message.
        return not message.must_be_proven or (server is not None and self._catalog.may_answer(tool, server))
