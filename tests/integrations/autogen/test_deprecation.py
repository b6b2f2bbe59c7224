"""Names of version 0.1 that have changed: each works for one more version, with a warning that says the new name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from autogen_mqtt_agent import AgentHost, MQTTTool, mqtt_tools, serve_agent, serve_team
from brokers import Embedded
from mqtt_agent import Agent, MemoryStore
from support import soon

from .conftest import Toolbox
from .conversations import Counter
from .programs import make_pair


async def test_remote_tools_can_be_had_by_the_old_function(
    embedded: Embedded, namespace: str, toolbox: Toolbox
) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"mqtt_tools\(...\) is called MQTTWorkbench\(...\)\.get_tools\(\) now"
    ) as caught:
        tools = await soon(mqtt_tools(embedded.url, "agent-a", namespace=namespace, tools=["add"]))
    assert caught[0].filename == __file__
    assert [type(tool) for tool in tools] == [MQTTTool]
    await soon(tools[0].workbench.stop())


def test_a_host_takes_its_concurrency_under_the_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="max_concurrent= is called max_concurrency= now"):
        AgentHost(lambda name: Counter(), agent_id="counter", max_concurrent=2)  # pyright: ignore[reportCallIssue]


def test_a_host_gives_itself_as_its_agent() -> None:
    host = AgentHost(lambda name: Counter(), agent_id="counter")
    with pytest.warns(DeprecationWarning, match=r"AgentHost\.agent is called AgentHost now"):
        assert host.agent is host


@pytest.mark.parametrize(
    ("serve", "factory", "name", "answer"),
    [
        (serve_agent, lambda name: Counter(), "serve_agent", "1: ['go']"),
        (serve_team, make_pair, "serve_team", "l1"),
    ],
)
async def test_a_serving_function_can_still_be_awaited(
    embedded: Embedded, namespace: str, serve: Any, factory: Any, name: str, answer: str
) -> None:
    options: Any = {"broker": embedded.url, "namespace": namespace, "store": MemoryStore()}
    with pytest.warns(DeprecationWarning, match=rf"await {name}\(...\) is called await a{name}\(...\) now"):
        serving = asyncio.ensure_future(serve(factory, agent_id="counter", **options))
    async with Agent("planner", broker=embedded.url, namespace=namespace, store=MemoryStore()) as planner:
        assert await soon(planner.request("counter", "go", wait_online=True)) == answer
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
