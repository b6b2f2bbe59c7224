"""Answers what tools ask in the middle of a client's calls."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.aio.handlers import is_async, run_in_thread
from mqtt_agent.errors import InvalidIdentifier, MQTTAgentError
from mqtt_agent.logs import logger_of
from mqtt_agent.tools.calling.handle import CallHandle
from mqtt_agent.tools.calling.scope import Scope
from mqtt_agent.tools.questions import ELICITATION, CallQuestion, Elicited
from mqtt_agent.transport import tell_when_denied
from mqtt_agent.wire import CallFault, InputAnswer, StreamMessage, checked_json, encode

__all__ = ["Answering", "OnQuestion", "in_own_thread"]

logger: logging.Logger = logger_of(__name__)

OnQuestion = Callable[[CallQuestion], Any]
"""Answers a question of a tool. An ``async`` function is awaited."""


@dataclass
class _Open:
    """The requests of one call that have no answer, by their ids, and how many handles of the call follow them."""

    requests: dict[str, StreamMessage] = field(default_factory=lambda: dict[str, StreamMessage]())
    followers: int = 0


class Answering:
    """Answers the requests for input that arrive on the streams of a client's calls.

    Args:
        scope: What all parts of the client share.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._tasks = BackgroundTasks()
        self._open: dict[str, _Open] = {}

    def follow(self, handle: CallHandle, on_question: OnQuestion) -> None:
        """Answer the requests of a call until the call is over.

        A handle that has joined the call also gets the requests that came before, and that have no answer yet.

        Args:
            handle: The call.
            on_question: Answers a question. It is called once for each request. A repeat of a request that was answered
                gets the same answer again.
        """
        tasks: dict[str, asyncio.Task[bytes]] = {}
        requests = self._open.setdefault(handle.call_id, _Open())
        requests.followers += 1

        def on_request(message: StreamMessage) -> None:
            input_id = message.input_id
            if not input_id or not message.method or not message.server:
                return
            known = tasks.get(input_id)
            if known is None:
                requests.requests[input_id] = message
                tasks[input_id] = self._tasks.start(self._answer(handle, message, on_question, requests))
            elif known.done() and not known.cancelled() and known.exception() is None:
                self._send(handle, message.server, known.result())

        def on_over() -> None:
            for task in tasks.values():
                task.cancel()
            requests.followers -= 1
            if not requests.followers:
                del self._open[handle.call_id]

        handle.follow_requests(on_request)
        handle.when_over(on_over)
        for message in tuple(requests.requests.values()):
            on_request(message)

    def stop(self) -> None:
        """Answer no further requests."""
        self._tasks.cancel()

    async def _answer(
        self, handle: CallHandle, message: StreamMessage, on_question: OnQuestion, requests: _Open
    ) -> bytes:
        question = CallQuestion(
            handle.call_id, handle.tool, message.number or 1, message.method or "", message.params or {}
        )
        answer = InputAnswer(call_id=handle.call_id, input_id=message.input_id or "", client=self._scope.agent_id)
        try:
            given = on_question(question)
            given = await given if inspect.isawaitable(given) else given
            answer.result = checked_json(question.result_of(given), "answer", handle.tool)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the tool must get an answer whatever the function raises
            logger.exception("on_question failed, so tool %s gets no answer in call %s", handle.tool, handle.call_id)
            if question.method == ELICITATION:
                answer.result = Elicited("cancel").to_result()
            else:
                answer.error = CallFault(message=f"{type(error).__name__}: {error}", code="INPUT_FAILED")
        requests.requests.pop(answer.input_id, None)
        payload = encode(answer)
        self._send(handle, message.server or "", payload)
        return payload

    def _send(self, handle: CallHandle, server: str, payload: bytes) -> None:
        topics = self._scope.topics
        try:
            topic = topics.bound.input(server, self._scope.agent_id) if handle.bound else topics.server_input(server)
            tell_when_denied(self._scope.connection.publish_soon(topic, payload), topic, "its answers to tools")
        except (InvalidIdentifier, MQTTAgentError) as error:
            logger.warning("an answer for call %s could not be sent: %s", handle.call_id, error)


def in_own_thread(on_question: OnQuestion | None) -> OnQuestion | None:
    """A function that calls a plain ``on_question``, which may block, in a thread of its own."""
    if on_question is None or is_async(on_question):
        return on_question
    return lambda question: run_in_thread(lambda: on_question(question), "mqtt-agent-question")
