"""Several processes host one crew: each of them is a member of a pool."""

from __future__ import annotations

import threading

from brokers import Mosquitto
from crewai import Agent as CrewAgent
from crewai import Crew, Task
from crewai_mqtt_agent import host_crew
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore
from support import soon

from .models import ScriptedLLM


async def test_the_hosts_of_a_pool_share_the_tasks_of_a_crew(mosquitto: Mosquitto, namespace: str) -> None:
    url, both_work = shared_postgres().new_database(), threading.Barrier(2)

    def host(name: str) -> Agent:
        def make_crew() -> Crew:
            both_work.wait(20)
            worker = CrewAgent(role="worker", goal="work", backstory="works", llm=ScriptedLLM.of(name))
            return Crew(agents=[worker], tasks=[Task(description="{prompt}", expected_output="text", agent=worker)])

        return host_crew(
            make_crew,
            agent_id="crew",
            broker=mosquitto.url,
            namespace=namespace,
            store=url,
            pool=True,
            max_concurrency=1,
            will_delay=1,
        )

    planner = Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore())
    async with host("a"), host("b") as second, planner:
        assert second.card.pool
        handles = [await soon(planner.delegate("crew", f"write {number}")) for number in range(2)]
        assert {await soon(handle.result(), 40) for handle in handles} == {"a", "b"}
