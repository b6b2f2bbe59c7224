"""Pools with AutoGen: several hosts take the turns of one conversation, or several processes give turns in one name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from autogen_mqtt_agent import AgentHost
from brokers import Mosquitto
from databases import shared_postgres
from mqtt_agent import Agent, MemoryStore, PostgresStore
from mqtt_agent.wire import TaskState
from support import soon, until

from .conversations import Counter
from .processes import PROGRAMS, HostProcess, Program
from .test_agent import _remember
from .test_host import take, turn


@pytest.fixture
async def planner(mosquitto: Mosquitto, namespace: str) -> AsyncIterator[Agent]:
    async with Agent("planner", broker=mosquitto.url, namespace=namespace, store=MemoryStore()) as agent:
        yield agent


async def test_the_hosts_of_a_pool_continue_each_others_conversations(
    mosquitto: Mosquitto, namespace: str, planner: Agent
) -> None:
    url, made = shared_postgres().new_database(), list[str]()

    def host(name: str) -> AgentHost:
        return AgentHost(
            lambda conversation: _remember(made, name) and Counter(),
            agent_id="counter",
            broker=mosquitto.url,
            namespace=namespace,
            store=PostgresStore(url),
            pool=True,
            will_delay=1,
        )

    async with host("a"), host("b"):
        said: list[str] = []
        for number in range(6):
            said.append(f"w{number}")
            previous = f"t{number - 1}" if number else None
            answer = await soon(take(planner, f"t{number}", turn("c", said[-1], previous=previous)), 30)
            assert answer == f"{number + 1}: {said}"
    assert set(made) == {"a", "b"}


@pytest.mark.long
@pytest.mark.timeout(480)
async def test_a_team_of_a_killed_process_goes_on_in_another_one_and_the_others_are_not_disturbed(
    mosquitto: Mosquitto, namespace: str, tmp_path: Path
) -> None:
    url = shared_postgres().new_database()
    gate = tmp_path / "gate"
    gate.mkdir()

    def file(team: str, kind: str) -> Path:
        return tmp_path / f"{team}.{kind}"

    def process(team: str) -> Program:
        files = str(file(team, "json")), "pool", str(file(team, "said"))
        return Program("-m", PROGRAMS, mosquitto.url, namespace, url, *files)

    def gives_a_turn(team: str) -> bool:
        state = file(team, "json")
        return state.exists() and json.loads(state.read_text())["agent_states"]["marathon"]["agent_state"]["pending"]

    with ExitStack() as running:
        running.enter_context(
            HostProcess("make_marathon", "marathon", mosquitto.url, namespace, tmp_path, GATE=str(gate))
        )
        killed, *others = (running.enter_context(process(team)) for team in "abc")
        await until(lambda: all(map(gives_a_turn, "abc")), 240)
        killed.kill()
        resumed = running.enter_context(process("a"))
        (gate / "open").touch()
        await until(lambda: all(file(team, "said").exists() for team in "abc"), 200)
        assert [each.wait() for each in (resumed, *others)] == [0, 0, 0]
    begun = [["user", "Write a book."], ["planner", "plan"]]
    for team in "abc":
        # The model of the killed planner begins anew in the resumed process.
        plan = "plan" if team == "a" else "plan more"
        rest = [
            ["marathon", "1: ['Write a book.', 'plan']"],
            ["editor", "edited"],
            ["planner", plan],
            ["marathon", f"2: {['Write a book.', 'plan', 'edited', plan]}"],
            ["editor", "edited more"],
        ]
        assert json.loads(file(team, "said").read_text()) == (rest if team == "a" else begun + rest)
    async with PostgresStore(url) as store:
        turns = [await soon(store.count(f"{namespace}/caller", "delegated", [state])) for state in TaskState]
    assert dict(zip(TaskState, turns, strict=True)) == dict.fromkeys(TaskState, 0) | {TaskState.COMPLETED: 6}
