"""The first two tasks of a host come at once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from brokers import Embedded
from crewai import Flow
from crewai.agents.agent_executor import AgentExecutor
from crewai.flow import runtime, start
from crewai_mqtt_agent import host_flow
from mqtt_agent import Agent, MemoryStore
from support import soon


async def test_crewai_builds_a_flow_class_once_when_two_tasks_use_it_at_once(
    embedded: Embedded, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Greeting(Flow[dict[str, Any]]):
        @start()
        def greet(self) -> str:
            return f"hello {self.state['name']}"

    built, second = Counter[type](), threading.Event()
    build = runtime.build_flow_definition  # pyright: ignore[reportPrivateImportUsage]

    def build_slowly(flow: type[Flow]) -> Any:
        built[flow] += 1
        if built[flow] > 1:
            second.set()
        if flow in (Greeting, AgentExecutor):
            second.wait(0.05)  # so that another thread comes to this place meanwhile, if it can
        return build(flow)

    monkeypatch.setattr(runtime, "build_flow_definition", build_slowly)
    if "_flow_definition" in AgentExecutor.__dict__:
        monkeypatch.delattr(AgentExecutor, "_flow_definition")
    where: dict[str, Any] = {"broker": embedded.url, "namespace": namespace}
    host = host_flow(Greeting, agent_id="host", store=MemoryStore(), **where)
    async with host, Agent("planner", store=MemoryStore(), **where) as planner:
        tasks = [planner.request("host", data={"name": name}, wait_online=True) for name in ("Ann", "Ben")]
        assert await soon(asyncio.gather(*tasks), 90) == ["hello Ann", "hello Ben"]
    assert (built[Greeting], built[AgentExecutor]) == (1, 1)
