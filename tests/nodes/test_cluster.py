"""A cluster of three ejabberd nodes: endpoints at different nodes, and a node that is killed.

The nodes share subscriptions and sessions. Each node keeps the retained messages that it has received for itself.
"""

from __future__ import annotations

import asyncio

import pytest
from brokers.nodes import EjabberdNode
from mqtt_agent.errors import ToolNameTaken
from mqtt_agent.transport import Bound
from proxy import Proxy
from support import becomes, soon, until

from .conftest import Endpoints

pytestmark = pytest.mark.long

Cluster = list[EjabberdNode]


async def test_a_call_goes_to_a_server_at_another_node(cluster: Cluster, endpoints: Endpoints) -> None:
    client = await endpoints.client(cluster[0].url)
    await endpoints.replica(cluster[1].url, "a")
    results = [await soon(client.call("square", {"n": n}, wait_online=True)) for n in range(10)]
    assert results == [n * n for n in range(10)]
    assert endpoints.runs == dict.fromkeys(range(10), 1)


async def test_a_client_that_comes_later_finds_the_tools_of_another_node(
    cluster: Cluster, endpoints: Endpoints
) -> None:
    await endpoints.replica(cluster[1].url, "a")
    client = await endpoints.client(cluster[0].url)
    assert await soon(client.call("square", {"n": 2}, wait_online=True, timeout=5)) == 4


async def test_of_replicas_at_different_nodes_one_runs_each_call(cluster: Cluster, endpoints: Endpoints) -> None:
    client = await endpoints.client(cluster[2].url)
    await endpoints.replica(cluster[0].url, "a")
    await endpoints.replica(cluster[1].url, "b")
    results = [await soon(client.call("square", {"n": n}, wait_online=True)) for n in range(20)]
    assert results == [n * n for n in range(20)]
    assert endpoints.runs == dict.fromkeys(range(20), 1)


async def test_calls_go_on_when_the_node_of_a_replica_is_killed(own_cluster: Cluster, endpoints: Endpoints) -> None:
    client = await endpoints.client(own_cluster[0].url)
    async with Proxy(own_cluster[1].url) as balancer:
        await endpoints.replica(balancer.url, "a", will_delay=20)
        assert await soon(client.call("square", {"n": 0}, wait_online=True)) == 0
        balancer.move(own_cluster[2].url)
        await asyncio.to_thread(own_cluster[1].kill)
        results = [await soon(client.call("square", {"n": n}, wait_online=True), 40) for n in range(1, 10)]
    assert results == [n * n for n in range(1, 10)]
    assert endpoints.runs == dict.fromkeys(range(10), 1)


async def test_a_task_goes_to_an_agent_at_another_node(cluster: Cluster, endpoints: Endpoints) -> None:
    planner = await endpoints.agent(cluster[0].url, "planner")
    await endpoints.agent(cluster[1].url, "writer")
    assert await soon(planner.request("writer", task_id="t", wait_online=True)) == "t"
    assert endpoints.runs == {"t": 1}


async def test_an_agent_that_comes_later_finds_the_agents_of_another_node(
    cluster: Cluster, endpoints: Endpoints
) -> None:
    await endpoints.agent(cluster[1].url, "writer")
    planner = await endpoints.agent(cluster[0].url, "planner")

    async def found() -> bool:
        return [peer.name for peer in await planner.peers()] == ["writer"]

    await becomes(found, 5)


@pytest.mark.parametrize("whose", ["planner", "writer"])
async def test_tasks_finish_when_the_node_of_an_agent_is_killed(
    own_cluster: Cluster, endpoints: Endpoints, whose: str
) -> None:
    async with Proxy(own_cluster[0].url) as planners, Proxy(own_cluster[1].url) as writers:
        planner = await endpoints.agent(planners.url, "planner")
        await endpoints.agent(writers.url, "writer")
        ids = [f"t{n}" for n in range(10)]
        given = [await soon(planner.delegate("writer", task_id=each, data="wait", wait_online=True)) for each in ids]
        await until(lambda: endpoints.runs)
        (planners if whose == "planner" else writers).move(own_cluster[2].url)
        await asyncio.to_thread(own_cluster[0 if whose == "planner" else 1].kill)
        endpoints.finish.set()
        assert await soon(asyncio.gather(*(task.result() for task in given)), 60) == ids
    assert endpoints.runs == dict.fromkeys(ids, 1)


async def test_of_replicas_that_start_at_once_at_different_nodes_one_runs_each_call(
    cluster: Cluster, endpoints: Endpoints
) -> None:
    client = await endpoints.client(cluster[2].url)
    await asyncio.gather(*(endpoints.replica(cluster[n % 3].url, f"r{n}") for n in range(6)))
    results = [await soon(client.call("square", {"n": n}, wait_online=True)) for n in range(20)]
    assert results == [n * n for n in range(20)]
    assert endpoints.runs == dict.fromkeys(range(20), 1)


async def test_a_replica_on_standby_takes_over_from_a_replica_at_another_node(
    cluster: Cluster, endpoints: Endpoints
) -> None:
    client = await endpoints.client(cluster[2].url)
    first = await endpoints.replica(cluster[0].url, "a")
    await endpoints.replica(cluster[1].url, "b")
    assert await soon(client.call("square", {"n": 1}, wait_online=True)) == 1
    await soon(first.stop(), 20)
    assert await soon(client.call("square", {"n": 2}, wait_online=True)) == 4
    assert endpoints.runs == {1: 1, 2: 1}


async def test_a_replica_on_standby_that_reconnects_to_another_node_stays_on_standby(
    cluster: Cluster, endpoints: Endpoints
) -> None:
    client = await endpoints.client(cluster[0].url)
    await endpoints.replica(cluster[0].url, "a")
    async with Proxy(cluster[1].url) as balancer:
        second = await endpoints.replica(balancer.url, "b", will_delay=20)
        balancer.move(cluster[2].url)
        epoch = second.connection.epoch
        balancer.drop()
        await until(lambda: second.connection.epoch > epoch and second.connection.connected)
        await until(lambda: second._presence.decided_in == second.connection.epoch and second._presence.standby)
        results = [await soon(client.call("square", {"n": n}, wait_online=True)) for n in range(20)]
    assert results == [n * n for n in range(20)]
    assert endpoints.runs == dict.fromkeys(range(20), 1)


@pytest.mark.parametrize("bound", ["prefer", "require"])
async def test_a_tool_name_at_one_node_is_refused_to_a_server_at_another_node(
    cluster: Cluster, endpoints: Endpoints, bound: Bound
) -> None:
    await endpoints.replica(cluster[0].url, "a", bound=bound)
    with pytest.raises(ToolNameTaken) as caught:
        await endpoints.replica(cluster[1].url, "b", server="other", bound=bound)
    assert caught.value.owner == "server"
