"""The subscriptions of one agent: to its inbox, its control messages, its results and the events of its tasks."""

from __future__ import annotations

from collections.abc import Callable

from mqtt_agent.agents.executing.inbox import Inbox
from mqtt_agent.agents.requesting.results import Results
from mqtt_agent.agents.scope import Scope
from mqtt_agent.transport import InboundMessage

__all__ = ["Subscriptions"]


class Subscriptions:
    """The topics on which an agent gets messages about tasks, plain and sender-bound.

    Args:
        scope: The agent's shared values.
        inbox: Takes tasks and control messages.
        results: Takes results and events.
    """

    def __init__(self, scope: Scope, inbox: Inbox, results: Results) -> None:
        self._scope = scope
        self._inbox = inbox
        self._results = results
        self._subscribed: list[tuple[str, Callable[[InboundMessage], None]]] = []

    async def start(self) -> None:
        """Subscribe to the topics that the agent speaks."""
        topics, name, dialect = self._scope.topics, self._scope.agent_id, self._scope.dialect
        inbox, results = self._inbox, self._results
        plain: list[tuple[str, Callable[[InboundMessage], None], bool]] = [
            (topics.inbox(name), inbox.on_task, True),
            (topics.overview_inbox(name), inbox.on_task, True),
            (topics.results(name), results.on_result, True),
            (topics.control(name), inbox.on_control, False),
        ]
        bound: list[tuple[str, Callable[[InboundMessage], None], bool]] = [
            (topics.bound.inbox(name), inbox.on_task, True),
            (topics.bound.results(name), results.on_result, True),
            (topics.bound.control(name), inbox.on_control, False),
            (topics.bound.all_events(name), results.on_event, False),
        ]
        connection = self._scope.connection
        for topic, handler, manual in plain if dialect.plain else ():
            topic_filter = self._shared_filter(topic)
            self._subscribed.append((topic_filter, handler))
            await connection.subscribe(topic_filter, handler, manual=manual)
        for topic, handler, manual in bound if dialect.bound else ():
            topic_filter = self._shared_filter(topic) if handler != results.on_event else topic
            self._subscribed.append((topic_filter, handler))
            await connection.subscribe(topic_filter, handler, manual=manual, on_refused=dialect.on_refused)

    def _shared_filter(self, topic: str) -> str:
        """The topic filter for messages to the agent, of which each member of a pool gets a share."""
        scope = self._scope
        return topic if scope.pool is None else scope.topics.pool_shared(scope.agent_id, topic)

    async def leave_groups(self) -> None:
        """Let the broker give the messages to the other members of the pool from now on."""
        if self._scope.pool is not None:
            for topic_filter, _ in self._subscribed:
                await self._scope.connection.leave(topic_filter)

    async def stop(self) -> None:
        """Remove the handlers. After a disconnect, the broker keeps the subscriptions and the messages."""
        for topic_filter, handler in self._subscribed:
            await self._scope.connection.unsubscribe(topic_filter, handler)
