"""Two Mosquittos with a bridge for all topics of the project: endpoints at both, and a broker that is killed."""

from __future__ import annotations

import asyncio

import pytest
from brokers import Mosquitto
from support import becomes, soon, until

from .conftest import Endpoints

pytestmark = pytest.mark.long

Bridged = list[Mosquitto]


@pytest.mark.parametrize("where", [0, 1], ids=["first", "second"])
async def test_a_call_goes_to_a_server_at_the_other_broker(bridged: Bridged, endpoints: Endpoints, where: int) -> None:
    await endpoints.replica(bridged[where].url, "a")
    client = await endpoints.client(bridged[1 - where].url)
    results = [await soon(client.call("square", {"n": n}, wait_online=True)) for n in range(10)]
    assert results == [n * n for n in range(10)]
    assert endpoints.runs == dict.fromkeys(range(10), 1)


async def test_a_caller_is_told_that_replicas_at_both_brokers_each_run_its_calls(
    bridged: Bridged, endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """Each broker has a share group of its own, and no client can change that."""
    client = await endpoints.client(bridged[0].url)
    await endpoints.replica(bridged[0].url, "a")
    await endpoints.replica(bridged[1].url, "b")

    async def both() -> bool:
        return {card.replica for card in await client.list_servers()} == {"a", "b"}

    await becomes(both)
    results = [await soon(client.call("square", {"n": n})) for n in range(20)]
    assert results == [n * n for n in range(20)]
    await until(lambda: endpoints.runs == dict.fromkeys(range(20), 2))
    await until(lambda: "run all replicas of a server at one broker" in caplog.text)


@pytest.mark.parametrize("killed", [0, 1], ids=["first", "second"])
async def test_tasks_finish_when_one_of_the_brokers_is_killed_and_comes_back(
    bridged: Bridged, endpoints: Endpoints, killed: int
) -> None:
    planner = await endpoints.agent(bridged[0].url, "planner")
    await endpoints.agent(bridged[1].url, "writer")
    ids = [f"t{n}" for n in range(10)]
    given = [await soon(planner.delegate("writer", task_id=each, data="wait", wait_online=True)) for each in ids]
    await until(lambda: endpoints.runs)
    await asyncio.to_thread(bridged[killed].kill)
    endpoints.finish.set()
    await asyncio.to_thread(bridged[killed].start)
    assert await soon(asyncio.gather(*(task.result() for task in given)), 60) == ids
    assert endpoints.runs == dict.fromkeys(ids, 1)
