"""Several processes host one crew, or give the work of crews in one name: each of them is a member of a pool."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter

import pytest
from brokers import Mosquitto, die_with_parent
from crewai import Agent as CrewAgent
from crewai import Crew, Task
from crewai_mqtt_agent import MQTTAgent, host_crew
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon, until

from .models import ScriptedLLM, run

WORKER = """
import sys
from crewai import Crew, Task
from crewai_mqtt_agent import MQTTAgent

broker, namespace, store, run_id, *topics = sys.argv[1:]
where = {"broker": broker, "namespace": namespace, "agent_id": "web", "store": store, "pool": True}
for topic in topics:
    analyst = MQTTAgent(role="analyst", peer="analyst", run_id=f"{run_id}-{topic}", **where)
    task = Task(description=f"Analyse {topic}", expected_output="an analysis", agent=analyst)
    print(Crew(agents=[analyst], tasks=[task]).kickoff().raw, flush=True)
"""


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


class Analyst:
    """The peer of all crews, and what it has got."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self.ids: dict[str, str] = {}
        self.open = asyncio.Event()

    def agent(self, mosquitto: Mosquitto, namespace: str) -> Agent:
        agent = Agent("analyst", broker=mosquitto.url, namespace=namespace, store=MemoryStore())

        @agent.on_task
        async def analyse(task: TaskContext) -> str:
            assert task.sender == "web"
            topic = str(task.prompt).partition("Analyse ")[2].split()[0]
            self.runs[topic] += 1
            self.ids[topic] = task.id
            if topic.startswith("held"):
                await self.open.wait()
            return f"about {topic}"

        return agent


def test_a_crew_member_of_a_pool_needs_an_agent_id() -> None:
    with pytest.raises(ValueError, match="pool needs an agent_id"):
        MQTTAgent(role="analyst", peer="analyst", pool=True)


async def test_the_work_of_a_crew_is_resumed_in_another_process_of_its_pool(
    mosquitto: Mosquitto, namespace: str
) -> None:
    url, analyst = shared_postgres().new_database(), Analyst()
    member = MQTTAgent(
        role="analyst", peer="analyst", broker=mosquitto.url, namespace=namespace, agent_id="web", store=url, pool=True
    )
    work = Task(description="Analyse held", expected_output="text", agent=member)
    other = Agent("web", broker=mosquitto.url, namespace=namespace, store=url, pool=True)
    async with analyst.agent(mosquitto, namespace), other:
        running = asyncio.ensure_future(asyncio.to_thread(run, Crew(agents=[member], tasks=[work])))
        await until(lambda: analyst.runs["held"])
        resumed = await soon(other.resume(analyst.ids["held"]))
        analyst.open.set()
        assert await soon(resumed.result()) == "about held"
        assert (await soon(running)).raw == "about held"
        await asyncio.to_thread(member.close)
    assert analyst.runs == {"held": 1}


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_the_crews_of_several_workers_get_their_answers_and_go_on_in_any_worker(
    mosquitto: Mosquitto, namespace: str
) -> None:
    url, analyst = shared_postgres().new_database(), Analyst()

    async def start(run_id: str, *topics: str) -> asyncio.subprocess.Process:
        command = [sys.executable, "-c", WORKER, mosquitto.url, namespace, url, run_id, *topics]
        return await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, preexec_fn=die_with_parent
        )

    async def said(process: asyncio.subprocess.Process) -> list[str]:
        output, _ = await soon(process.communicate(), 120)
        assert process.returncode == 0
        return output.decode().splitlines()

    async with analyst.agent(mosquitto, namespace):
        killed, stays = await start("run", "x", "held"), await start("other", "y", "held-too")
        await until(lambda: analyst.runs["held"] and analyst.runs["held-too"], 100)
        killed.kill()
        await killed.wait()
        again = await start("run", "x", "held")
        analyst.open.set()
        assert await said(again) == ["about x", "about held"]
        assert await said(stays) == ["about y", "about held-too"]
    assert analyst.runs == {"x": 1, "y": 1, "held": 1, "held-too": 1}
