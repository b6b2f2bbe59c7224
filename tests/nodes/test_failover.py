"""Endpoints with the URLs of several brokers, one of which is killed: their calls and tasks finish at the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from brokers import Mosquitto
from brokers.nodes import EjabberdNode
from mqtt_agent.transport import BrokerURL
from support import soon, until

from .conftest import Endpoints


async def test_open_calls_and_tasks_finish_at_the_broker_to_which_all_endpoints_go(
    mosquitto: Mosquitto, make_mosquitto: Callable[..., Mosquitto], endpoints: Endpoints
) -> None:
    """The brokers share nothing, so each session at the second broker is a new one."""
    first = make_mosquitto()
    await _finishes([first.url, mosquitto.url], first, endpoints)


@pytest.mark.long
async def test_open_calls_and_tasks_finish_when_a_node_of_the_cluster_is_killed(
    own_cluster: list[EjabberdNode], endpoints: Endpoints
) -> None:
    await _finishes([own_cluster[0].url, own_cluster[1].url], own_cluster[0], endpoints)


async def _finishes(urls: list[str], first: Mosquitto | EjabberdNode, endpoints: Endpoints) -> None:
    client = await endpoints.client(urls)
    await endpoints.replica(urls, "a", will_delay=20)
    planner = await endpoints.agent(urls, "planner")
    await endpoints.agent(urls, "writer")
    calls = [asyncio.ensure_future(client.call("wait", {"n": n}, wait_online=True)) for n in range(5)]
    tasks = [await soon(planner.delegate("writer", task_id=f"t{n}", data="wait", wait_online=True)) for n in range(5)]
    names = [*range(5), *(f"t{n}" for n in range(5))]
    await until(lambda: endpoints.runs == dict.fromkeys(names, 1))
    await asyncio.to_thread(first.kill)
    await until(lambda: str(client.connection.url) == str(BrokerURL.parse(urls[1])) and client.connection.connected, 40)
    endpoints.finish.set()
    assert await soon(asyncio.gather(*calls), 60) == list(range(5))
    assert await soon(asyncio.gather(*(task.result() for task in tasks)), 60) == [f"t{n}" for n in range(5)]
    assert await soon(client.call("square", {"n": 7}, wait_online=True), 40) == 49
    assert await soon(planner.request("writer", task_id="later", wait_online=True), 40) == "later"
    assert endpoints.runs == dict.fromkeys([*names, 7, "later"], 1)
