"""Agents for the tests of tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from brokers import Broker
from mqtt_agent import Agent, MemoryStore
from support import soon

MakeAgent = Callable[..., Agent]


@pytest.fixture
async def make_agent(broker: Broker, namespace: str) -> AsyncIterator[MakeAgent]:
    """Makes agents in the test's namespace; the test starts them, the fixture stops them."""
    made: list[Agent] = []

    def make(name: str, **options: object) -> Agent:
        defaults = {"broker": broker.url, "namespace": namespace, "will_delay": 1, "drain_timeout": 0.5}
        agent = Agent(name, **{**defaults, "store": MemoryStore(), **options})  # type: ignore[arg-type]
        made.append(agent)
        return agent

    yield make
    for agent in reversed(made):
        await soon(agent.stop(), 20)


@pytest.fixture
async def planner(make_agent: MakeAgent) -> Agent:
    """A started agent that gives tasks to others."""
    agent = make_agent("planner")
    await soon(agent.start())
    return agent


@pytest.fixture
async def writer(make_agent: MakeAgent) -> Agent:
    """A started agent that takes tasks once the test has given it a handler."""
    agent = make_agent("writer")
    await soon(agent.start())
    return agent
