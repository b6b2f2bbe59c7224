"""What each endpoint of a crowd gets, counted with a simulated broker and with a real one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from brokers import Mosquitto
from crowd import Connect, Crowd, Phase
from mqtt_agent import Connection
from simulated import SimulatedBroker

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "simulation.py"
AT_START, AT_RESTART = 20, 12
"""Messages that an agent with five peers gets at most when it starts, and when one of its peers restarts."""


async def run(connect: Connect, count: int, servers: int) -> dict[str, Phase]:
    agents, clients = Crowd(connect), Crowd(connect)
    phases = {f"agents, {each.name}": each for each in await agents.agents(count)}
    await agents.stop()
    phases |= {f"clients, {each.name}": each for each in await clients.clients(count, servers)}
    await clients.stop()
    return phases


async def test_a_simulated_crowd_gets_the_same_messages_as_a_real_one() -> None:
    with Mosquitto() as broker:
        real = await run(lambda client_id: Connection(broker.url, client_id=client_id), 8, 6)
    assert await run(SimulatedBroker().connection, 8, 6) == real


@pytest.mark.rule("APEER-4", "DISC-7")
async def test_what_an_endpoint_gets_does_not_depend_on_the_size_of_the_crowd() -> None:
    small, large = [await run(SimulatedBroker().connection, count, count // 2) for count in (12, 24)]
    for name, phase in large.items():
        before = small[name]
        assert phase.messages * before.receivers == before.messages * phase.receivers
        assert (phase.most, phase.others) == (before.most, 0)
    assert large["agents, start"].most <= AT_START
    restarts = [phase for name, phase in large.items() if "restart of one" in name]
    assert [phase.most <= AT_RESTART for phase in restarts] == [True, True]


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_the_simulation_of_300_endpoints_agrees_with_mosquitto() -> None:
    program = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), "--sizes")
    assert await program.wait() == 0
