"""A group chat of four agents, two of them on other hosts: one host is killed, and one loses its network for a time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from autogen_agentchat.base import ChatAgent, TaskResult
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_mqtt_agent import MQTTAgent
from brokers import Mosquitto
from hosts import Hosts, hosts
from support import require, soon, until, words_in

from .conftest import Toolbox
from .processes import HostProcess
from .programs import make_critic, make_editor, make_planner, make_researcher

CUT_OFF_FOR = [0.5, pytest.param(15.0, marks=pytest.mark.long)]
"""Seconds for which an answer reaches no peer. After 15 s, the host has given up its connection and made others."""


def transcript(result: TaskResult) -> list[tuple[str, str, str]]:
    return [(type(each).__name__, each.source, each.to_text()) for each in result.messages]


def chat(researcher: ChatAgent, critic: ChatAgent) -> RoundRobinGroupChat:
    return RoundRobinGroupChat([make_planner(), researcher, make_editor(), critic], max_turns=8)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cut_off_for", CUT_OFF_FOR)
async def test_the_transcript_is_that_of_the_same_chat_in_one_process(
    cut_off_for: float, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(Mosquitto)
    async with hosts(["here", "library", "office"]) as network:
        broker = network.url("here")
        async with Toolbox(broker, namespace):
            monkeypatch.setenv("TOOLS_BROKER", broker)
            monkeypatch.setenv("TOOLS_NAMESPACE", namespace)
            researcher = make_researcher()
            local = await soon(chat(researcher, make_critic()).run(task="go"), 30)
            await researcher._workbench[0].stop()
            result = await in_spite_of_everything(network, namespace, tmp_path, cut_off_for)
    assert transcript(result) == transcript(local)
    said = [text for kind, _, text in transcript(result) if kind == "TextMessage"]
    assert said == ["go", "plan", "it is 5", "edited", "good", "plan more", "she says so", "edited more", "better"]


def states(store: Path) -> list[str]:
    """The states of the tasks in the store of a host."""
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return [state for (state,) in connection.execute("SELECT state FROM tasks")]


async def in_spite_of_everything(network: Hosts, namespace: str, folder: Path, cut_off_for: float) -> TaskResult:
    researching, criticising = (folder / name for name in ("researching", "criticising"))
    researching.mkdir()
    criticising.mkdir()
    where = network.url("library")
    elsewhere = {"prefix": network.prefix("library"), "TOOLS_BROKER": where, "GATE": str(researching)}
    library = HostProcess("make_researcher", "researcher", where, namespace, folder, **elsewhere)
    elsewhere = {"prefix": network.prefix("office"), "GATE": str(criticising)}
    office = HostProcess("make_critic", "critic", network.url("office"), namespace, folder, **elsewhere)
    with library, office:
        remote = [
            MQTTAgent(
                name,
                broker=network.url("here"),
                namespace=namespace,
                agent_id="team",
                store=folder / "team.db",
                absent="wait",
            )
            for name in ("researcher", "critic")
        ]
        running = asyncio.create_task(chat(*remote).run(task="go"))

        # After the agent's tool call, and before its answer about the result.
        await until(lambda: words_in(researching / "entered"), 90)
        library.kill()
        library.start()
        await until(lambda: len(words_in(researching / "entered")) == 2, 90)
        (researching / "open").touch()

        # During a turn: the agent continues and answers, but its answer reaches no peer.
        await until((criticising / "entered").exists, 90)
        await network.cut("office")
        (criticising / "open").touch()
        await until(lambda: states(folder / "critic.db") == ["completed"], 90)
        done, _ = await asyncio.wait({running}, timeout=cut_off_for)
        assert not done
        await network.mend("office")

        result = await soon(running, 60)
    for agent in remote:
        await soon(agent.close())
    return result
