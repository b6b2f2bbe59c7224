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
from mqtt_agent.errors import ConnectionLost, SubscriptionRefused, TopicNotAuthorized, TransportError
from mqtt_agent.transport import Connection, InboundMessage
from mqtt_agent.transport.reasons import NO_MATCHING_SUBSCRIBERS
from mqtt_agent.transport.subscriptions import Handler
from mqtt_agent.wire import Topics

__all__ = ["CardAnswers", "CardQuestion"]

logger: logging.Logger = logging.getLogger(__name__)

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
        filters: The topic filters of the cards, each with the handler of the cards. The handler gets the copies too,
            as if they had arrived on the topics of the cards.
    """

    def __init__(self, connection: Connection, topic: str, asker: str, filters: Sequence[tuple[str, Handler]]) -> None:
        self._connection = connection
        self._topic = topic
        self._asker = asker
        self._copies: dict[str, Handler] = {}
        self._subscribed: set[str] = set()
        for topic_filter, handler in filters:
            self.add(topic_filter, handler)

    def add(self, topic_filter: str, handler: Handler) -> None:
        """Take copies of further cards from the next question on. A filter that was added before changes nothing."""
        self._copies.setdefault(Topics.copy(topic_filter, self._asker), partial(self._on_copy, handler))

    async def ask(self) -> None:
        """Ask, and wait for the answers: not at all when the broker says that no other endpoint is there."""
        if not self._connection.keeps_retained_apart:
            return
        loop = asyncio.get_running_loop()
        try:
            for topic_filter in [each for each in self._copies if each not in self._subscribed]:
                self._subscribed.add(topic_filter)
                await self._connection.subscribe(topic_filter, self._copies[topic_filter], qos=0)
            began = loop.time()
            if await self._connection.publish(self._topic, b"{}") == NO_MATCHING_SUBSCRIBERS:
                return
        except TransportError as error:
            logger.info("%s sees no cards that other nodes of the broker keep: %s", self._asker, error)
            return
        await asyncio.sleep(min(max(_LEAST, _ROUND_TRIPS * (loop.time() - began)), _MOST))

    async def stop(self) -> None:
        """Take no further copies."""
        self._subscribed.clear()
        for topic_filter, handler in self._copies.items():
            await self._connection.unsubscribe(topic_filter, handler)

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
            await self._connection.subscribe(self._questions, self._on_question, no_local=True)
        except (TopicNotAuthorized, SubscriptionRefused) as error:
            logger.info("clients at other nodes of the broker may not see the cards of this endpoint: %s", error)
        except ConnectionLost:
            logger.debug("the reconnect will subscribe to %s", self._questions)

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
