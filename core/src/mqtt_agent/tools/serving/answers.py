"""Answers calls, and acknowledges each call only after its answer."""

from __future__ import annotations

import logging
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, PoisonMessage
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage, PublishProperties
from mqtt_agent.wire import CallFault, Response, encode

__all__ = ["Answers", "acknowledge", "fail"]

logger: logging.Logger = logging.getLogger(__name__)


class Answers:
    """Publishes the responses of one tool server.

    Args:
        scope: What all parts of the server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._connection = scope.connection
        self._topics = scope.topics
        self._server_id = scope.server_id
        self._tasks = BackgroundTasks()
        self._resending: set[tuple[str, str]] = set()

    def topic_for(self, client: str, *, bound: bool) -> str:
        """The topic of the responses to a client.

        Args:
            client: The client's id, which can be used in topics.
            bound: Whether the client's message arrived on a sender-bound topic.
        """
        if bound:
            return self._topics.bound.responses(client, self._server_id)
        return self._topics.client_responses(client)

    async def publish(self, call_id: str, reply_to: str, messages: list[InboundMessage], payload: bytes) -> None:
        """Publish a response, wait for the broker's confirmation, and then acknowledge the call.

        A response that the broker does not take, for its size or otherwise, is replaced by an error. When no response
        can be sent, the call is acknowledged nevertheless, because the call has run and must not be delivered again.

        Args:
            call_id: The id of the call.
            reply_to: The topic of the response.
            messages: The call's message and its repeats.
            payload: The response.
        """
        properties = PublishProperties(correlation_data=messages[-1].correlation_data if messages else None)
        readers = () if self._connection.identity is None else _signer(messages)
        try:
            try:
                await self._connection.publish(reply_to, payload, properties=properties, readers=readers)
            except (PayloadTooLarge, PoisonMessage) as error:
                logger.warning("the caller gets an error in place of the result of call %.80s: %s", call_id, error)
                response = Response(call_id=call_id, server=self._server_id)
                message = f"the tool ran, but its result cannot be sent: {error}"
                code = "RESULT_TOO_LARGE" if isinstance(error, PayloadTooLarge) else "RESULT_REFUSED"
                fail(response, CallFault(type="tool_error", code=code, message=message))
                await self._connection.publish(reply_to, encode(response), properties=properties, readers=readers)
        except MQTTAgentError as error:
            logger.warning("the response to call %.80s could not be sent: %s", call_id, error)
        acknowledge(messages)

    def publish_soon(self, call_id: str, reply_to: str, messages: list[InboundMessage], payload: bytes) -> None:
        """Publish a response in the background; see :meth:`publish`."""
        self._tasks.start(self.publish(call_id, reply_to, messages, payload))

    def resend(self, call_id: str, reply_to: str, payload: bytes) -> None:
        """Publish a response again, unless an earlier repeat of it is still on its way to the broker."""
        key = reply_to, call_id
        if key not in self._resending:
            self._resending.add(key)
            sending = self._tasks.start(self.publish(call_id, reply_to, [], payload))
            sending.add_done_callback(lambda _: self._resending.discard(key))

    def reject(self, call_id: str, reply_to: str, message: InboundMessage, error: CallFault) -> None:
        """Refuse an invalid call: answer it with an error, and then acknowledge its message."""
        message.refuse(error.message, error.code or "")
        response = Response(call_id=call_id, status="error", error=error, server=self._server_id)
        self.publish_soon(call_id, reply_to, [message], encode(response))

    def answer_query(self, query_id: str, reply_to: str, result: Any) -> None:
        """Answer a query. Queries are acknowledged on arrival."""
        self.publish_soon(
            query_id, reply_to, [], encode(Response(call_id=query_id, result=result, server=self._server_id))
        )


def _signer(messages: list[InboundMessage]) -> tuple[str, ...]:
    """Who reads the answer to messages, if it is proven."""
    signer = messages[-1].signer if messages else None
    return () if signer is None else (signer,)


def acknowledge(messages: list[InboundMessage]) -> None:
    """Acknowledge the message of a call, and its repeats."""
    for message in messages:
        message.acknowledge()


def fail(response: Response, error: CallFault) -> None:
    """Make a response an error."""
    response.status, response.error = "error", error
