"""Hosts, participants and workbenches that are closed and used again, on another event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from autogen_mqtt_agent import AgentHost, MQTTAgent, MQTTWorkbench
from brokers import Mosquitto
from mqtt_agent import MemoryStore
from support import soon

from .conftest import Toolbox
from .conversations import talker


def test_everything_is_closed_and_runs_again_on_another_loop(mosquitto: Mosquitto, namespace: str) -> None:
    options: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}

    def writer(conversation: str) -> Any:
        return talker("writer", *(f"text {n}" for n in range(10)))

    host = AgentHost(writer, agent_id="writer", max_concurrency=1, store=MemoryStore(), **options)
    caller: dict[str, Any] = {"peer": "writer", "agent_id": "caller", "store": MemoryStore(), **options}
    participants = [MQTTAgent(name, **caller) for name in ("one", "two", "three")]
    workbench = MQTTWorkbench(agent_id="caller-of-tools", **options)

    async def life() -> None:
        async with host, Toolbox(mosquitto.url, namespace):
            # The host runs one turn at a time: the other turns wait.
            results = await soon(asyncio.gather(*(each.run(task="go") for each in participants)), 30)
            assert [result.messages[-1].to_text()[:4] for result in results] == ["text"] * 3
            result = await soon(workbench.call_tool("add", {"a": 1, "b": 2}))
            assert not result.is_error
            for each in participants:
                await soon(each.close())
            await soon(workbench.stop())

    for _ in range(3):
        asyncio.run(life())
