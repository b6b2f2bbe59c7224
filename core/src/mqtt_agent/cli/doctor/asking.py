"""Asks each server and agent that says it is online: whether anybody listens, and what time it is there."""

from __future__ import annotations

import asyncio
import time

from mqtt_agent.aio.waiting import within
from mqtt_agent.cli.doctor.picture import Picture
from mqtt_agent.errors import MQTTAgentError, WireError
from mqtt_agent.transport import NO_MATCHING_SUBSCRIBERS, Connection, InboundMessage, PublishProperties
from mqtt_agent.wire import Control, Query, TaskResult, decode, encode, new_call_id, new_task_id, read_time

__all__ = ["ask_all"]

_MOST = 200
"""How many servers and how many agents are asked."""
_ANSWERS_WITHIN = 2.0


async def ask_all(connection: Connection, picture: Picture, me: str) -> set[str]:
    """Ask everybody who says online.

    Args:
        connection: A started connection.
        picture: What is in the namespace. The clocks of the agents that answer are added.
        me: The name that asks. No other client may use the name.

    Returns:
        The names to which nobody listens, as far as the broker says so and the login may ask.
    """
    servers = [each.server for each in picture.online_servers() if "query" in (each.features or ())]
    agents = [
        name for name, card in picture.agents.items() if picture.is_online(name) and "get" in (card.features or ())
    ]
    unheard: set[str] = set()
    for name in servers[:_MOST]:
        query = encode(Query(query_id=new_call_id(), call_ids=[], client=me))
        if await _nobody_hears(connection, picture.topics.server_query(name), query, PublishProperties()):
            unheard.add(name)
    asked = _Clocks(connection, picture, me)
    await asked.start()
    for name in agents[:_MOST]:
        if await asked.ask(name):
            unheard.add(name)
    await asked.finish()
    return unheard


class _Clocks:
    """Asks agents for a task that they do not know. The answer has the time at the agent."""

    def __init__(self, connection: Connection, picture: Picture, me: str) -> None:
        self._connection = connection
        self._picture = picture
        self._me = me
        self._asked: dict[str, tuple[str, float]] = {}
        self._listens = False
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Listen for the answers."""
        try:
            await self._connection.subscribe(self._picture.topics.results(self._me), self._on_answer)
            self._listens = True
        except MQTTAgentError:
            self._listens = False  # the examination of the rights reports this

    async def ask(self, name: str) -> bool:
        """Ask one agent. Return whether the broker says that nobody listens."""
        task_id, topics = new_task_id(), self._picture.topics
        control = encode(Control(task_id=task_id, action="get", sender=self._me))
        self._asked[task_id] = (name, time.time())
        unheard = await _nobody_hears(
            self._connection,
            topics.control(name),
            control,
            PublishProperties(response_topic=topics.results(self._me), correlation_data=task_id.encode()),
        )
        if unheard or not self._listens:
            self._asked.pop(task_id, None)
        return unheard

    async def finish(self) -> None:
        """Wait for the answers, for a moment."""
        deadline = time.monotonic() + _ANSWERS_WITHIN
        while self._asked and time.monotonic() < deadline:
            self._changed.clear()
            try:
                await within(self._changed.wait(), max(deadline - time.monotonic(), 0))
            except asyncio.TimeoutError:
                return

    def _on_answer(self, message: InboundMessage) -> None:
        try:
            result = decode(TaskResult, message.payload)
        except WireError:
            return
        name, asked = self._asked.pop(result.task_id, (None, 0.0))
        there = read_time(result.timestamp)
        if name is not None and there is not None:
            self._picture.clocks[name] = there - (asked + time.time()) / 2
        self._changed.set()


async def _nobody_hears(connection: Connection, topic: str, payload: bytes, properties: PublishProperties) -> bool:
    try:
        code = await within(connection.publish(topic, payload, properties=properties), _ANSWERS_WITHIN)
    except (MQTTAgentError, asyncio.TimeoutError):
        return False
    return code == NO_MATCHING_SUBSCRIBERS
