"""The members of a pool at the nodes of a cluster, or at bridged brokers: a node is killed, and each task ends once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from brokers import Mosquitto
from brokers.nodes import EjabberdNode
from databases import shared_postgres
from mqtt_agent import Agent, PostgresStore
from mqtt_agent.wire import TaskState
from proxy import Proxy
from support import soon, until

from .conftest import Endpoints

pytestmark = pytest.mark.long

Cluster = list[EjabberdNode]
IDS = [f"t{n}" for n in range(12)]


@pytest.fixture
def url() -> str:
    """The URL of an empty database."""
    return shared_postgres().new_database()


async def give(planner: Agent) -> list[asyncio.Future[object]]:
    given = [await soon(planner.delegate("writer", task_id=each, data="wait", wait_online=True)) for each in IDS]
    return [asyncio.ensure_future(task.result()) for task in given]


async def check_each_ended_once(url: str, namespace: str, results: list[asyncio.Future[object]]) -> None:
    """Each task has its result, and the store has ended each task at its first attempt."""
    assert await soon(asyncio.gather(*results), 90) == IDS
    async with PostgresStore(url) as store:
        records = await store.find(f"{namespace}/writer", "received", states=[TaskState.COMPLETED])
    assert sorted((record.task_id, record.attempt) for record in records) == sorted((each, 1) for each in IDS)


@pytest.mark.parametrize("killed", ["planner", "member"])
async def test_tasks_of_a_pool_finish_once_when_a_node_of_the_cluster_is_killed(
    own_cluster: Cluster, endpoints: Endpoints, namespace: str, url: str, killed: str
) -> None:
    planners, first, third = own_cluster
    async with Proxy(planners.url) as to_planner, Proxy(first.url) as to_member:
        planner = await endpoints.agent(to_planner.url, "planner")
        await endpoints.member(to_member.url, "writer", url)
        await endpoints.member(third.url, "writer", url)
        results = await give(planner)
        await until(lambda: endpoints.runs == Counter(IDS))
        (to_planner if killed == "planner" else to_member).move(third.url)
        await asyncio.to_thread((planners if killed == "planner" else first).kill)
        endpoints.finish.set()
        await check_each_ended_once(url, namespace, results)
    assert endpoints.runs == Counter(IDS)


async def test_tasks_given_while_the_node_of_a_member_is_away_are_done_at_the_other_node(
    own_cluster: Cluster, endpoints: Endpoints, namespace: str, url: str
) -> None:
    planner = await endpoints.agent(own_cluster[0].url, "planner")
    await endpoints.member(own_cluster[1].url, "writer", url)
    await endpoints.member(own_cluster[2].url, "writer", url)
    await asyncio.to_thread(own_cluster[1].kill)
    results = await give(planner)
    endpoints.finish.set()
    await check_each_ended_once(url, namespace, results)
    assert endpoints.runs == Counter(IDS)


@pytest.mark.parametrize("killed", [0, 1], ids=["first", "second"])
async def test_tasks_of_a_pool_finish_once_when_one_of_two_bridged_brokers_is_killed(
    bridged: list[Mosquitto], endpoints: Endpoints, namespace: str, url: str, killed: int
) -> None:
    planner = await endpoints.agent(bridged[0].url, "planner")
    for broker in bridged:  # each broker has a share group of its own, so a task reaches a member at each
        await endpoints.member(broker.url, "writer", url)
    results = await give(planner)
    await until(lambda: endpoints.runs == Counter(IDS))
    await asyncio.to_thread(bridged[killed].kill)
    endpoints.finish.set()
    await asyncio.to_thread(bridged[killed].start)
    await check_each_ended_once(url, namespace, results)
    assert endpoints.runs == Counter(IDS)


async def test_tasks_given_while_the_broker_of_a_member_is_away_are_done_at_the_other_broker(
    bridged: list[Mosquitto], endpoints: Endpoints, namespace: str, url: str
) -> None:
    planner = await endpoints.agent(bridged[0].url, "planner")
    for broker in bridged:
        await endpoints.member(broker.url, "writer", url)
    await asyncio.to_thread(bridged[1].kill)
    results = await give(planner)
    endpoints.finish.set()
    await check_each_ended_once(url, namespace, results)
    await asyncio.to_thread(bridged[1].start)
    assert endpoints.runs == Counter(IDS)
