"""The cost of presence, counted: how many messages an agent gets when it starts, and when other agents come and go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon, until

from .counting import CountingProxy

PEERS = 5
OTHERS = 15
AT_START = 20
"""Messages that an agent with five peers gets at most, from its start to the results of its first tasks."""
AT_RESTART = 12
"""Messages that an agent gets at most when one of its peers is stopped and starts again."""


def make_worker(name: str, broker: str, namespace: str) -> Agent:
    worker = Agent(name, broker=broker, namespace=namespace, store=MemoryStore())

    @worker.on_task
    async def echo(task: TaskContext) -> str | None:
        return task.prompt

    return worker


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[tuple[Agent, CountingProxy]]:
    """An agent among twenty others. It has given a task to five of them."""
    async with contextlib.AsyncExitStack() as crowd:
        for number in range(PEERS + OTHERS):
            await crowd.enter_async_context(make_worker(f"worker-{number}", mosquitto.url, namespace))
        proxy = await crowd.enter_async_context(CountingProxy(mosquitto.url))
        planner = Agent("planner", broker=proxy.url, namespace=namespace, store=MemoryStore())
        await crowd.enter_async_context(planner)
        for number in range(PEERS):
            assert await soon(planner.request(f"worker-{number}", "hello")) == "hello"
        yield planner, proxy


def messages(proxy: CountingProxy) -> int:
    return proxy.received.packets.count("PUBLISH")


async def test_an_agent_that_starts_gets_messages_of_its_own_peers_only(planner: tuple[Agent, CountingProxy]) -> None:
    _, proxy = planner
    results = PEERS
    assert messages(proxy) - results <= AT_START


@pytest.mark.rule("APEER-4")
async def test_an_agent_gets_no_message_when_agents_that_are_not_its_peers_come_and_go(
    mosquitto: Mosquitto, namespace: str, planner: tuple[Agent, CountingProxy]
) -> None:
    agent, proxy = planner
    proxy.forget()
    async with make_worker("newcomer", mosquitto.url, namespace):
        pass
    await soon(agent.peer("worker-0"))  # a round trip: everything that the broker had queued has arrived
    await soon(agent._peers.look_again())
    assert messages(proxy) == 1  # the marker of the round trip


@pytest.mark.rule("APEER-4")
async def test_the_restart_of_a_peer_costs_a_few_messages(
    mosquitto: Mosquitto, namespace: str, planner: tuple[Agent, CountingProxy]
) -> None:
    agent, proxy = planner
    worker = make_worker("another-peer", mosquitto.url, namespace)
    async with worker:
        assert await soon(agent.request("another-peer", "hello")) == "hello"
        proxy.forget()
    await until(lambda: not agent._peers.is_online("another-peer"))
    async with worker:
        await until(lambda: agent._peers.is_online("another-peer"))
        await soon(agent._peers.look_again())
        assert messages(proxy) <= AT_RESTART
