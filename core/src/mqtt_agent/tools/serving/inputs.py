"""Asks the callers of running calls for input, and gives the answers to the handlers that wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import uuid
from typing import Any

from mqtt_agent.aio.backoff import Backoff
from mqtt_agent.aio.faultlog import FaultLog
from mqtt_agent.errors import ConnectionLost, InputNotGiven, WireError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.serving.context import CallStream
from mqtt_agent.tools.serving.execution import Execution
from mqtt_agent.tools.serving.replay import CallKey
from mqtt_agent.tools.serving.scope import Scope
from mqtt_agent.transport import InboundMessage
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import InputAnswer, decode
from mqtt_agent.wire.calls import INPUT

__all__ = ["Inputs"]

logger: logging.Logger = logger_of(__name__)

_FIRST_REPEAT, _LONGEST_REPEAT = 15.0, 300.0
"""Seconds after which a request for input without an answer is sent again."""


class Inputs:
    """The requests for input of one tool server.

    The server subscribes to the answers when the first handler asks, so that other servers need no right for it. A
    request without an answer is sent again and again: the caller may have lost its session, or may have answered while
    this server had lost its own.

    Args:
        scope: What all parts of the server share.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._waiting: dict[tuple[CallKey, str], asyncio.Future[InputAnswer]] = {}
        self._again: dict[CallKey, asyncio.Event] = {}
        self._subscribed: dict[bool, tuple[str, Handler]] = {}
        self._subscribing = asyncio.Lock()
        self._faults = FaultLog(logger)

    async def request(self, execution: Execution, stream: CallStream, method: str, params: dict[str, Any]) -> Any:
        """Ask the caller of a call, and wait for the answer.

        Args:
            execution: The call.
            stream: The stream of the call.
            method: What is asked for, as a method of MCP.
            params: The parameters of this method.

        Returns:
            The result of the method.

        Raises:
            InputNotGiven: The caller does not listen, answers with an error, or gives no answer before the time at
                which it stops to wait for the tool's result.
            TopicNotAuthorized: The broker does not allow the server to read the answers.
        """
        if stream.closed:
            what = f"tool {execution.tool_name} asks its caller, and this caller does not listen for questions"
            raise InputNotGiven(what, code="INPUT_NOT_ACCEPTED")
        await self._listen(execution.bound)
        key, input_id = execution.key, uuid.uuid4().hex
        execution.asked += 1
        fields: dict[str, Any] = {"input_id": input_id, "method": method, "params": params, "number": execution.asked}
        answered: asyncio.Future[InputAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[key, input_id] = answered
        again = self._again.setdefault(key, asyncio.Event())
        repeats = Backoff(_FIRST_REPEAT, _LONGEST_REPEAT)
        try:
            while not answered.done():
                again.clear()
                await stream.publish(INPUT, server=self._scope.server_id, **fields)
                wakes = asyncio.ensure_future(again.wait())
                left = math.inf if execution.expires is None else execution.expires - time.monotonic()
                try:
                    waited = min(repeats.next_wait(), max(0.0, left))
                    await asyncio.wait([answered, wakes], timeout=waited, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    wakes.cancel()
                if left <= waited and not (answered.done() or again.is_set()):
                    what = f"the caller of tool {execution.tool_name} has not answered before the end of its timeout"
                    raise InputNotGiven(what, code="INPUT_TIMEOUT")
        finally:
            del self._waiting[key, input_id]
            if not any(each == key for each, _ in self._waiting):
                self._again.pop(key, None)
        answer = answered.result()
        if answer.error is not None:
            raise InputNotGiven(answer.error.message or "the caller has answered with an error", code=answer.error.code)
        return answer.result

    def ask_again(self, key: CallKey) -> None:
        """Send the open requests of a call again, because its caller has repeated the call, or has asked for it."""
        if key in self._again:
            self._again[key].set()

    async def close(self) -> None:
        """Unsubscribe from the answers."""
        while self._subscribed:
            await self._scope.connection.unsubscribe(*self._subscribed.popitem()[1])

    async def _listen(self, bound: bool) -> None:
        topics, server_id = self._scope.topics, self._scope.server_id
        async with self._subscribing:
            if bound not in self._subscribed:
                topic = topics.bound.input(server_id) if bound else topics.server_input(server_id)
                handler = self._on_bound_answer if bound else self._on_answer
                with contextlib.suppress(ConnectionLost):  # the subscription is made when the connection is back
                    await self._scope.connection.subscribe(topic, handler)
                self._subscribed[bound] = topic, handler

    def _on_bound_answer(self, message: InboundMessage) -> None:
        self._on_answer(message, message.topic.rpartition("/")[2])

    def _on_answer(self, message: InboundMessage, sender: str | None = None) -> None:
        """Take an answer. Only the first answer counts, and on a sender-bound topic only that of the call's caller."""
        try:
            answer = decode(InputAnswer, message.payload, self._scope.max_payload)
        except WireError as error:
            self._faults.refuse(message, "an unreadable answer to a request for input", error)
            return
        if sender not in (None, answer.client):
            self._faults.refuse(message, "an answer in the name of another client", repr(answer.client))
            return
        key = (answer.client, answer.call_id, sender is not None)
        answered = self._waiting.get((key, answer.input_id))
        if answered is None or answered.done() or message.retain:
            message.refuse("nothing waits for the answer")
        else:
            answered.set_result(answer)
