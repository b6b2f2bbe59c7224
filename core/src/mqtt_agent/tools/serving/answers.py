"""Answers calls, and acknowledges each call only after its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mqtt_agent.errors import MQTTAgentError, PayloadTooLarge, PoisonMessage
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import Connection, InboundMessage, PublishProperties, check_reason_code
from mqtt_agent.wire import CallFault, Response, encode

__all__ = ["Answers", "acknowledge", "fail"]

logger: logging.Logger = logger_of(__name__)


class Answers:
    """Publishes the responses of one tool server.

    Args:
        scope: What all parts of the server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._connection = scope.connection
        self._topics = scope.topics
        self._server_id = scope.server_id
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
        """Publish a response as with :meth:`publish_soon`, and wait until it is over."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.publish_soon(call_id, reply_to, messages, payload, lambda: over.done() or over.set_result(None))
        await over

    def publish_soon(
        self,
        call_id: str,
        reply_to: str,
        messages: list[InboundMessage],
        payload: bytes,
        on_over: Callable[[], object] | None = None,
        *,
        signed: bool = True,
    ) -> None:
        """Publish a response, and acknowledge the call when the broker has confirmed the response.

        A response that the broker does not take, for its size or otherwise, is replaced by an error. When no response
        can be sent, the call is acknowledged nevertheless, because the call has run and must not be delivered again.

        Args:
            call_id: The id of the call.
            reply_to: The topic of the response.
            messages: The call's message and its repeats.
            payload: The response.
            on_over: Called once, when the broker has confirmed the response or no response can be sent.
            signed: Whether the response is signed, if the server has a key.
        """
        properties = PublishProperties(correlation_data=messages[-1].correlation_data if messages else None)
        readers = () if self._connection.identity is None else _signers(messages)
        parts = self._connection, self._server_id, call_id, reply_to, messages, properties, readers, signed
        answer = _Answer(*parts, on_over)
        answer.send(payload)

    def resend(self, call_id: str, reply_to: str, payload: bytes) -> None:
        """Publish a response again, unless an earlier repeat of it is still on its way to the broker."""
        key = reply_to, call_id
        if key not in self._resending:
            self._resending.add(key)
            self.publish_soon(call_id, reply_to, [], payload, lambda: self._resending.discard(key))

    def reject(self, call_id: str, reply_to: str, message: InboundMessage, error: CallFault) -> None:
        """Refuse an invalid call: answer it with an error, and then acknowledge its message."""
        client_of = self._topics.client_of_responses
        signed = message.may_be_signed_for(client_of(reply_to) or client_of(reply_to.rpartition("/")[0]))
        message.refuse(error.message, error.code or "")
        response = Response(call_id=call_id, status="error", error=error, server=self._server_id)
        self.publish_soon(call_id, reply_to, [message], encode(response), signed=signed)

    def answer_query(self, query_id: str, reply_to: str, result: Any) -> None:
        """Answer a query. Queries are acknowledged on arrival."""
        self.publish_soon(
            query_id, reply_to, [], encode(Response(call_id=query_id, result=result, server=self._server_id))
        )


class _Answer:
    """A response on its way to the broker."""

    __slots__ = (
        "_call_id",
        "_connection",
        "_messages",
        "_on_over",
        "_properties",
        "_readers",
        "_replaced",
        "_reply_to",
        "_server_id",
        "_signed",
    )

    def __init__(
        self,
        connection: Connection,
        server_id: str,
        call_id: str,
        reply_to: str,
        messages: list[InboundMessage],
        properties: PublishProperties,
        readers: tuple[str, ...],
        signed: bool,
        on_over: Callable[[], object] | None,
    ) -> None:
        self._connection = connection
        self._server_id = server_id
        self._call_id = call_id
        self._reply_to = reply_to
        self._messages = messages
        self._properties = properties
        self._readers = readers
        self._signed = signed
        self._on_over = on_over
        self._replaced = False  # by an error

    def send(self, payload: bytes) -> None:
        try:
            self._connection.publish_soon(
                self._reply_to,
                payload,
                properties=self._properties,
                readers=self._readers,
                signed=self._signed,
                on_confirmed=self._on_confirmed,
            )
        except MQTTAgentError as error:
            self._on_error(error)

    def _on_confirmed(self, confirmed: asyncio.Future[int]) -> None:
        try:
            check_reason_code(confirmed.result(), self._reply_to)
        except MQTTAgentError as error:
            self._on_error(error)
        else:
            self._end()

    def _on_error(self, error: MQTTAgentError) -> None:
        if isinstance(error, (PayloadTooLarge, PoisonMessage)) and not self._replaced:
            self._replaced = True
            logger.warning("the caller gets an error in place of the result of call %.80s: %s", self._call_id, error)
            response = Response(call_id=self._call_id, server=self._server_id)
            message = f"the tool ran, but its result cannot be sent: {error}"
            code = "RESULT_TOO_LARGE" if isinstance(error, PayloadTooLarge) else "RESULT_REFUSED"
            fail(response, CallFault(type="tool_error", code=code, message=message))
            self.send(encode(response))
            return
        logger.warning("the response to call %.80s could not be sent: %s", self._call_id, error)
        self._end()

    def _end(self) -> None:
        acknowledge(self._messages)
        if self._on_over is not None:
            self._on_over()


def _signers(messages: list[InboundMessage]) -> tuple[str, ...]:
    """Who reads the answer to a call and its repeats, if all of them are proven: a stranger may write a repeat."""
    signers = {message.signer for message in messages}
    return tuple(signer for signer in signers if signer is not None) if None not in signers else ()


def acknowledge(messages: list[InboundMessage]) -> None:
    """Acknowledge the message of a call, and its repeats."""
    for message in messages:
        message.acknowledge()


def fail(response: Response, error: CallFault) -> None:
    """Make a response an error."""
    response.status, response.error = "error", error
