"""Toolkits and remote agents that are closed and used again, on another event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from brokers import Mosquitto
from langchain_mqtt_agent import MQTTRemoteAgent, MQTTToolkit
from mqtt_agent import MemoryStore, TaskContext, sync
from support import soon

from .conftest import Toolbox


def test_toolkits_and_remote_agents_work_after_they_were_closed(mosquitto: Mosquitto, namespace: str) -> None:
    options: dict[str, Any] = {"broker": mosquitto.url, "namespace": namespace}
    toolbox = Toolbox(mosquitto.url, namespace)
    writer = sync.Agent("writer", store=MemoryStore(), will_delay=1, **options)
    toolkit = MQTTToolkit(agent_id="caller", timeout=20, **options)
    remote = MQTTRemoteAgent("writer", agent_id="planner", store=MemoryStore(), timeout=20, **options)
    begun, go = threading.Event(), threading.Event()

    @writer.on_task
    def write(task: TaskContext) -> str:
        begun.set()
        assert go.wait(10)
        return f"{task.prompt} written"

    async def life() -> None:
        [add] = [each for each in await soon(toolkit.aget_tools()) if each.name == "add"]
        assert "3" in str(await soon(add.ainvoke({"a": 1, "b": 2})))
        first, second = (asyncio.ensure_future(remote.ainvoke(text)) for text in ("one", "two"))
        assert await asyncio.to_thread(begun.wait, 10)
        go.set()
        assert [(await soon(each)).text for each in (first, second)] == ["one written", "two written"]

    for _ in range(3):
        begun.clear()
        go.clear()
        with toolbox, writer:
            asyncio.run(life())
            assert remote.invoke("three").text == "three written"
            toolkit.close()
            remote.close()
