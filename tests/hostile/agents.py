"""The stage for agents: two honest agents that give each other tasks, a hostile peer, and an observer."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from brokers import Broker
from mqtt_agent import Agent, Connection, MemoryStore, TaskContext
from mqtt_agent.transport import Bound
from support import DEADLINE, soon, until

from .peer import properties
from .stage import NOT_OURS, BaseStage


class AgentStage(BaseStage):
    """``attack`` publishes as the hostile peer, whose name is ``peer``; ``check`` checks the consequences.

    ``writer`` executes tasks. A task with the prompt ``wait`` waits for ``go_on``; one with ``ask`` waits for an
    answer.

    Args:
        bound: Whether the agents speak sender-bound topics.
    """

    def __init__(
        self, broker: Broker, namespace: str, caplog: pytest.LogCaptureFixture, bound: Bound = "prefer"
    ) -> None:
        super().__init__(broker, namespace, caplog)
        self.writer = self.new_agent("writer", bound=bound)
        self.planner = self.new_agent("planner", bound=bound)
        self._honest: set[str] = set()
        self.writer.on_task(self._handle)
        self.planner.on_task(self._handle)

    def new_agent(self, name: str, **options: Any) -> Agent:
        settings: dict[str, Any] = {"store": MemoryStore(), "will_delay": 1, "drain_timeout": 0.2, **options}
        return Agent(name, broker=self.broker.url, namespace=self.namespace, **settings)

    async def _handle(self, task: TaskContext) -> Any:
        self.runs.append(task.id)
        if task.prompt == "wait":
            await self.go_on.wait()
        if task.prompt == "ask":
            return await task.ask("Well?")
        return task.data

    async def start(self) -> None:
        await self.watch()
        await soon(asyncio.gather(self.writer.start(), self.planner.start()))
        await soon(asyncio.gather(self.planner.peers(), self.writer.peers()))  # both follow all agents from now on
        await self.request()
        self.remember()

    @property
    def connections(self) -> tuple[Connection, ...]:
        return self.writer.connection, self.planner.connection

    async def stop_the_honest(self) -> None:
        await soon(asyncio.gather(self.planner.stop(), self.writer.stop()), 20)

    # Attacking

    def task(self, task_id: Any = "t-1", **fields: Any) -> dict[str, Any]:
        """A valid task. Fields replace its fields, None removes a field."""
        task = {"task_id": task_id, "from": "peer", "to": "writer", "prompt": "go", "created_at": "t", **fields}
        return {name: value for name, value in task.items() if value is not None}

    def properties(self, **changes: Any) -> bytes:
        """The MQTT properties of a valid task."""
        return properties(**{"response_topic": self.topics.results("peer"), "correlation": b"t-1", **changes})

    # Checking the consequences

    async def request(self) -> None:
        """Check that a task of an honest agent is executed."""
        task_id = f"honest-{uuid.uuid4().hex[:8]}"
        self.expect(task_id)
        assert await soon(self.planner.request("writer", data="fine", task_id=task_id, wait_online=True)) == "fine"

    def expect(self, task_id: str) -> None:
        """Expect that the honest agents publish about a task that ``planner`` gives ``writer``."""
        topics = self.topics
        self._honest |= {topics.task_result(task_id), topics.task_events(task_id)}
        self._honest.add(topics.bound.events("planner", task_id, "writer"))

    def results(self, topic: str | None = None) -> list[dict[str, Any]]:
        """The messages on the peer's results topic, or on another topic."""
        return [json.loads(message.payload) for message in self.messages(topic or self.topics.results("peer"))]

    async def settle(self) -> None:
        """Wait until all sent messages have been processed."""
        for _ in range(2):
            await self.request()
        assert self.watcher is not None
        await self.watcher.barrier(f"{self.namespace}/{NOT_OURS}/barrier")

    async def check(self, *faults: tuple[str, str], business: Sequence[str] = ()) -> None:
        """Check that all works, and that exactly these ``faults`` (topic and reason's pattern) were logged, once each.

        Args:
            faults: The faults that must have been logged, in any order.
            business: Topics on which our agents may have published, in addition to the topics of honest work.
        """
        await self.settle()
        self.check_connections()
        told = self.faults()
        for topic, reason in faults:
            matching = [line for line in told if f" on {topic[:300]}: " in line and re.search(reason, line)]
            assert len(matching) == 1, f"{reason!r} on {topic} was told {len(matching)} times: {told}"
        assert len(told) == len(faults), told
        assert all(line.isprintable() for line in told), "a peer must not write lines of its own into our log"
        assert self.errors() == []
        assert self.strays() - set(business) == set()

    def strays(self) -> set[str]:
        """Topics on which only the hostile peer should publish, and on which another client published nevertheless."""
        assert self.watcher is not None
        topics, known = self.topics, {f"{self.namespace}/{NOT_OURS}/barrier", self.topics.results("peer")}
        for name in ("writer", "planner"):
            known |= {topics.agent_card(name), topics.agent_status(name), topics.inbox(name), topics.results(name)}
            known |= {topics.control(name), topics.bound.control(name, name)}
        known |= {topics.bound.inbox("writer", "planner"), topics.bound.control("writer", "planner")}
        known.add(topics.bound.results("planner", "writer"))
        if not self.broker.shared_subscriptions:  # then agents ask each other for their cards
            for name, asker in (("writer", "planner"), ("planner", "writer")):
                known.add(topics.agent_query(name))
                known |= {topics.copy(shown(name), asker) for shown in (topics.agent_card, topics.agent_status)}
        return {message.topic for message in self.watcher.seen} - known - self._sent_to - self._honest

    async def until_told(self, pattern: str) -> None:
        await until(lambda: any(re.search(pattern, line) for line in self.faults()), DEADLINE)
