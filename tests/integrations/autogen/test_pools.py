"""Pools with AutoGen: several hosts with one agent id take the turns of one conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from autogen_mqtt_agent import AgentHost
from brokers import Mosquitto
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore, PostgresStore
from support import soon

from .conversations import Counter
from .test_agent import _remember
from .test_host import take, turn


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


async def test_the_hosts_of_a_pool_continue_each_others_conversations(
    mosquitto: Mosquitto, namespace: str, planner: Agent
) -> None:
    url, made = shared_postgres().new_database(), list[str]()

    def host(name: str) -> AgentHost:
        return AgentHost(
            lambda conversation: _remember(made, name) and Counter(),
            agent_id="counter",
            broker=mosquitto.url,
            namespace=namespace,
            store=PostgresStore(url),
            pool=True,
            will_delay=1,
        )

    async with host("a"), host("b"):
        said: list[str] = []
        for number in range(6):
            said.append(f"w{number}")
            previous = f"t{number - 1}" if number else None
            answer = await soon(take(planner, f"t{number}", turn("c", said[-1], previous=previous)), 30)
            assert answer == f"{number + 1}: {said}"
    assert set(made) == {"a", "b"}
