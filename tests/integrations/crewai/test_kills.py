"""Crews and flows in processes that are killed during their work, and started again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, die_with_parent
from crewai_mqtt_agent import MQTTAgent
from forking import forked_program, prepare
from mqtt_agent import Agent, MemoryStore, TaskContext
from support import soon, until

IMPORTED = ["crewai.project", "crewai.tasks.conditional_task", "crewai_mqtt_agent", "crewai_mqtt_agent.__main__"]
PROGRAMS = "tests.integrations.crewai.programs"
ROOT = Path(__file__).parents[3]

Start = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """The packages are there before the first program is started: their import would hold up the test's event loop."""
    prepare(IMPORTED)


@pytest.fixture
def start(mosquitto: Mosquitto, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts programs that use the test's folder as their gate."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, more: dict[str, str | None] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        where = {"MQTT_AGENT_BROKER": mosquitto.url, "NAMESPACE": namespace}
        environment = {**os.environ, "PYTHONPATH": path, "GATE": str(tmp_path), **where, **(more or {})}
        environment = {name: value for name, value in environment.items() if value is not None}
        command = [sys.executable, "-m", *arguments]
        options |= {"cwd": tmp_path, "env": environment}
        if more is None:
            started.append(forked_program(IMPORTED, command, **options))
        else:  # with other settings, CrewAI may be another one from its import on
            started.append(subprocess.Popen[bytes](command, preexec_fn=die_with_parent, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def serve(start: Start, namespace: str, tmp_path: Path) -> Start:
    """``python -m crewai_mqtt_agent serve``, with a permanent store."""

    def serve(what: str, *more: str) -> subprocess.Popen[bytes]:
        options = ["--agent-id", "host", "--namespace", namespace, "--store", str(tmp_path / "host.db")]
        return start("crewai_mqtt_agent", "serve", f"{PROGRAMS}:{what}", *options, *more)

    return serve


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


class Analyst(Agent):
    """A peer that waits until the test lets it answer, and records its tasks."""

    def __init__(self, broker: str, namespace: str) -> None:
        super().__init__("analyst", broker=broker, namespace=namespace, store=MemoryStore())
        self.given: list[str | None] = []
        self.done = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.on_task(self.analyse)

    async def analyse(self, task: TaskContext) -> str:
        self.given.append(task.prompt)
        await self.may_answer.wait()
        self.done.set()
        return f"analysis {len(self.given)}"


@pytest.fixture
async def analyst(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Analyst]:
    async with Analyst(mosquitto.url, namespace) as agent:
        yield agent


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.mark.parametrize("when", ["while it was gone", "when it was back"])
async def test_a_killed_crew_under_the_same_run_id_gets_the_answer_to_what_it_had_asked(
    when: str, start: Start, mosquitto: Mosquitto, namespace: str, analyst: Analyst, tmp_path: Path
) -> None:
    program = (PROGRAMS, mosquitto.url, namespace)
    crew = start(*program)
    await until(lambda: analyst.given, 90)
    kill(crew)
    if when == "while it was gone":
        analyst.may_answer.set()
        await soon(analyst.done.wait())
    crew = start(*program)
    analyst.may_answer.set()
    assert await asyncio.to_thread(crew.wait, 90) == 0
    assert "analysis 1" in (tmp_path / "report").read_text()
    assert len(analyst.given) == 1


def test_a_run_id_needs_an_agent_id() -> None:
    with pytest.raises(ValueError, match="run_id needs an agent_id"):
        MQTTAgent(role="analyst", peer="analyst", run_id="report")


async def test_what_a_killed_host_had_given_to_its_own_remote_member_is_not_given_again(
    serve: Start, planner: Agent, analyst: Analyst
) -> None:
    host = serve("crew_with_a_remote_member")
    handle = await soon(planner.delegate("host", data={"topic": "rain"}, wait_online=True))
    await until(lambda: analyst.given, 90)
    kill(host)
    serve("crew_with_a_remote_member")
    analyst.may_answer.set()
    assert await soon(handle.result(), 90) == "analysis 1"
    assert len(analyst.given) == 1


async def test_a_persisted_flow_goes_on_with_its_state_after_a_kill(
    serve: Start, planner: Agent, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"

    def noted() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    host = serve("Counting")
    handle = await soon(planner.delegate("host", data={"topic": "sheep"}, wait_online=True))
    await until(lambda: "second" in noted(), 90)
    kill(host)
    serve("Counting")
    (tmp_path / "open").touch()
    # The flow's first step runs again, with the state that the flow stored, also if that state came from the task's
    # data.
    assert await soon(handle.result(), 90) == {"topic": "sheep, counted, counted", "count": 2}
    assert noted() == ["first: sheep 0", "second", "first: sheep, counted 1", "second"]


async def test_the_command_serves_a_class_with_crew_base(serve: Start, planner: Agent) -> None:
    serve("Books")
    requests: list[Any] = [planner.request("host", data={"topic": "sheep"}, wait_online=True) for _ in range(2)]
    assert await soon(asyncio.gather(*requests), 90) == ["True", "True"]
