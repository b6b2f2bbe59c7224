"""The cost of presence, counted: how many messages an agent gets when it starts, and when other agents come and go."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
from brokers import Mosquitto
from mqtt_agent import Agent, MemoryStore, TaskContext, ToolClient, ToolServer
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


TOOLS = 10
"""The tools of each server."""


def make_server(number: int, replica: str, broker: str, namespace: str) -> ToolServer:
    server = ToolServer(f"server-{number}", replica=replica, broker=broker, namespace=namespace)
    for each in range(TOOLS):
        server.add_tool(f"tool-{number}-{each}", lambda: "done")
    return server


@pytest.fixture
async def caller(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[tuple[ToolClient, CountingProxy]]:
    """A client among five servers with two replicas each. It has called one tool of two of them."""
    async with contextlib.AsyncExitStack() as crowd:
        for number in range(5):
            for replica in ("a", "b"):
                await crowd.enter_async_context(make_server(number, replica, mosquitto.url, namespace))
        proxy = await crowd.enter_async_context(CountingProxy(mosquitto.url))
        client = ToolClient("caller", broker=proxy.url, namespace=namespace)
        await crowd.enter_async_context(client)
        for number in range(2):
            assert await soon(client.call(f"tool-{number}-0")) == "done"
        yield client, proxy


@pytest.mark.rule("DISC-7")
async def test_a_client_that_starts_gets_cards_of_the_tools_that_it_calls_only(
    caller: tuple[ToolClient, CountingProxy],
) -> None:
    client, proxy = caller
    results, cards = 2, 2 * (1 + 2)
    markers = 1 + 2 * (1 + 3)  # one at the start, and one for each topic: a server may have its name as its id
    assert messages(proxy) <= results + cards + markers
    assert {card.server for card in client._catalog.servers()} == {f"server-{n}:{r}" for n in (0, 1) for r in "ab"}


@pytest.mark.rule("DISC-7")
async def test_a_client_gets_no_message_when_servers_come_and_go_whose_tools_it_does_not_call(
    mosquitto: Mosquitto, namespace: str, caller: tuple[ToolClient, CountingProxy]
) -> None:
    client, proxy = caller
    await soon(client._catalog.barrier())
    proxy.forget()
    async with make_server(4, "c", mosquitto.url, namespace), make_server(5, "a", mosquitto.url, namespace):
        pass
    await soon(client._catalog.barrier())
    assert messages(proxy) == 1  # the marker


@pytest.mark.rule("TCARD-10")
async def test_a_new_replica_of_a_tool_costs_its_callers_a_few_messages(
    mosquitto: Mosquitto, namespace: str, caller: tuple[ToolClient, CountingProxy]
) -> None:
    client, proxy = caller
    await soon(client._catalog.barrier())
    proxy.forget()
    async with make_server(0, "c", mosquitto.url, namespace):
        await until(lambda: client._catalog.is_server_online("server-0:c"))
    await until(lambda: not client._catalog.is_server_online("server-0:c"))
    await soon(client._catalog.barrier())
    assert messages(proxy) <= AT_RESTART
