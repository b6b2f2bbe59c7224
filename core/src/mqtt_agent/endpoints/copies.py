"""Cards by message: an endpoint asks the others for their cards, where retained messages may be missing.

Some clusters keep each retained message only at the node that took it, so a client at another node does not get it.
Other messages go to all nodes. So an endpoint there asks a question, and every endpoint that hears the question
publishes a copy of its own cards to a topic of the asker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from mqtt_agent.aio.background_tasks import BackgroundTasks
from mqtt_agent.errors import ConnectionLost, TransportError
from mqtt_agent.logs import logger_of
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Topics

__all__ = ["CardAnswers", "CardQuestion"]

logger: logging.Logger = logger_of(__name__)

_ROUND_TRIPS = 10
"""How many times as long as the broker's confirmation an endpoint waits for the answers of the others."""
_LEAST = 0.3  # seconds
_MOST = 2.0  # seconds


class CardQuestion:
    """Asks all endpoints for copies of their cards. Nothing is sent at a broker that gives all retained messages.

    Args:
        connection: The connection that asks.
        topic: The topic of the question.
        asker: The name of the endpoint that asks.
    """

    def __init__(self, connection: Connection, topic: str, asker: str) -> None:
        self._connection = connection
        self._topic = topic
        self._asker = asker
        self._copies: dict[str, Handler] = {}
        """The topic filters of the copies that this endpoint takes, each with the handler of the copies."""

    async def ask(self, filters: Sequence[tuple[str, Handler]]) -> None:
        """Ask, and wait for the answers: not at all when the broker says that no other endpoint is there.

        Args:
            filters: The topic filters of the wanted cards, each with the handler of the cards. The handler gets the
                copies too, as if they had arrived on the topics of the cards.
        """
        if not self._connection.keeps_retained_apart:
            return
        loop = asyncio.get_running_loop()
        try:
            for topic_filter, handler in filters:
                copies = Topics.copy(topic_filter, self._asker)
                if copies not in self._copies:
                    self._copies[copies] = partial(self._on_copy, handler)
                    await self._connection.subscribe(copies, self._copies[copies], qos=0)
            began = loop.time()
            if await self._connection.publish(self._topic, b"{}") == NO_MATCHING_SUBSCRIBERS:
                return
        except TransportError as error:
            logger.info("%s sees no cards that other nodes of the broker keep: %s", self._asker, error)
            return
        await asyncio.sleep(min(max(_LEAST, _ROUND_TRIPS * (loop.time() - began)), _MOST))

    async def stop(self, filters: Sequence[tuple[str, Handler]] | None = None) -> None:
        """Take no further copies.

        Args:
            filters: The topic filters of the cards whose copies are not wanted any more; None means all.
        """
        gone = self._copies if filters is None else [Topics.copy(each, self._asker) for each, _ in filters]
        for copies in list(gone):
            handler = self._copies.pop(copies, None)
            if handler is not None:
                await self._connection.unsubscribe(copies, handler)

    def _on_copy(self, handler: Handler, message: InboundMessage) -> None:
        if not message.retain and message.payload:
            handler(InboundMessage(message.topic[: -len(self._asker) - 1], message.payload, qos=message.qos))


class CardAnswers:
    """Answers the questions of other endpoints with copies of this endpoint's cards.

    Args:
        connection: The connection that answers.
        questions: The topic filter of the questions.
        asker_of: Returns the name of the endpoint that asks, from the topic of a question; None for any other topic.
        cards: Returns the topics and payloads of the endpoint's present cards.
    """

    def __init__(
        self,
        connection: Connection,
        questions: str,
        asker_of: Callable[[str], str | None],
        cards: Callable[[], Iterable[tuple[str, bytes]]],
    ) -> None:
        self._connection = connection
        self._questions = questions
        self._asker_of = asker_of
        self._cards = cards
        self._asked: dict[str, bool] = {}
        """The endpoints that are being answered, and whether they have asked again meanwhile."""
        self._tasks = BackgroundTasks(self._on_failure)

    async def start(self) -> None:
        """Answer from now on, if the broker may keep retained messages from other endpoints."""
        if not self._connection.keeps_retained_apart:
            return
        try:
            # With No Local, the PUBACK of an own question says whether there are other endpoints.
            await self._connection.subscribe(
                self._questions, self._on_question, no_local=True, on_refused=self._on_refused
            )
        except ConnectionLost:
            logger.debug("the reconnect will subscribe to %s", self._questions)

    def _on_refused(self, error: TransportError) -> None:
        logger.info("clients at other nodes of the broker may not see the cards of this endpoint: %s", error)

    async def stop(self) -> None:
        """Answer no more."""
        self._tasks.cancel()
        self._asked.clear()
        await self._connection.unsubscribe(self._questions, self._on_question)

    def _on_question(self, message: InboundMessage) -> None:
        asker = self._asker_of(message.topic)
        if asker is None or message.retain:
            return
        if asker in self._asked:
            self._asked[asker] = True
        else:
            self._asked[asker] = False
            self._tasks.start(self._answer(asker))

    async def _answer(self, asker: str) -> None:
        again = True
        try:
            while again:
                self._asked[asker] = False
                for topic, payload in self._cards():
                    await self._connection.publish(Topics.copy(topic, asker), payload, qos=0)
                again = self._asked[asker]
        finally:
            self._asked.pop(asker, None)

    def _on_failure(self, task: asyncio.Task[Any], error: BaseException) -> None:
        logger.info("a question for cards could not be answered: %s", error)
